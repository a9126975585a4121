"""Metrics of images against true ones, as pure functions on tensors.

Letters: V views, H W pixels; ``...`` any leading axes, which broadcast (one prediction against many truths).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Smallest mean squared error counted, so that equal images score 100 dB instead of infinity.
MSE_FLOOR = 1e-10


def squared_error(
    predicted: Tensor,  # [..., H, W, 3]
    truth: Tensor,  # [..., H, W, 3]
) -> Tensor:  # [...]
    """Return the mean squared difference per image."""
    return (predicted - truth).square().mean(dim=(-3, -2, -1))


def psnr(
    predicted: Tensor,  # [..., H, W, 3]
    truth: Tensor,  # [..., H, W, 3]
) -> Tensor:  # [...] dB
    """Return the peak signal-to-noise ratio per image in [0, 1], at most 100 dB."""
    return -10.0 * squared_error(predicted, truth).clamp_min(MSE_FLOOR).log10()


def silhouette(
    alpha: Tensor,  # [..., H, W, 1]
) -> Tensor:  # [..., H, W] bool
    """Return the pixels with alpha above one half."""
    return alpha[..., 0] > 0.5


def silhouette_iou(
    predicted: Tensor,  # [..., H, W, 1] alpha
    truth: Tensor,  # [..., H, W, 1] alpha
) -> Tensor:  # [...]
    """Return the silhouettes' intersection over union per image; 1 for two empty ones."""
    return mask_iou(silhouette(predicted), silhouette(truth))


def mask_iou(
    ours: Tensor,  # [..., H, W] bool
    theirs: Tensor,  # [..., H, W] bool
) -> Tensor:  # [...]
    """Return the masks' intersection over union per image; 1 for two empty ones."""
    union = (ours | theirs).sum(dim=(-2, -1))
    both = (ours & theirs).sum(dim=(-2, -1))
    return torch.where(union > 0, both / union.clamp_min(1), torch.ones((), device=union.device))


def dilate(
    mask: Tensor,  # [V, H, W] bool
    radius: int,
) -> Tensor:  # [V, H, W] bool
    """Grow a mask by ``radius`` pixels in all directions, diagonals included."""
    grown = F.max_pool2d(mask[:, None].float(), 2 * radius + 1, stride=1, padding=radius)
    return grown[:, 0] > 0.5


def laplacian_energy(
    rgb: Tensor,  # [V, H, W, 3]
    mask: Tensor,  # [V, H, W] bool
) -> Tensor:  # [] scalar
    """Return the mean square of the five-point Laplacian over the masked pixels of all views (without the border)."""
    return _masked_mean(laplacian(rgb).square().mean(dim=-1), mask[:, 1:-1, 1:-1])


def laplacian(
    rgb: Tensor,  # [V, H, W, 3]
) -> Tensor:  # [V, H - 2, W - 2, 3]
    """Return the five-point Laplacian of the inner pixels."""
    around = rgb[:, :-2, 1:-1] + rgb[:, 2:, 1:-1] + rgb[:, 1:-1, :-2] + rgb[:, 1:-1, 2:]
    return around - 4.0 * rgb[:, 1:-1, 1:-1]


def sharpness_ratio(
    predicted: Tensor,  # [V, H, W, 3]
    truth: Tensor,  # [V, H, W, 3]
    truth_silhouette: Tensor,  # [V, H, W] bool
) -> float:
    """Return the ratio of high-frequency energy to truth's, inside the true silhouette grown by 2 pixels.

    1 is right, 0 is blur. The ratio measures energy, not agreement: noise scores high, too, so read it beside PSNR.
    """
    region = dilate(truth_silhouette, 2)
    energy = laplacian_energy(truth, region)
    return (laplacian_energy(predicted, region) / energy.clamp_min(1e-12)).item()


def saturation_error(
    predicted: Tensor,  # [V, H, W, 3]
    truth: Tensor,  # [V, H, W, 3]
    truth_silhouette: Tensor,  # [V, H, W] bool
) -> float:
    """Return the mean chroma (max - min over channels, HSV's S times V) minus truth's: above 0 is too colourful.

    Chroma is used instead of S because S of a nearly black pixel is a ratio of two small numbers.
    """
    difference = _chroma(predicted) - _chroma(truth)
    return _masked_mean(difference, truth_silhouette).item()


def fog(
    predicted: Tensor,  # [V, H, W, 1] alpha
    truth_silhouette: Tensor,  # [V, H, W] bool
) -> float:
    """Return the mean predicted alpha farther than 2 pixels outside the true silhouette: 0 is right."""
    return _masked_mean(predicted[..., 0], ~dilate(truth_silhouette, 2)).item()


def colour_distances(
    predicted: Tensor,  # [V, H, W, 3] over white
    predicted_alpha: Tensor,  # [V, H, W, 1]
    truth_by_colour: dict[str, Tensor],  # name -> [V, H, W, 3] over white, one object in every colour
    truth_alpha: Tensor,  # [V, H, W, 1]
) -> dict[str, float]:
    """Return the distance of the prediction's mean colour to that of the true object in every colour; 0 is equal.

    It compares mean colours over ``own_colour_region``, with the white background removed by alpha. Means are
    insensitive to blur and small shifts; brightness counts half as much as chroma, since light is less certain
    than hue.
    """
    truths = torch.stack(list(truth_by_colour.values()))
    region = own_colour_region(truths)
    seen = _opponent(_mean_foreground(predicted, predicted_alpha, region))
    expected = _opponent(_mean_foreground(truths, truth_alpha, region))
    distances = (expected - seen).square().sum(dim=-1).sqrt()
    return dict(zip(truth_by_colour, distances.tolist(), strict=True))


def nearest_colour(
    predicted: Tensor,  # [V, H, W, 3] over white
    predicted_alpha: Tensor,  # [V, H, W, 1]
    truth_by_colour: dict[str, Tensor],  # name -> [V, H, W, 3] over white, one object in every colour
    truth_alpha: Tensor,  # [V, H, W, 1]
) -> str:
    """Return the colour in which the true object is nearest to the prediction (``colour_distances``)."""
    distances = colour_distances(predicted, predicted_alpha, truth_by_colour, truth_alpha)
    return min(distances, key=lambda name: distances[name])


def own_colour_region(
    truths: Tensor,  # [C, V, H, W, 3] one object in C colours
) -> Tensor:  # [V, H, W] bool
    """Return the pixels that have the object's colour, where the truths differ, grown by 1 pixel."""
    own_share = truths.std(dim=0).mean(dim=-1)
    return dilate(own_share > 0.5 * own_share.max(), 1)


def chroma_spread(
    predicted: Tensor,  # [V, H, W, 3] over white
    truth: Tensor,  # [V, H, W, 3] over white
    region: Tensor,  # [V, H, W] bool, where both show the object in its own colour
) -> float:
    """Return the spread of chroma over the region of all views, minus truth's: above 0 is several colours.

    The spread is the root mean square distance of a pixel's chroma (the channels minus their mean) from the mean
    chroma. White and black have none, so that the background over which both are composited adds no colour.
    """
    spreads = []
    for images in (predicted, truth):
        chroma = (images - images.mean(dim=-1, keepdim=True))[region]
        spreads.append((chroma - chroma.mean(dim=0)).square().sum(dim=-1).mean().sqrt().item() if len(chroma) else 0.0)
    return spreads[0] - spreads[1]


def _mean_foreground(
    rgb: Tensor,  # [..., V, H, W, 3] over white
    alpha: Tensor,  # [V, H, W, 1]
    mask: Tensor,  # [V, H, W] bool
) -> Tensor:  # [..., 3]
    """Return the mean colour of the pixels that alpha covers, with the white background removed."""
    premultiplied = (rgb - (1.0 - alpha)) * mask[..., None]
    covered = (alpha[..., 0] * mask).sum().clamp_min(1.0)
    return premultiplied.sum(dim=(-4, -3, -2)) / covered


def _opponent(
    rgb: Tensor,  # [..., 3]
) -> Tensor:  # [..., 4]
    """Return the channels' differences from their mean, and brightness weighted by one half."""
    mean = rgb.mean(dim=-1, keepdim=True)
    return torch.cat([rgb - mean, 0.5 * math.sqrt(3.0) * mean], dim=-1)


def _chroma(rgb: Tensor) -> Tensor:
    return rgb.amax(dim=-1) - rgb.amin(dim=-1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)
