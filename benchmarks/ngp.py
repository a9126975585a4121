"""CPU time of the hash-grid field's kernels compared with torch operations, and held-out quality of a fit.

    python benchmarks/ngp.py

Both sides render the same field with the same kind of samples, forward and backward, in turn; medians are compared. A
step is that of training: jittered samples, normals and all regularisers; "colour" omits normals and regularisers.
"start" is the field at its initial state with all levels in use, "fitted" the one at the end of the fit. CPU time is
that of the whole process, so the default is one thread. The last line is one JSON object.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import tyro
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.representations.ngp.backends import Backend
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.scene import ngp_losses
from sdi_gs.settings.ngp import NgpConfig, NgpLossConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.truth import held_out_cameras, render_truth
from sdi_gs.training.fitting import fit_to_images

IMAGE_SIZE = 128
NO_LOSSES = NgpLossConfig(
    orientation=0.0, sparsity=0.0, opaqueness=0.0, z_variance=0.0, convexity=0.0, convexity_final=0.0
)
BACKGROUNDS = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    repeats: int = 5
    """Timed turns of each case."""
    threads: int = 1
    """Threads for everything."""
    fit_steps: int = 300
    """Steps of the fit."""
    fit_views: int = 4
    """Pictures of 64 pixels per step."""
    object_class: str = "robot"
    """Object to fit, in blue."""


def fit(settings: Settings) -> tuple[Ngp, dict[str, Any]]:
    """Fit a field to random views of a toybox object and score it on the held-out ones."""
    item = canonical_object(settings.object_class, "blue")  # pyright: ignore[reportArgumentType]
    config = RunConfig(
        representation="ngp",
        steps=settings.fit_steps,
        views_per_step=settings.fit_views,
        backgrounds=("white", "gray", "black"),
        ngp=NgpConfig(losses=NO_LOSSES),
    )
    cpu, wall = time.process_time(), time.perf_counter()
    scene = fit_to_images(
        config,
        lambda cameras, background: render_scenes([(item,)] * len(cameras), cameras, background).rgb,
        image_size=64,
        device=torch.device("cpu"),
        final_rate=0.1,
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    ngp = scene.representation
    assert isinstance(ngp, Ngp)
    cameras = held_out_cameras(64)
    truth = render_truth([item], cameras)
    with torch.no_grad():
        shown = ngp.render(cameras, torch.ones(len(cameras), 3))
    return ngp, {
        "object": settings.object_class,
        "steps": settings.fit_steps,
        "psnr": round(metrics.psnr(shown.rgb.clamp(0.0, 1.0), truth.rgb).mean().item(), 2),
        "iou": round(metrics.silhouette_iou(shown.alpha, truth.alpha).mean().item(), 4),
        "cpu_s": round(cpu, 1),
        "wall_s": round(wall, 1),
    }


def with_losses(ngp: Ngp, losses: NgpLossConfig) -> Ngp:
    """Return the same field with other regularisers."""
    other = Ngp(replace(ngp.config, losses=losses), generator=torch.Generator(), device=ngp.device)
    other.load_state(ngp.state())
    return other


def start_field() -> Ngp:
    """Return the initial field with all levels."""
    ngp = Ngp(NgpConfig(), generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    ngp.finalize()
    return ngp


def seconds_of_a_step(ngp: Ngp, cameras: CameraBatch, backend: Backend) -> tuple[float, float, int]:
    """Return CPU seconds of forward, and of forward with backward, and the number of samples."""
    ngp.field.backend = backend
    generator = torch.Generator().manual_seed(1)
    begin = time.process_time()
    render = ngp.render_for_training(cameras, torch.ones(1, 3), progress=0.2, generator=generator)
    forward = time.process_time()
    loss: Tensor = (render.rgb - 0.3).square().mean()
    for term in ngp_losses(ngp.config.losses, render, cameras, 0.2).values():
        loss = loss + term
    loss.backward()
    end = time.process_time()
    for value in ngp.parameters().values():
        value.grad = None
    return forward - begin, end - begin, len(render.sample_weights)


def measure(name: str, ngp: Ngp, repeats: int) -> dict[str, Any]:
    """Return median CPU times of both sides, measured in turn, and their ratio."""

    def angle(degrees: float) -> Tensor:
        return torch.tensor([degrees])

    cameras = orbit_cameras(angle(30.0), angle(15.0), angle(3.3), angle(40.0), width=IMAGE_SIZE, height=IMAGE_SIZE)
    times: dict[Backend, list[tuple[float, float, int]]] = {"numba": [], "torch": []}
    for backend in times:
        seconds_of_a_step(ngp, cameras, backend)
    for _ in range(repeats):
        # The kernels are quick enough to be timed several times a turn.
        times["numba"] += [seconds_of_a_step(ngp, cameras, "numba") for _ in range(3)]
        times["torch"].append(seconds_of_a_step(ngp, cameras, "torch"))
    numba, reference = ([statistics.median(run[k] for run in times[b]) for k in range(3)] for b in ("numba", "torch"))
    return {
        "case": name,
        "samples": int(numba[2]),
        "numba_forward_s": round(numba[0], 4),
        "numba_s": round(numba[1], 4),
        "torch_forward_s": round(reference[0], 3),
        "torch_s": round(reference[1], 3),
        "ratio": round(reference[1] / numba[1], 1),
    }


def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    fitted, fit_row = fit(settings)
    print(f"fit: {fit_row['psnr']} dB on held-out views, IoU {fit_row['iou']}, {fit_row['cpu_s']} s CPU\n")
    cases = {
        "start, step": start_field(),
        "start, colour": with_losses(start_field(), NO_LOSSES),
        "fitted, step": with_losses(fitted, NgpLossConfig()),
        "fitted, colour": fitted,
    }
    print(f"{'case':>16} | samples | {'numba fwd':>9} {'f+b':>7} | {'torch fwd':>9} {'f+b':>7} | ratio")
    rows = []
    for name, ngp in cases.items():
        row = measure(name, ngp, settings.repeats)
        rows.append(row)
        print(
            f"{name:>16} | {row['samples']:7d} | {row['numba_forward_s']:8.3f}s {row['numba_s']:6.3f}s | "
            f"{row['torch_forward_s']:8.2f}s {row['torch_s']:6.2f}s | {row['ratio']:4.1f}x"
        )
    summary = {
        "benchmark": "ngp",
        "cpu": platform.processor() or platform.machine(),
        "threads": settings.threads,
        "torch": torch.__version__,
        "image_size": IMAGE_SIZE,
        "samples_per_ray": NgpConfig().samples_per_ray,
        "slowest_step_s": max(row["numba_s"] for row in rows),
        "smallest_ratio": min(row["ratio"] for row in rows),
        "timings": rows,
        "fit": fit_row,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
