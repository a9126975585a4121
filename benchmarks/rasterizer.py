"""The numba rasteriser: CPU time compared with torch operations, error against float64, threads, compile time.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/rasterizer.py

Both sides render the same Gaussians forward and backward on one thread, in turn; medians are compared. The torch side
is ``sdi_gs.rasterize.torch_reference``: gsplat's torch projection, and dense compositing per 16x16 tile with autograd.
Its largest scenes take a quarter of a minute and several GB, hence few turns. Times are CPU time of the process, which
other programs change least; two threads are compared with one by wall time, which needs a quiet machine. The last line
of the output is one JSON object.

Letters: N Gaussians, C cameras, S pixels along a side.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
import tyro
from torch import Tensor

from sdi_gs.rasterize import rasterization, torch_reference


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    repeats: int = 5
    """Timed turns per scene; scenes of 100 000 Gaussians have 2 at most."""
    max_gaussians: int = 100_000
    """Largest number of Gaussians."""
    thread_repeats: int = 30
    """Timed turns of two threads against one; 0 skips them."""
    compile: bool = True
    """Whether to time the compilation of the kernels into an empty cache."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Gaussians around the origin, three units from the cameras."""

    leaves: dict[str, Any]
    """means, quats, scales, opacities and colors, trainable."""
    viewmats: Tensor  # [C, 4, 4]
    Ks: Tensor  # [C, 3, 3]
    size: int
    """Pixels along a side."""


Kind = Literal["ball", "torus"]
# N, C, S. First a step of the main job and a trained object, then the grid.
CELLS: tuple[tuple[Kind, int, int, int], ...] = (
    ("ball", 6_000, 4, 64),
    ("torus", 50_000, 1, 256),
    *(("ball", count, 1, size) for count in (5_000, 20_000, 100_000) for size in (128, 256, 512)),
)
HEADLINE = ("ball", 20_000, 1, 256)
THREADS_CELL = ("ball", 20_000, 1, 512)

# Name: N, S, scales, opacities, antialiased.
ACCURACY_CASES = {
    "ordinary": (500, 64, (0.01, 0.03), (0.35, 0.65), False),
    "early stop": (400, 48, (0.05, 0.3), (0.001, 0.999), False),
    "alpha cut": (200, 48, (0.05, 0.2), (0.9999, 0.9999), False),
    "sub-pixel": (2000, 40, (0.0005, 0.002), (0.35, 0.65), False),
    "needles": (400, 48, (0.0005, 0.4), (0.35, 0.65), False),
    "antialiased": (500, 48, (0.003, 0.02), (0.35, 0.65), True),
}


def uniform(generator: torch.Generator, shape: tuple[int, ...], bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=generator)


def make_ball(
    num_gaussians: int, num_cameras: int, size: int, scales: tuple[float, float], opacities: tuple[float, float]
) -> Scene:
    """Return random Gaussians in a ball of radius 1."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(num_gaussians, 3, generator=generator), dim=-1)
    leaves = {
        "means": directions * uniform(generator, (num_gaussians, 1), (0.0, 1.0)) ** (1 / 3),
        "quats": torch.randn(num_gaussians, 4, generator=generator),
        "scales": uniform(generator, (num_gaussians, 3), scales),
        "opacities": uniform(generator, (num_gaussians,), opacities),
        "colors": uniform(generator, (num_gaussians, 3), (0.0, 1.0)),
    }
    return with_cameras(leaves, num_cameras, size)


def make_torus(num_gaussians: int, num_cameras: int, size: int) -> Scene:
    """Return flat Gaussians on a tilted torus, dense and opaque enough to hide its far side, like a trained object."""
    generator = torch.Generator().manual_seed(0)
    major, minor = 0.65, 0.3
    around = uniform(generator, (num_gaussians,), (0.0, 2 * math.pi))
    # The share of the area at an angle of the tube grows with the distance from the axis.
    angles = torch.linspace(0.0, 2 * math.pi, 4097)
    share = (major * angles + minor * angles.sin()) / (2 * math.pi * major)
    tube = angles[torch.searchsorted(share, torch.rand(num_gaussians, generator=generator)).clamp_max(4096)]
    normals = torch.stack([tube.cos() * around.cos(), tube.cos() * around.sin(), tube.sin()], dim=-1)
    rings = torch.stack([around.cos(), around.sin(), torch.zeros(num_gaussians)], dim=-1)
    tilt = math.radians(50.0)
    turn = torch.tensor(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]], dtype=torch.float32
    )
    normals, means = normals @ turn.T, (major * rings + minor * normals) @ turn.T
    # The shortest rotation from z to the normal.
    to_normal = torch.stack([1.0 + normals[:, 2], -normals[:, 1], normals[:, 0], torch.zeros(num_gaussians)], dim=-1)
    spacing = math.sqrt(4 * math.pi**2 * major * minor / num_gaussians)
    leaves = {
        "means": means,
        "quats": torch.nn.functional.normalize(to_normal, dim=-1),
        "scales": spacing * uniform(generator, (num_gaussians, 3), (0.5, 1.2)) * torch.tensor([1.0, 1.0, 0.1]),
        "opacities": uniform(generator, (num_gaussians,), (0.5, 0.99)),
        "colors": uniform(generator, (num_gaussians, 3), (0.0, 1.0)),
    }
    return with_cameras(leaves, num_cameras, size)


def with_cameras(leaves: dict[str, Tensor], num_cameras: int, size: int) -> Scene:
    """Return cameras on a circle around the origin."""
    viewmats = torch.eye(4).repeat(num_cameras, 1, 1)
    for camera in range(num_cameras):
        angle = 2 * math.pi * camera / num_cameras
        viewmats[camera, 0, 0] = viewmats[camera, 2, 2] = math.cos(angle)
        viewmats[camera, 0, 2], viewmats[camera, 2, 0] = math.sin(angle), -math.sin(angle)
    viewmats[:, 2, 3] = 3.0
    focal = 0.5 * size / math.tan(math.radians(25.0))
    intrinsics = torch.tensor([[focal, 0.0, 0.5 * size], [0.0, focal, 0.5 * size], [0.0, 0.0, 1.0]])
    return Scene(
        leaves={name: leaf.requires_grad_() for name, leaf in leaves.items()},
        viewmats=viewmats,
        Ks=intrinsics.repeat(num_cameras, 1, 1),
        size=size,
    )


def make_scene(kind: Kind, num_gaussians: int, num_cameras: int, size: int) -> Scene:
    match kind:
        case "ball":
            return make_ball(num_gaussians, num_cameras, size, (0.01, 0.03), (0.35, 0.65))
        case "torus":
            return make_torus(num_gaussians, num_cameras, size)
        case other:
            assert_never(other)


def render_numba(scene: Scene, *, antialiased: bool = False) -> tuple[Tensor, Tensor]:
    rendered, alphas, _ = rasterization(
        **scene.leaves,
        viewmats=scene.viewmats,
        Ks=scene.Ks,
        width=scene.size,
        height=scene.size,
        packed=False,
        rasterize_mode="antialiased" if antialiased else "classic",
    )
    return rendered, alphas


def render_torch(
    scene: Scene, *, antialiased: bool = False, tile_size: int | None = 16, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    gaussians = {name: leaf.to(dtype) for name, leaf in scene.leaves.items()}
    colors = gaussians.pop("colors")
    viewmats, intrinsics, size = scene.viewmats.to(dtype), scene.Ks.to(dtype), scene.size
    splats = torch_reference.project(
        **gaussians, viewmats=viewmats, Ks=intrinsics, width=size, height=size, antialiased=antialiased
    )
    backgrounds = torch.zeros(len(viewmats), 3, dtype=dtype)
    per_camera = colors.expand(len(viewmats), -1, -1)
    return torch_reference.composite(splats, per_camera, backgrounds, size, size, tile_size=tile_size)


def cpu_milliseconds(scene: Scene, render: Callable[[Scene], tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Time forward alone, and forward with backward."""
    start = time.process_time()
    rendered, alphas = render(scene)
    forward = time.process_time()
    (rendered.square().sum() + alphas.sum()).backward()
    end = time.process_time()
    for leaf in scene.leaves.values():
        leaf.grad = None
    return 1e3 * (forward - start), 1e3 * (end - start)


def measure(cell: tuple[Kind, int, int, int], repeats: int) -> dict[str, Any]:
    """Return median CPU times of both sides, measured in turn, and their ratio."""
    kind, num_gaussians, num_cameras, size = cell
    scene = make_scene(kind, num_gaussians, num_cameras, size)
    cpu_milliseconds(scene, render_numba)
    if num_gaussians < 100_000:
        cpu_milliseconds(scene, render_torch)
    else:
        repeats = min(repeats, 2)
    # The kernels are quick enough to be timed several times a turn.
    turns = [
        ([cpu_milliseconds(scene, render_numba) for _ in range(10)], cpu_milliseconds(scene, render_torch))
        for _ in range(repeats)
    ]
    numba_times = [pair for pairs, _ in turns for pair in pairs]
    numba_forward, numba_both = (statistics.median(pair[k] for pair in numba_times) for k in (0, 1))
    torch_forward, torch_both = (statistics.median(pair[k] for _, pair in turns) for k in (0, 1))
    return {
        "scene": kind,
        "gaussians": num_gaussians,
        "cameras": num_cameras,
        "size": size,
        "numba_forward_ms": round(numba_forward, 2),
        "numba_ms": round(numba_both, 2),
        "torch_forward_ms": round(torch_forward, 1),
        "torch_ms": round(torch_both, 1),
        "forward_ratio": round(torch_forward / numba_forward, 1),
        "ratio": round(torch_both / numba_both, 1),
    }


def measure_threads(repeats: int) -> dict[str, float]:
    """Return milliseconds of wall time with one thread and two, measured in turn: medians and best."""
    scene = make_scene(*THREADS_CELL)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeats + 1):
        for count, times in walls.items():
            torch.set_num_threads(count)
            for _ in range(5):
                start = time.perf_counter()
                cpu_milliseconds(scene, render_numba)
                if turn > 0:
                    times.append(1e3 * (time.perf_counter() - start))
    torch.set_num_threads(1)
    one, two = (statistics.median(walls[count]) for count in (1, 2))
    best_one, best_two = (min(walls[count]) for count in (1, 2))
    return {
        "one_thread_ms": round(one, 2),
        "two_threads_ms": round(two, 2),
        "ratio": round(one / two, 2),
        "best_ratio": round(best_one / best_two, 2),
    }


COMPILE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import rasterizer
scene = rasterizer.make_scene("ball", 100, 1, 32)
cpu, wall = time.process_time(), time.perf_counter()
rasterizer.cpu_milliseconds(scene, rasterizer.render_numba)
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def measure_compiling() -> dict[str, float]:
    """Return seconds of the first call in a fresh process, with an empty cache and then with a filled one."""
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("compile", "load"):
            done = subprocess.run(
                [sys.executable, "-c", COMPILE, str(Path(__file__).parent)],
                env=os.environ | {"NUMBA_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            cpu, wall = done.stdout.split()[-2:]
            seconds |= {f"{name}_cpu_s": round(float(cpu), 2), f"{name}_wall_s": round(float(wall), 2)}
    return seconds


def measure_error(name: str) -> dict[str, float]:
    """Return the largest colour error and the relative L2 error of each gradient, against float64."""
    num_gaussians, size, scales, opacities, antialiased = ACCURACY_CASES[name]
    scene = make_ball(num_gaussians, 2, size, scales, opacities)
    # The second camera stands inside the ball: Gaussians beside and behind it.
    scene.viewmats[1, 2, 3] = 0.9
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, size, size, 4, generator=generator)
    images, gradients = [], []
    for rendered, alphas in (
        render_numba(scene, antialiased=antialiased),
        render_torch(scene, antialiased=antialiased, tile_size=None, dtype=torch.float64),
    ):
        image = torch.cat([rendered, alphas], dim=-1)
        images.append(image.detach())
        gradients.append(torch.autograd.grad((image * weights).sum(), list(scene.leaves.values())))
    errors = {"color": float((images[0] - images[1])[..., :3].abs().max())}
    for leaf, ours, truth in zip(scene.leaves, *gradients, strict=True):
        errors[leaf] = float((ours - truth).norm() / truth.norm())
    return errors


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    header = f"{'scene':>6} {'N':>7} {'C':>2} {'S':>4} | {'numba fwd':>9} {'f+b':>7} | {'torch fwd':>9} {'f+b':>8}"
    print(f"{header} | {'ratios':>13}")
    timings = []
    for cell in CELLS:
        if cell[1] > settings.max_gaussians:
            continue
        row = measure(cell, settings.repeats)
        timings.append(row)
        print(
            f"{cell[0]:>6} {cell[1]:7d} {cell[2]:2d} {cell[3]:4d} | "
            f"{row['numba_forward_ms']:9.2f} {row['numba_ms']:7.2f} | "
            f"{row['torch_forward_ms']:9.1f} {row['torch_ms']:8.1f} | "
            f"{row['forward_ratio']:5.1f}x {row['ratio']:5.1f}x",
            flush=True,
        )
    threads = measure_threads(settings.thread_repeats) if settings.thread_repeats > 0 else None
    if threads is not None:
        print(f"\ntwo threads, {THREADS_CELL[1]} at {THREADS_CELL[3]}: {threads['ratio']} times one (wall time)")
    compiling = measure_compiling() if settings.compile else None
    if compiling is not None:
        print(f"first call, empty cache: {compiling['compile_cpu_s']} s of CPU; then {compiling['load_cpu_s']} s")
    errors = {name: measure_error(name) for name in ACCURACY_CASES}
    print(f"\n{'error against float64':>22} " + " ".join(f"{key:>9}" for key in errors["ordinary"]))
    for name, row in errors.items():
        print(f"{name:>22} " + " ".join(f"{value:9.1e}" for value in row.values()))
    summary = {
        "benchmark": "rasterizer",
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "ratio_20k_256": next((row["ratio"] for row in timings if tuple(row.values())[:4] == HEADLINE), None),
        "lowest_ratio": min((row["ratio"] for row in timings), default=None),
        "max_color_error": max(row["color"] for row in errors.values()),
        "max_gradient_error": max(value for row in errors.values() for key, value in row.items() if key != "color"),
        "threads": threads,
        "compiling": compiling,
        "timings": timings,
        "errors": errors,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
