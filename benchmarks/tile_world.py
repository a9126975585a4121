"""The paper's claim in a world where it can be seen in seconds: score distillation of a ring of independent tiles.

``python benchmarks/tile_world.py [FIGURE.png]`` optimises rings of ``tile_ring`` with the product's own guidance,
windows as views, under an exact denoiser, at equal predictor calls for every arm. It prints the PSNR to the nearest
member and the contrast (a member has 1) with and without target replay, and one JSON object last; about two
minutes on one core. FIGURE.png shows a ring of each arm (docs/reports/tile-world.md). An instrument, not a model of
images.

Letters: B windows, R rings, V windows of each, L pixels of the ring, W of a window.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tile_ring import ANYTHING, CONTRAST, PROMPT, RING, TileRing
from torch import Tensor

from sdi_gs.evaluation.plots import new_figure, save_figure
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.score_distillation import distill, predictor_calls
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.settings.guidance import GuidanceConfig

RINGS = 8
"""Rings that are optimised at once, each with a start, views and noise of its own."""

BASE = GuidanceConfig(guidance_scale=1.0, inversion_steps=5, t_min=0.1, random_fraction=0.4)
"""The guidance of the toybox presets."""
SQRT_TO_002: dict[str, Any] = {"annealing": "sqrt", "t_min": 0.02}
"""A schedule that stays longer at low t and ends lower."""
SIGMA_GRID = replace(BASE, inversion_spacing="sigma", inversion_data_std=0.5, inversion_eta=0.0)
SECOND_ORDER = replace(BASE, inversion_order=2, inversion_data_std=0.5, inversion_eta=0.0)
ARMS = {
    "SDS, uniform t": replace(BASE, noise="random", annealing="uniform"),
    "SDS, annealed": replace(BASE, noise="random"),
    "SDS, sqrt to 0.02": replace(BASE, noise="random", **SQRT_TO_002),
    "SDI, published grid": BASE,
    "SDI, sigma grid": SIGMA_GRID,
    "SDI, sigma grid, sqrt to 0.02": replace(SIGMA_GRID, **SQRT_TO_002),
    "SDI, order 2": SECOND_ORDER,
    "order 2, γ_inv 0": replace(SECOND_ORDER, inversion_guidance_scale=0.0),
    "order 2, γ_inv +1": replace(SECOND_ORDER, inversion_guidance_scale=1.0),
}
WORLDS = {
    "1 px": TileRing(tile_size=1),
    "2 px": TileRing(tile_size=2),
    "3 px": TileRing(tile_size=3),
    "6 px": TileRing(tile_size=6),
    "6 px, view ±1": TileRing(tile_size=6, view_error=1),
    "6 px, view ±3": TileRing(tile_size=6, view_error=3),
    "one shade": TileRing(tile_size=RING),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What surrounds the guidance in a run."""

    calls: int = 320
    """Predictor calls of a run, within some percent."""
    windows: int = 4
    """Views of a round."""
    steps_per_target: int = 1
    """Optimiser steps of a round: the first on its own views, the others on kept ones."""
    kept_views: int = 40
    """Views of the last rounds whose targets are kept."""
    learning_rate: float = 0.03
    """Adam's, in latent units."""


RECIPES = {"without replay": Recipe(), "with replay": Recipe(steps_per_target=4)}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Windows and the values that they are to take."""

    pixels: Tensor  # [R, V, W] of the ring
    values: Tensor  # [R, V, W]

    def joined(self, newer: Targets, most: int) -> Targets:
        """Return the last ``most`` windows of both."""
        return Targets(
            pixels=torch.cat([self.pixels, newer.pixels], dim=1)[:, -most:],
            values=torch.cat([self.values, newer.values], dim=1)[:, -most:],
        )

    def drawn(self, count: int, generator: torch.Generator) -> Targets:
        """Return ``count`` windows, drawn without replacement and alike for all rings."""
        chosen = torch.randperm(self.pixels.shape[1], generator=generator)[:count]
        return Targets(pixels=self.pixels[:, chosen], values=self.values[:, chosen])


@dataclass(frozen=True, kw_only=True)
class Result:
    """The end of a run."""

    rings: Tensor  # [R, L]
    psnr: Tensor  # [R] dB
    contrast: Tensor  # [R]
    rounds: int
    calls: int


def rounds_for(calls: int, guidance: GuidanceConfig) -> int:
    """Return the number of rounds that make about so many predictor calls, from the mean of a run of 100."""
    generator, schedule = torch.Generator().manual_seed(0), TileRing.schedule
    plans = [
        plan_step(guidance, number, 100, num_timesteps=schedule.num_timesteps, generator=generator)
        for number in range(100)
    ]
    return round(calls * 100 / sum(predictor_calls(guidance, plan, schedule) for plan in plans))


def draw_windows(world: TileRing, rings: int, windows: int, generator: torch.Generator) -> Tensor:
    """Return first pixels [R, V]: one window in each stratum of the ring, anywhere in it."""
    stratum = world.length // windows
    start = torch.randint(stratum, (rings, 1), generator=generator)
    within = torch.randint(stratum, (rings, windows), generator=generator)
    return (start + torch.arange(windows) * stratum + within) % world.length


def windows_of(
    rings: Tensor,  # [R, L]
    pixels: Tensor,  # [R, V, W]
) -> Tensor:
    """Return the rings' values at pixels [R, V, W], differentiably."""
    return rings.gather(1, pixels.flatten(1)).view(pixels.shape)


def optimise(world: TileRing, guidance: GuidanceConfig, recipe: Recipe, *, rings: int = RINGS, seed: int = 0) -> Result:
    """Optimise independent rings; they share the timesteps."""
    generator = torch.Generator().manual_seed(seed)
    ring = (0.02 * torch.randn(rings, world.length, generator=generator)).requires_grad_()
    optimiser = torch.optim.Adam([ring], lr=recipe.learning_rate, betas=(0.9, 0.99))
    rounds, calls, kept = rounds_for(recipe.calls, guidance), 0, None
    for number in range(rounds):
        plan = plan_step(guidance, number, rounds, num_timesteps=world.schedule.num_timesteps, generator=generator)
        first_pixels = draw_windows(world, rings, recipe.windows, generator)
        pixels = world.pixels(first_pixels)
        output = distill(
            guidance,
            world,
            windows_of(ring.detach(), pixels).view(-1, 1, 1, world.window),
            Conditions(
                prompt_embeddings=world.embed_windows(first_pixels.flatten(), PROMPT),
                negative_embeddings=world.embed_windows(first_pixels.flatten(), ANYTHING),
            ),
            plan=plan,
            generator=generator,
        )
        calls += output.predictor_calls
        targets = Targets(pixels=pixels, values=output.target.view(pixels.shape))
        kept = targets if kept is None else kept.joined(targets, recipe.kept_views)
        for step in range(recipe.steps_per_target):
            aims = targets if step == 0 else kept.drawn(recipe.windows, generator)
            _step(optimiser, ring, aims)
    final = ring.detach()
    return Result(rings=final, psnr=world.psnr(final), contrast=world.contrast(final), rounds=rounds, calls=calls)


def _step(optimiser: torch.optim.Optimizer, ring: Tensor, aims: Targets) -> None:
    """Move the rings towards targets; Adam does not see that the loss sums over rings."""
    optimiser.zero_grad()
    (0.5 * (windows_of(ring, aims.pixels) - aims.values).square()).mean(dim=(1, 2)).sum().backward()
    optimiser.step()


def table(results: dict[tuple[str, str], Result], worlds: Sequence[str], arms: Sequence[str]) -> str:
    """Return a Markdown table of PSNR and contrast, arm by world."""
    rows = [["", *worlds], ["---"] * (1 + len(worlds))]
    for arm in arms:
        cells = [results[world, arm] for world in worlds]
        rows.append([arm, *(f"{cell.psnr.mean():.1f} / {cell.contrast.mean():.2f}" for cell in cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell_as_json(result: Result) -> dict[str, Any]:
    """Return a cell's numbers."""
    return {
        "psnr": round(result.psnr.mean().item(), 2),
        "psnr_std": round(result.psnr.std().item(), 2),
        "psnr_lowest": round(result.psnr.min().item(), 2),
        "contrast": round(result.contrast.mean().item(), 3),
        "rounds": result.rounds,
        "calls": result.calls,
    }


def draw_rings(results: dict[tuple[str, str], Result], path: Path) -> None:
    """Draw the first ring of every cell as a strip, world by world."""
    worlds = list(dict.fromkeys(world for world, _ in results))
    arms = list(dict.fromkeys(arm for _, arm in results))
    figure = new_figure(12.0, 0.32 * len(arms) * len(worlds) / 2 + 1.0)
    panels = figure.subplots((len(worlds) + 1) // 2, 2, squeeze=False).flatten()
    for panel in panels:
        panel.axis("off")
    for panel, world in zip(panels, worlds, strict=False):
        strips = torch.stack([results[world, arm].rings[0] for arm in arms])
        panel.axis("on")
        panel.imshow(strips, aspect="auto", cmap="gray", vmin=-1.5 * CONTRAST, vmax=1.5 * CONTRAST)
        panel.set_xticks([])
        panel.set_yticks(range(len(arms)), arms, fontsize=8)
        panel.set_title(world, fontsize=9)
    save_figure(figure, path)


def main() -> None:
    """Print two tables and their numbers as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figure", nargs="?", type=Path, help="PNG file of one ring of every arm, without replay")
    parser.add_argument("--rings", type=int, default=RINGS, help="independent repetitions")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    as_json: dict[str, Any] = {}
    for number, (title, recipe) in enumerate(RECIPES.items()):
        results = {
            (world_name, arm): optimise(world, guidance, recipe, rings=options.rings, seed=options.seed)
            for world_name, world in WORLDS.items()
            for arm, guidance in ARMS.items()
        }
        print(f"{title}: PSNR to the nearest member in dB / contrast\n\n{table(results, list(WORLDS), list(ARMS))}\n")
        as_json[title] = {world: {arm: cell_as_json(results[world, arm]) for arm in ARMS} for world in WORLDS}
        if number == 0 and options.figure is not None:
            draw_rings(results, options.figure)
    settings = {"rings": options.rings, "seed": options.seed}
    recipes = {title: asdict(recipe) for title, recipe in RECIPES.items()}
    print(json.dumps({**settings, "recipes": recipes, "results": as_json}, ensure_ascii=False))


if __name__ == "__main__":
    main()
