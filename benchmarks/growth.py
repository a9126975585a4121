"""How a step's time and memory grow with Gaussians, pixels, views and steps.

    python benchmarks/growth.py

Each row is a process of its own: a step without a prior (render, loss, backward, optimisers) of Gaussians in a ball, on
one thread. Rows of one table take turns, and the fastest of the turns is shown. ``exponent`` is the growth from one row
to the next, log of the times' ratio over log of the sizes': above 1.1 a row is superlinear. The last line is one JSON
object.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from sdi_gs.cameras import orbit_cameras
from sdi_gs.rasterize import rasterization
from sdi_gs.rasterize.scenes import ball_scene
from sdi_gs.representations.adam import RunAdam

SUPERLINEAR = 1.1
BASE = {"gaussians": 10_000, "side": 128, "views": 4, "steps": 1}
TABLES: dict[str, tuple[int, ...]] = {
    "gaussians": (1_000, 10_000, 100_000, 500_000),
    "side": (64, 128, 256, 512),
    "views": (1, 2, 4, 8, 16),
    "steps": (1, 4, 16),
}
"""What grows, and its values; the others stay at ``BASE``. A picture has side^2 pixels."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    turns: int = 2
    """Processes of each row."""
    row: tuple[int, int, int, int] | None = None
    """Measure this row alone: gaussians, side, views, steps."""


def measured(gaussians: int, side: int, views: int, steps: int) -> dict[str, float]:
    """Return the fastest time of ``steps`` steps, and the memory that they added at most."""
    torch.set_num_threads(1)
    scene = ball_scene(gaussians, scales=(0.3 * gaussians ** (-1 / 3), 0.6 * gaussians ** (-1 / 3)))
    leaves = scene.leaves()
    angles = torch.arange(views) * 360.0 / views
    ones = torch.ones(views)
    cameras = orbit_cameras(angles, 15.0 * ones, 3.3 * ones, 40.0 * ones, width=side, height=side)
    optimiser, target = RunAdam(list(leaves.values()), lr=1e-4), torch.rand(views, side, side, 3)

    def render(gaussians: dict[str, Tensor], viewmats: Tensor, intrinsics: Tensor) -> Tensor:
        shown, _, _ = rasterization(
            means=gaussians["means"],
            quats=gaussians["quats"],
            scales=gaussians["scales"],
            opacities=gaussians["opacities"],
            colors=gaussians["colors"],
            viewmats=viewmats,
            Ks=intrinsics,
            width=side,
            height=side,
            packed=False,
        )
        return shown

    def step() -> None:
        shown = render(leaves, cameras.camera_from_world, cameras.intrinsics)
        (shown - target).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    small = ball_scene(100)
    # The kernels' machine code is not a step's memory.
    render(small.leaves(), small.viewmats, small.Ks).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(3):
        begin = time.process_time()
        for _ in range(steps):
            step()
        times.append(time.process_time() - begin)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(times), "added_mib": (after - before) / 2**10}


def rows_of(name: str, turns: int) -> list[dict[str, float]]:
    """Return a table's rows."""
    found: dict[int, list[dict[str, float]]] = {value: [] for value in TABLES[name]}
    for _ in range(turns):
        for value, results in found.items():
            row = [str(number) for number in (BASE | {name: value}).values()]
            command = [sys.executable, __file__, "--row", *row]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(printed.splitlines()[-1]))
    rows: list[dict[str, float]] = []
    for value, results in found.items():
        row = {"value": value} | {key: min(result[key] for result in results) for key in results[0]}
        if rows:
            size = value / rows[-1]["value"]
            row["exponent"] = math.log(row["seconds"] / rows[-1]["seconds"]) / math.log(
                size**2 if name == "side" else size
            )
        rows.append(row)
    return rows


def main(settings: Settings) -> None:
    """Measure and print."""
    if settings.row is not None:
        print(json.dumps(measured(*settings.row)))
        return
    tables = {}
    for name in TABLES:
        tables[name] = rows_of(name, settings.turns)
        for row in tables[name]:
            growth = f", exponent {row['exponent']:.2f}" if "exponent" in row else ""
            print(
                f"{name:>9} {row['value']:7d}: {1e3 * row['seconds']:8.1f} ms, {row['added_mib']:6.0f} MiB{growth}",
                flush=True,
            )
    worst = max(row["exponent"] for rows in tables.values() for row in rows[1:])
    print(
        json.dumps({"benchmark": "growth", "worst_exponent": worst, "bar": SUPERLINEAR, "base": BASE, "tables": tables})
    )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
