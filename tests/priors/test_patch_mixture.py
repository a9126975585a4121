"""The mixture over patches against an enumeration of all its members, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.priors.patch_mixture import TWO_SHADES, PatchMixture, components_of, join, patch_noise
from sdi_gs.toybox.patches import PatchRender

HEIGHT, WIDTH, CELLS = 4, 5, 4
BACKGROUNDS = np.array([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.1, 0.2, 0.9]])


@pytest.fixture
def renders() -> PatchRender:
    """Three images of four cells, with covered, half covered and empty pixels; the last shows two cells only."""
    generator = torch.Generator().manual_seed(3)
    cells = torch.randint(-1, CELLS, (3, HEIGHT, WIDTH), generator=generator)
    cells[2] = torch.where(cells[2] > 1, -1, cells[2])
    alpha = torch.rand(3, HEIGHT, WIDTH, 1, generator=generator, dtype=torch.float64)
    alpha = torch.where(cells[..., None] < 0, torch.zeros(()).double(), alpha.clamp_min(0.05))
    foreground = alpha * torch.rand(3, HEIGHT, WIDTH, 3, generator=generator, dtype=torch.float64)
    contrast = 0.6 * foreground * torch.rand(3, HEIGHT, WIDTH, 1, generator=generator, dtype=torch.float64)
    return PatchRender(foreground=foreground, contrast=contrast, alpha=alpha, cells=cells)


def image_of(renders: PatchRender, image: slice) -> PatchRender:
    return PatchRender(**{name: tensor[image] for name, tensor in vars(renders).items()})


def enumerated_noise(
    noised: Tensor,  # [3, H, W]
    renders: PatchRender,
    weights: np.ndarray,
    level: float,
    std: float,
    shades: tuple[float, ...] = TWO_SHADES,
) -> Tensor:
    """Return the noise of the plain Gaussian mixture with one centre per image and assignment of shades."""
    centres, logs = [], []
    everywhere = torch.ones(CELLS, dtype=torch.bool)
    light, dark = (renders.shaded(lit, torch.from_numpy(BACKGROUNDS)) for lit in (everywhere, ~everywhere))
    for assigned in itertools.product(shades, repeat=CELLS):
        share = 0.5 * (1.0 + torch.tensor(assigned, dtype=torch.float64))[renders.cells.clamp_min(0)][..., None]
        images = share * light + (1.0 - share) * dark
        for image, weight in zip(images, weights, strict=True):
            centres.append(2.0 * image.permute(2, 0, 1) - 1.0)
            logs.append(math.log(weight / len(shades) ** CELLS))
    stacked = torch.stack(centres)
    variance = level * std**2 + 1.0 - level
    distance = (noised - math.sqrt(level) * stacked).square().sum(dim=(1, 2, 3))
    share = torch.softmax(torch.tensor(logs, dtype=torch.float64) - distance / (2.0 * variance), dim=0)
    mean = (share[:, None, None, None] * stacked).sum(dim=0)
    return math.sqrt(1.0 - level) / variance * (noised - math.sqrt(level) * mean)


def mixture_of(renders: PatchRender) -> PatchMixture:
    return components_of(renders).over(BACKGROUNDS)


@pytest.mark.parametrize("level", [0.02, 0.5, 0.9, 0.9995])
@pytest.mark.parametrize("std", [0.05, 0.3])
@pytest.mark.parametrize("shades", [TWO_SHADES, (-1.0, 0.0, 1.0), (0.25,)])
def test_the_noise_is_that_of_all_members_enumerated(
    renders: PatchRender, level: float, std: float, shades: tuple[float, ...]
) -> None:
    generator = torch.Generator().manual_seed(5)
    clean = 2.0 * renders.shaded(torch.tensor([True, False, False, True]), torch.from_numpy(BACKGROUNDS))[1] - 1.0
    noise = torch.randn(3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    noised = math.sqrt(level) * clean.permute(2, 0, 1) + math.sqrt(1.0 - level) * noise
    expected = enumerated_noise(noised, renders, np.full(3, 1.0 / 3.0), level, std, shades)
    found = patch_noise(noised, mixture_of(renders), level, std, shades)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_joined_mixtures_weigh_their_parts(renders: PatchRender) -> None:
    first, rest = image_of(renders, slice(0, 1)), image_of(renders, slice(1, 3))
    parts = [components_of(first).over(BACKGROUNDS[:1]), components_of(rest).over(BACKGROUNDS[1:])]
    noised = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    expected = enumerated_noise(noised, renders, np.array([0.8, 0.1, 0.1]), 0.3, 0.2)
    torch.testing.assert_close(patch_noise(noised, join(parts, [0.8, 0.2]), 0.3, 0.2), expected, rtol=1e-9, atol=1e-9)


def test_every_covered_pixel_belongs_to_one_patch(renders: PatchRender) -> None:
    components = components_of(renders)
    for image, cells in enumerate(renders.cells):
        patches = range(components.component_first[image], components.component_first[image + 1])
        found = [components.pixels[components.patch_first[p] : components.patch_first[p + 1]] for p in patches]
        assert sorted(np.concatenate(found)) == torch.nonzero(cells.flatten() >= 0)[:, 0].tolist()
        assert all(len(cells.flatten()[torch.from_numpy(patch).long()].unique()) == 1 for patch in found)
        assert len(found) == len(cells[cells >= 0].unique())
