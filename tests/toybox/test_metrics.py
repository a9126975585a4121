"""Metrics against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdi_gs.toybox import metrics


def square(column: int, row: int, side: int, size: int = 16) -> Tensor:  # [1, H, W, 1]
    alpha = torch.zeros(1, size, size, 1)
    alpha[:, row : row + side, column : column + side] = 1.0
    return alpha


def test_psnr_of_a_constant_offset() -> None:
    truth = torch.full((2, 8, 8, 3), 0.5)
    offsets = torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(metrics.psnr(truth + offsets, truth), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)
    assert metrics.psnr(truth, truth).tolist() == [100.0, 100.0]


def test_psnr_compares_one_prediction_with_many_truths() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.rand(3, 4, 4, 3, generator=generator)
    truths = torch.rand(5, 3, 4, 4, 3, generator=generator)
    together = metrics.psnr(predicted, truths)
    one_by_one = torch.stack([metrics.psnr(predicted, truth) for truth in truths])
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("shift", [0, 2, 8])
def test_iou_of_shifted_squares(shift: int) -> None:
    # Squares of side 8 shifted by s share 8 (8 - s) pixels and cover 8 (8 + s).
    iou = metrics.silhouette_iou(square(0, 4, 8), square(shift, 4, 8)).item()
    assert iou == pytest.approx((8 - shift) / (8 + shift))


def test_iou_of_nothing_with_nothing_is_one() -> None:
    nothing = torch.zeros(1, 4, 4, 1)
    assert metrics.silhouette_iou(nothing, nothing).item() == 1.0
    assert metrics.silhouette_iou(nothing, square(0, 0, 2, 4)).item() == 0.0


def test_silhouette_is_more_than_half_covered() -> None:
    alpha = torch.tensor([0.0, 0.5, 0.51, 1.0]).reshape(1, 1, 4, 1)
    assert metrics.silhouette(alpha).flatten().tolist() == [False, False, True, True]


def test_dilate_grows_a_square_on_all_sides() -> None:
    grown = metrics.dilate(metrics.silhouette(square(5, 6, 3)), 2)
    assert torch.equal(grown, metrics.silhouette(square(3, 4, 7)))


def test_laplacian_energy_of_a_wave() -> None:
    # The five-point Laplacian of cos(w x) is 2 (cos w - 1) cos(w x).
    w = 2.0 * math.pi / 8.0
    wave = 0.5 + 0.25 * torch.cos(w * torch.arange(32.0)).expand(1, 32, 32)
    image = wave[..., None].expand(1, 32, 32, 3)
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, 8:24, 8:24] = True
    expected = (0.25 * 2.0 * (math.cos(w) - 1.0)) ** 2 * 0.5
    assert metrics.laplacian_energy(image, mask).item() == pytest.approx(expected, rel=1e-4)


def test_sharpness_ratio_is_the_square_of_the_contrast_and_ignores_the_far_background() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 32, 32, 3, generator=generator)
    mask = metrics.silhouette(square(10, 10, 8, 32)).expand(2, 32, 32)
    assert metrics.sharpness_ratio(0.5 * truth, truth, mask) == pytest.approx(0.25, rel=1e-5)
    elsewhere = truth.clone()
    elsewhere[:, :6] = 0.0
    assert metrics.sharpness_ratio(elsewhere, truth, mask) == pytest.approx(1.0, rel=1e-6)


def test_saturation_error_is_the_difference_of_chroma_inside() -> None:
    truth = torch.tensor([0.6, 0.4, 0.5]).expand(1, 16, 16, 3)
    vivid = torch.tensor([0.9, 0.1, 0.5]).expand(1, 16, 16, 3)
    mask = metrics.silhouette(square(2, 2, 5))
    predicted = torch.where(mask[..., None], vivid, truth * 0.0)
    assert metrics.saturation_error(predicted, truth, mask) == pytest.approx(0.6, abs=1e-6)
    assert metrics.saturation_error(truth, predicted, mask) == pytest.approx(-0.6, abs=1e-6)


def test_fog_is_the_mean_alpha_away_from_the_silhouette() -> None:
    mask = metrics.silhouette(square(4, 4, 6))
    alpha = torch.full((1, 16, 16, 1), 0.25)
    # What lies in the silhouette or within 2 pixels of it is no fog.
    alpha[:, 2:12, 2:12] = 1.0
    assert metrics.fog(alpha, mask) == pytest.approx(0.25)
    assert metrics.fog(square(4, 4, 6), mask) == 0.0


COLOURS = {"red": (0.9, 0.1, 0.1), "blue": (0.1, 0.2, 0.9), "brown": (0.5, 0.3, 0.1), "white": (0.93, 0.93, 0.93)}


def wheeled(colour: tuple[float, float, float], column: int = 4) -> tuple[Tensor, Tensor]:
    """A coloured square on a dark one, over white, and its alpha."""
    body, wheels = square(column, 4, 6), square(column, 10, 4)
    rgb = 1.0 - body * (1.0 - torch.tensor(colour)) - wheels * 0.9
    return rgb, body + wheels


@pytest.mark.parametrize("name", COLOURS)
def test_nearest_colour_survives_fading_shift_and_dimmer_light(name: str) -> None:
    truths = {colour: wheeled(value)[0] for colour, value in COLOURS.items()}
    _, truth_alpha = wheeled(COLOURS[name])
    rgb, alpha = wheeled(COLOURS[name], column=5)
    faded = 0.6 * rgb + 0.4
    assert metrics.nearest_colour(faded, 0.6 * alpha, truths, truth_alpha) == name
    dim = rgb * (1.0 - 0.15 * alpha)
    assert metrics.nearest_colour(dim, alpha, truths, truth_alpha) == name


def test_nearest_colour_looks_only_where_the_object_wears_its_colour() -> None:
    truths = {colour: wheeled(value)[0] for colour, value in COLOURS.items()}
    rgb, alpha = wheeled(COLOURS["red"])
    blue_wheels = torch.where(square(4, 11, 3) > 0.0, torch.tensor(COLOURS["blue"]), rgb)
    assert metrics.nearest_colour(blue_wheels, alpha, truths, alpha) == "red"


def test_the_distance_from_a_colour_is_zero_where_it_is_that_colour_and_grows_with_washing_out() -> None:
    truths = {colour: wheeled(value)[0] for colour, value in COLOURS.items()}
    rgb, alpha = wheeled(COLOURS["red"])
    exact = metrics.colour_distances(rgb, alpha, truths, alpha)
    assert exact["red"] == pytest.approx(0.0, abs=1e-6)
    washed = rgb + 0.3 * alpha * (rgb.mean(dim=-1, keepdim=True) - rgb)
    assert metrics.colour_distances(washed, alpha, truths, alpha)["red"] > 0.05


def test_the_distance_between_two_colours_is_that_of_chroma_and_half_the_brightness() -> None:
    truths = {name: 1.0 - square(4, 4, 6) * (1.0 - torch.tensor(value)) for name, value in COLOURS.items()}
    alpha = square(4, 4, 6)
    found = metrics.colour_distances(truths["red"], alpha, truths, alpha)["blue"]
    red, blue = torch.tensor(COLOURS["red"]), torch.tensor(COLOURS["blue"])
    chroma = (red - red.mean()) - (blue - blue.mean())
    assert found == pytest.approx(
        (chroma.square().sum() + 0.75 * (red.mean() - blue.mean()) ** 2).sqrt().item(), rel=1e-4
    )


def test_two_colours_spread_and_one_does_not() -> None:
    region = metrics.silhouette(square(2, 2, 8))
    orange, pink = torch.tensor((1.0, 0.52, 0.08)), torch.tensor((1.0, 0.52, 0.72))
    shade = torch.linspace(0.4, 1.0, 16)[None, :, None, None]
    truth = (shade * orange).expand(1, 16, 16, 3)
    left = (torch.arange(16) < 6)[None, None, :, None]
    two = torch.where(left, shade * orange, shade * pink)
    assert metrics.chroma_spread(truth, truth, region) == 0.0

    def spread(image: Tensor) -> float:
        pixels = image[0, 2:10, 2:10].reshape(-1, 3).double().numpy()
        chroma = pixels - pixels.mean(axis=1, keepdims=True)
        return float(((chroma - chroma.mean(axis=0)) ** 2).sum(axis=1).mean() ** 0.5)

    assert metrics.chroma_spread(two, truth, region) == pytest.approx(spread(two) - spread(truth), abs=1e-6)
    assert metrics.chroma_spread(two, truth, region) > 0.08
    grey = truth.mean(dim=-1, keepdim=True).expand(1, 16, 16, 3)
    assert metrics.chroma_spread(grey, truth, region) < 0.0
    assert metrics.chroma_spread(two, truth, torch.zeros_like(region)) == 0.0
