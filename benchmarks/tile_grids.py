"""Which inversion pays: results of runs on the ring of tiles beside the error of kappa, by order, grid and data_std.

``python benchmarks/tile_grids.py`` prints Markdown tables and one JSON object last; about two minutes on one core. The
error of kappa is the mean square against 500 first-order steps at t = 400, for windows of members and for windows of
half a member's contrast, as they are in the middle of a run.

Letters: B windows, W pixels of each.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from typing import Any

import torch
from tile_ring import ANYTHING, CONTRAST, PROMPT, RING, TileRing
from tile_world import BASE, Recipe, optimise
from torch import Tensor

from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.noise_sources.inversion import Inversion
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig

WORLDS = {f"{size} px": TileRing(tile_size=size) for size in (1, 2, 3, 6)} | {"one shade": TileRing(tile_size=RING)}
OFFSETS, PIXEL_STDS = (0.3, 0.6, 0.8, 1.2), (0.05, 0.1, 0.15, 0.3)
WIDTHS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
TIMESTEP, STEPS_OF_REFERENCE = 400, 500
QUIET = replace(BASE, inversion_eta=0.0)


def inversions() -> dict[str, GuidanceConfig]:
    """Return the compared settings by name."""
    even = replace(QUIET, inversion_spacing="sigma")
    return {
        "order 1, timesteps": QUIET,
        "order 1, timesteps, 10 steps": replace(QUIET, inversion_steps=10),
        **{f"order 1, sigma / {width:g}": replace(even, inversion_data_std=width) for width in WIDTHS},
        **{
            f"order 2, sigma / {width:g}": replace(even, inversion_order=2, inversion_data_std=width)
            for width in WIDTHS
        },
    }


def chosen_arms() -> dict[str, GuidanceConfig]:
    """Return the settings that are compared in other worlds."""
    names = ("order 1, timesteps", "order 1, sigma / 0.5", "order 2, sigma / 0.05", "order 2, sigma / 0.5")
    return {"SDS, annealed": replace(BASE, noise="random"), **{name: inversions()[name] for name in names}}


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of random members at some contrast."""

    world: TileRing
    latents: Tensor  # [B, 1, 1, W]
    first_pixels: Tensor  # [B]

    def kappa(self, guidance: GuidanceConfig) -> Tensor:
        """Return the inverted noise [B, 1, 1, W]."""
        conditions = Conditions(
            prompt_embeddings=self.world.embed_windows(self.first_pixels, PROMPT),
            negative_embeddings=self.world.embed_windows(self.first_pixels, ANYTHING),
        )
        request = NoiseRequest(
            config=guidance,
            plan=StepPlan(timestep=TIMESTEP),
            schedule=self.world.schedule,
            latents=self.latents,
            predict=GuidedPredictor(self.world, conditions),
            generator=torch.Generator(),
        )
        return Inversion().infer(request)

    def error(self, guidance: GuidanceConfig) -> float:
        """Return the mean squared error of kappa against many first-order steps."""
        reference = self.kappa(replace(QUIET, inversion_steps=STEPS_OF_REFERENCE))
        return (self.kappa(guidance) - reference).square().mean().item()


def windows_of_members(world: TileRing, contrast: float, count: int = 64) -> Windows:
    """Draw windows of members whose contrast is a share of the full one, with the data's noise."""
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(2, (count, world.tiles), generator=generator) - 1.0
    rings = contrast * CONTRAST * signs.repeat_interleave(world.tile_size, dim=1)
    rings = rings + world.pixel_std * torch.randn(rings.shape, generator=generator)
    first_pixels = torch.randint(world.length, (count,), generator=generator)
    latents = rings.gather(1, world.pixels(first_pixels))
    return Windows(world=world, latents=latents[:, None, None], first_pixels=first_pixels)


def result(world: TileRing, guidance: GuidanceConfig, seed: int) -> dict[str, float]:
    """Return a run's PSNR and contrast."""
    end = optimise(world, guidance, Recipe(), seed=seed)
    return {"psnr": round(end.psnr.mean().item(), 2), "contrast": round(end.contrast.mean().item(), 3)}


def cell(found: dict[str, float]) -> str:
    """Return a run's cell of a table."""
    return f"{found['psnr']:.1f} / {found['contrast']:.2f}"


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def main() -> None:
    """Print the tables and their numbers as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    probed = {share: windows_of_members(WORLDS["3 px"], share) for share in (1.0, 0.5)}
    as_json: dict[str, Any] = {"by_inversion": {}, "by_offset": {}, "by_pixel_std": {}}
    rows = []
    for name, guidance in inversions().items():
        errors = [windows.error(guidance) for windows in probed.values()]
        results = {world_name: result(world, guidance, options.seed) for world_name, world in WORLDS.items()}
        as_json["by_inversion"][name] = {"kappa_error": [float(f"{error:.4g}") for error in errors], **results}
        rows.append([name, *(f"{error:.3g}" for error in errors), *map(cell, results.values())])
    print_table(["inversion", "error of κ, members", "half-way", *WORLDS], rows)
    variants = {
        "offset": [replace(WORLDS["3 px"], offset=offset) for offset in OFFSETS],
        "pixel_std": [replace(WORLDS["3 px"], pixel_std=pixel_std) for pixel_std in PIXEL_STDS],
    }
    for field, worlds in variants.items():
        values, rows = [f"{getattr(world, field):g}" for world in worlds], []
        for name, guidance in chosen_arms().items():
            results = [result(world, guidance, options.seed) for world in worlds]
            as_json[f"by_{field}"][name] = dict(zip(values, results, strict=True))
            rows.append([name, *map(cell, results)])
        print_table([f"3 px, {field}", *values], rows)
    print(json.dumps(as_json))


if __name__ == "__main__":
    main()
