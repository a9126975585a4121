"""A field's step in a real run, over the same field's step with a grid that was made for it a moment ago.

    python benchmarks/field_step.py [--first 64] [--last 112]

A run of the preset's field is trained. From step ``first`` on, every eighth step's render and backward pass are timed
twice in turn, with the run's occupancy grid and with one that was refreshed from the field as it is; nothing of that
changes the run. Times are those of the process, and the ratio is of their medians. The last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

import sdi_gs
from sdi_gs.cameras import CameraBatch, sample_cameras
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.occupancy import OccupancyGrid

EVERY = 8
LARGEST_RATIO = 1.25


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    prompt: str = "a blue robot"
    first: int = 64
    """First step that is timed."""
    last: int = 112
    """Last step that is timed; the schedules are those of the preset's whole run."""
    repeats: int = 3
    """Turns of each of the two at a timed step."""


def seconds(ngp: Ngp, alphas: Tensor, cameras: CameraBatch, progress: float) -> float:
    """Return the process' time of a render and its backward pass with a grid of these opacities."""
    own, ngp.occupancy.alphas = ngp.occupancy.alphas, alphas
    begin = time.process_time()
    render = ngp.render_for_training(
        cameras, torch.ones(len(cameras), 3), progress=progress, generator=torch.Generator().manual_seed(0)
    )
    render.rgb.square().mean().backward()
    end = time.process_time()
    ngp.occupancy.alphas = own
    for value in ngp.parameters().values():
        value.grad = None
    return end - begin


def main(settings: Settings) -> None:
    """Train, time and print."""
    torch.set_num_threads(1)
    config = sdi_gs.preset("toybox-ideal", representation="ngp", prompt=settings.prompt)
    trainer = sdi_gs.Trainer(config, sdi_gs.load_prior(config))
    ngp, rows = trainer.scene.representation, []
    assert isinstance(ngp, Ngp)
    while trainer.step <= settings.last:
        trainer.train_step()
        if trainer.step < settings.first or trainer.step % EVERY:
            continue
        fresh = OccupancyGrid(ngp.config, device=ngp.device)
        fresh.refresh(ngp.density_of)
        generator = torch.Generator().manual_seed(trainer.step)
        cameras = sample_cameras(config.cameras, config.views_per_step, width=64, height=64, generator=generator)
        progress, times = trainer.step / config.steps, ([], [])
        for _ in range(settings.repeats):
            for measured, grid in zip(times, (ngp.occupancy, fresh), strict=True):
                measured.append(seconds(ngp, grid.alphas, cameras, progress))
        run, made = map(statistics.median, times)
        shares = [round(grid.occupied().double().mean().item(), 3) for grid in (ngp.occupancy, fresh)]
        rows.append({"step": trainer.step, "run_s": run, "fresh_s": made, "occupied": shares})
        print(
            f"step {trainer.step}: {run:.3f} s, fresh {made:.3f} s, ratio {run / made:.2f}, occupied {shares}",
            flush=True,
        )
    ratio = statistics.median(row["run_s"] for row in rows) / statistics.median(row["fresh_s"] for row in rows)
    worst = max(row["run_s"] / row["fresh_s"] for row in rows)
    print(json.dumps({"benchmark": "field_step", "ratio": ratio, "worst": worst, "bar": LARGEST_RATIO, "rows": rows}))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
