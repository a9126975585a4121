"""The ring of tiles: its closed form against all members one by one, and the paper's order on it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tile_ring import ANYTHING, CONTRAST, PEAK, PROMPT, TileRing
from tile_world import ARMS, Recipe, Targets, optimise
from torch import Tensor

SMALL = {
    "single pixels": TileRing(tile_size=1, length=4, window=3, pixel_std=0.3),
    "a part of a tile": TileRing(tile_size=2, length=6, window=5, pixel_std=0.1),
    "shifts": TileRing(tile_size=2, length=6, window=4, view_error=1, pixel_std=0.2),
    "all turns": TileRing(tile_size=3, length=6, window=6, view_error=2, pixel_std=0.2),
    "one shade": TileRing(tile_size=6, length=6, window=3, pixel_std=0.2, offset=0.9),
}


def members(world: TileRing, weights: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """All rings [M, L] and their probabilities [M]."""
    choices = list(itertools.product(range(len(world.shades)), repeat=world.tiles))
    rings = torch.tensor([[world.shades[k] for k in choice] for choice in choices], dtype=torch.float64)
    odds = torch.tensor([math.prod(weights[k] for k in choice) for choice in choices], dtype=torch.float64)
    return rings.repeat_interleave(world.tile_size, dim=1), odds


def noise_by_enumeration(
    world: TileRing, window: Tensor, first_pixel: int, timestep: int, weights: tuple[float, ...]
) -> Tensor:
    """Minus sqrt(1 - a) times the gradient of log p_a, over every member and every shift."""
    level = world.schedule.alpha_cumprod(timestep)
    variance = level * world.pixel_std**2 + 1.0 - level
    rings, odds = members(world, weights)
    x = window.clone().requires_grad_()
    density = []
    for shift in range(-world.view_error, world.view_error + 1):
        places = [(first_pixel + shift + i) % world.length for i in range(world.window)]
        squared = (x - math.sqrt(level) * rings[:, places]).square().sum(dim=1)
        density.append(odds.log() - squared / (2.0 * variance))
    torch.logsumexp(torch.cat(density), dim=0).backward()
    assert x.grad is not None
    return -math.sqrt(1.0 - level) * x.grad


@pytest.mark.parametrize("world", SMALL.values(), ids=SMALL.keys())
@pytest.mark.parametrize("weights", [PROMPT, ANYTHING, (0.125, 0.375, 0.0, 0.25, 0.25, 0.0)])
@pytest.mark.parametrize("timestep", [-1, 50, 300, 900])
def test_the_denoiser_agrees_with_all_members_one_by_one(
    world: TileRing, weights: tuple[float, ...], timestep: int
) -> None:
    generator = torch.Generator().manual_seed(timestep + 1)
    noised = 0.7 * torch.randn(3, 1, 1, world.window, generator=generator, dtype=torch.float64)
    first_pixels = torch.tensor([0, 1, world.length - 1])
    found = world.predict_noise(noised, timestep, world.embed_windows(first_pixels, weights).double())
    for row, first_pixel in enumerate(first_pixels.tolist()):
        expected = noise_by_enumeration(world, noised[row, 0, 0], first_pixel, timestep, weights)
        torch.testing.assert_close(found[row, 0, 0], expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("world", SMALL.values(), ids=SMALL.keys())
def test_the_nearest_member_is_the_nearest_of_all(world: TileRing) -> None:
    rings = 0.6 * torch.randn(5, world.length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known, odds = members(world, PROMPT)
    turned = [torch.roll(known[odds > 0.0], k, dims=1) for k in range(-world.view_error, world.view_error + 1)]
    squared = (rings[:, None] - torch.cat(turned)).square().mean(dim=2).amin(dim=1)
    torch.testing.assert_close(world.squared_error(rings), squared, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(world.psnr(rings), 20.0 * math.log10(PEAK) - 10.0 * squared.log10())


def test_a_member_has_contrast_one() -> None:
    world = TileRing(tile_size=2, length=8, window=4)
    ring = CONTRAST * torch.tensor([[1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0, 1.0]])
    assert world.contrast(ring).item() == pytest.approx(1.0)
    assert world.squared_error(ring).item() == 0.0


def test_tiles_and_windows_must_fit_the_ring() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        TileRing(tile_size=5, length=96)
    with pytest.raises(ValueError, match="do not fit"):
        TileRing(tile_size=1, length=4, window=5)


@pytest.mark.parametrize("arm", ARMS)
def test_all_arms_get_the_same_calls(arm: str) -> None:
    result = optimise(TileRing(tile_size=3), ARMS[arm], Recipe(calls=100), rings=1)
    assert result.calls == pytest.approx(100, rel=0.05)


def test_kept_targets_are_the_last_ones_and_stay_with_their_pixels() -> None:
    def views(*numbers: int) -> Targets:
        pixels = torch.tensor(numbers).view(1, -1, 1)
        return Targets(pixels=pixels, values=0.5 * pixels)

    kept = views(1, 2).joined(views(3, 4), 10).joined(views(5, 6), 3)
    assert kept.pixels.flatten().tolist() == [4, 5, 6]
    drawn = kept.drawn(2, torch.Generator().manual_seed(0))
    assert len(set(drawn.pixels.flatten().tolist()) & {4, 5, 6}) == 2
    assert torch.equal(drawn.values, 0.5 * drawn.pixels)


def test_replay_adds_steps_and_no_calls() -> None:
    world, guidance = TileRing(tile_size=3), ARMS["SDI, order 2"]
    once, replayed = (optimise(world, guidance, Recipe(calls=40, steps_per_target=n), rings=2) for n in (1, 4))
    assert replayed.calls == once.calls
    assert replayed.contrast.mean() > 1.2 * once.contrast.mean()


@pytest.mark.parametrize("tile_size", [1, 2, 3])
def test_inversion_keeps_independent_tiles_apart_and_sds_averages_them(tile_size: int) -> None:
    """At least 10 dB, and the paper's order of gamma_inv; recorded differences 26, 23 and 29 dB."""
    world, recipe = TileRing(tile_size=tile_size), Recipe()
    names = ("SDI, order 2", "SDS, annealed", "order 2, γ_inv 0", "order 2, γ_inv +1")
    inverted, annealed, without, positive = (
        optimise(world, ARMS[name], recipe, rings=4).psnr.mean().item() for name in names
    )
    assert inverted >= annealed + 10.0
    assert inverted > without > positive
