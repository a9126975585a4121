"""CPU time of the numba rasteriser against torch operations alone, and its error against float64.

    python benchmarks/rasterizer.py

Both render the same Gaussians forward and backward, taking turns; the medians are compared. The torch side is
``sdi_gs.rasterize.torch_reference``: gsplat's torch projection and dense compositing per 16x16 tile by autograd.
CPU time is that of the whole process, so the default is one thread: idle threads that spin would count. The last
line of the output is one JSON object.

Letters: N Gaussians, C cameras, S pixels along a side.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch import Tensor

from sdi_gs.rasterize import rasterization, torch_reference


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure."""

    repeats: int = 5
    """Timed turns per size."""
    threads: int = 1
    """Threads for both sides."""
    max_gaussians: int = 100_000
    """Sizes with more Gaussians are left out."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A ball of Gaussians of radius 1, three units from the cameras."""

    leaves: dict[str, Any]
    """means, quats, scales, opacities and colors, trainable."""
    viewmats: Tensor  # [C, 4, 4]
    Ks: Tensor  # [C, 3, 3]
    size: int
    """Pixels along a side."""


# N, C, S. The second is a step of the main job.
SIZES = ((5_000, 1, 128), (6_000, 4, 64), (20_000, 1, 128), (20_000, 1, 256), (20_000, 1, 512), (100_000, 1, 256))
HEADLINE = (20_000, 1, 256)

# Name: N, S, scales, opacities, antialiased.
ACCURACY_CASES = {
    "ordinary": (500, 64, (0.01, 0.03), (0.35, 0.65), False),
    "early stop": (400, 48, (0.05, 0.3), (0.001, 0.999), False),
    "alpha cut": (200, 48, (0.05, 0.2), (0.9999, 0.9999), False),
    "sub-pixel": (2000, 40, (0.0005, 0.002), (0.35, 0.65), False),
    "needles": (400, 48, (0.0005, 0.4), (0.35, 0.65), False),
    "antialiased": (500, 48, (0.003, 0.02), (0.35, 0.65), True),
}


def make_scene(
    num_gaussians: int, num_cameras: int, size: int, scales: tuple[float, float], opacities: tuple[float, float]
) -> Scene:
    """Random Gaussians, and cameras around them."""
    generator = torch.Generator().manual_seed(0)

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    directions = torch.nn.functional.normalize(torch.randn(num_gaussians, 3, generator=generator), dim=-1)
    leaves = {
        "means": directions * uniform((num_gaussians, 1), 0.0, 1.0) ** (1 / 3),
        "quats": torch.randn(num_gaussians, 4, generator=generator),
        "scales": uniform((num_gaussians, 3), *scales),
        "opacities": uniform((num_gaussians,), *opacities),
        "colors": uniform((num_gaussians, 3), 0.0, 1.0),
    }
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
    """Forward alone, and forward with backward."""
    start = time.process_time()
    rendered, alphas = render(scene)
    forward = time.process_time()
    (rendered.square().sum() + alphas.sum()).backward()
    end = time.process_time()
    for leaf in scene.leaves.values():
        leaf.grad = None
    return 1e3 * (forward - start), 1e3 * (end - start)


def measure(num_gaussians: int, num_cameras: int, size: int, repeats: int) -> dict[str, float]:
    """Median CPU times of both sides, taking turns, and their ratio."""
    scene = make_scene(num_gaussians, num_cameras, size, (0.01, 0.03), (0.35, 0.65))
    for render in (render_numba, render_torch):
        cpu_milliseconds(scene, render)
    # The kernels are quick enough to be timed several times a turn.
    turns = [
        ([cpu_milliseconds(scene, render_numba) for _ in range(5)], cpu_milliseconds(scene, render_torch))
        for _ in range(repeats)
    ]
    numba_times = [pair for pairs, _ in turns for pair in pairs]
    numba_forward, numba_both = (statistics.median(pair[k] for pair in numba_times) for k in (0, 1))
    torch_forward, torch_both = (statistics.median(pair[k] for _, pair in turns) for k in (0, 1))
    return {
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


def measure_error(name: str) -> dict[str, float]:
    """Largest colour error, and relative L2 error of each gradient, against float64 over the whole image."""
    num_gaussians, size, scales, opacities, antialiased = ACCURACY_CASES[name]
    scene = make_scene(num_gaussians, 2, size, scales, opacities)
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
    torch.set_num_threads(settings.threads)
    print(f"{'N':>7} {'C':>2} {'S':>4} | {'numba fwd':>9} {'f+b':>7} | {'torch fwd':>9} {'f+b':>8} | {'ratios':>13}")
    timings = []
    for size in SIZES:
        if size[0] > settings.max_gaussians:
            continue
        row = measure(*size, settings.repeats)
        timings.append(row)
        print(
            f"{size[0]:7d} {size[1]:2d} {size[2]:4d} | {row['numba_forward_ms']:9.2f} {row['numba_ms']:7.2f} | "
            f"{row['torch_forward_ms']:9.1f} {row['torch_ms']:8.1f} | {row['forward_ratio']:5.1f}x {row['ratio']:5.1f}x"
        )
    errors = {name: measure_error(name) for name in ACCURACY_CASES}
    print(f"\n{'error against float64':>22} " + " ".join(f"{key:>9}" for key in errors["ordinary"]))
    for name, row in errors.items():
        print(f"{name:>22} " + " ".join(f"{value:9.1e}" for value in row.values()))
    summary = {
        "benchmark": "rasterizer",
        "cpu": platform.processor() or platform.machine(),
        "threads": settings.threads,
        "torch": torch.__version__,
        "ratio_20k_256": next(
            (row["ratio"] for row in timings if (row["gaussians"], row["cameras"], row["size"]) == HEADLINE), None
        ),
        "max_color_error": max(row["color"] for row in errors.values()),
        "max_gradient_error": max(value for row in errors.values() for key, value in row.items() if key != "color"),
        "timings": timings,
        "errors": errors,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
