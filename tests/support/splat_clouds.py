"""Clouds for the tests of splat files, and how far two of them differ."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdi_gs.splats.splat_cloud import SplatCloud, normalized_quats, rotation_matrices

DEGREES = {"degree 0": 0, "degree 1": 3, "degree 2": 8, "degree 3": 15}
COEFFICIENTS = {**DEGREES, "extreme": 15}
"""Harmonics per channel above band 0, by the name of a cloud."""
CLOUDS = tuple(COEFFICIENTS)
NEEDLES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
"""Where the needles of ``needles`` stand and point to, in the training world."""


def cloud_named(name: str, count: int = 300) -> SplatCloud:
    """Return a cloud of random turns; ``extreme`` has needles, plates, dust and giants, nearly clear and opaque."""
    generator = torch.Generator().manual_seed(len(name) + COEFFICIENTS[name])

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    cloud = SplatCloud(
        means=draw(count, 3),
        log_scales=draw(count, 3) - 4.0,
        quats=normalized_quats(draw(count, 4)),
        opacity_logit=(2.0 * draw(count)).clamp(-4.0, 8.0),
        sh_dc=(0.8 * draw(count, 3)).clamp(-3.0, 3.0),
        sh_rest=(0.2 * draw(count, COEFFICIENTS[name], 3)).clamp(-0.5, 0.5),
    )
    if name != "extreme":
        return cloud
    log_scales = cloud.log_scales.clone()
    log_scales[:40] = torch.tensor([-9.5, -1.0, -9.5])
    log_scales[40:80] = torch.tensor([-1.0, -1.0, -9.8])
    log_scales[80:120], log_scales[120:130] = -9.9, 5.0
    opacity_logit = cloud.opacity_logit.clone()
    opacity_logit[::7], opacity_logit[1::7] = -5.0, 12.0
    return replace(cloud, log_scales=log_scales, opacity_logit=opacity_logit, means=cloud.means * 20.0)


def needles() -> SplatCloud:
    """Return a needle on each half axis, along it, white with the parts of its place taken away where it is positive.

    Colours are 0.9 along the axis (x red, y green, z blue) and 0.5 at a negative end, 0.1 else.
    """
    places = torch.tensor(NEEDLES, dtype=torch.float32)
    long = places.abs()
    colours = torch.where(places > 0, 0.9, torch.where(places < 0, 0.5, 0.1))
    # Every needle is long in its own x, which is turned onto its axis: about z by 90 degrees, about y by -90.
    half = 0.5**0.5
    turns = {0: (1.0, 0.0, 0.0, 0.0), 1: (half, 0.0, 0.0, half), 2: (half, 0.0, -half, 0.0)}
    return SplatCloud(
        means=0.8 * places,
        log_scales=torch.tensor([0.2, 0.01, 0.01]).log().expand(6, 3).clone(),
        quats=torch.tensor([turns[int(axis)] for axis in long.argmax(dim=1)]),
        opacity_logit=torch.full((6,), 4.0),
        sh_dc=(colours - 0.5) / 0.28209479177387814,
        sh_rest=torch.zeros(6, 0, 3),
    )


def nearest(cloud: SplatCloud, to: SplatCloud) -> SplatCloud:
    """Return the splats of ``cloud`` in the order of those of ``to`` that they are nearest to; each is used once."""
    rows = torch.cdist(to.means.double(), cloud.means.double()).argmin(dim=1)
    assert len(rows.unique()) == len(rows) == len(cloud)
    return SplatCloud(**{name: value[rows] for name, value in vars(cloud).items()})


def errors(found: SplatCloud, expected: SplatCloud) -> dict[str, float]:
    """Return the largest difference of each kind of value; of axes the angle in radians, of opacities shares."""
    between = rotation_matrices(found.quats).transpose(1, 2) @ rotation_matrices(expected.quats)
    # A splat turned by half a turn about an axis of its own is the same splat.
    cosine = between.diagonal(dim1=1, dim2=2).abs().amin(dim=1).clamp(max=1.0)
    rest = (found.sh_rest - expected.sh_rest).abs()
    return {
        "means": float((found.means - expected.means).abs().max()),
        "log_scales": float((found.log_scales - expected.log_scales).abs().max()),
        "turns": float(cosine.acos().max()),
        "opacity": float((found.opacity_logit.sigmoid() - expected.opacity_logit.sigmoid()).abs().max()),
        "sh_dc": float((found.sh_dc - expected.sh_dc).abs().max()),
        "sh_rest": float(rest.max()) if rest.numel() else 0.0,
    }
