"""The CPU rasteriser against OpenSplat's, which you have cloned: forward and backward, in turn in one process.

    git clone https://github.com/WebODM/OpenSplat
    OMP_WAIT_POLICY=PASSIVE python benchmarks/opensplat.py --source OpenSplat [--native]

OpenSplat's is the one other CPU rasteriser with gradients. Its file ``rasterizer/gsplat-cpu/gsplat_cpu.cpp`` is
compiled as it is, as an extension of torch, with the flags of its own release build; that needs a C++ compiler and
takes two minutes, once. It is under the AGPL, and no part of this project.

One thread is compared by CPU seconds of the process: OpenSplat starts as many threads as the machine has processors,
and all of them count. Two threads are compared by the clock, which needs a quiet machine. The smallest of all turns
counts. How far pictures and gradients agree is printed too: OpenSplat cuts Gaussians at three standard deviations.
The last line is one JSON object.

Letters: N Gaussians, S pixels along a side.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rasterizer import Scene, make_scene, render_numba
from torch import Tensor
from torch.utils.cpp_extension import load

from sdi_gs.errors import UserError

FILE = Path("rasterizer/gsplat-cpu/gsplat_cpu.cpp")
Renderer = Callable[[Scene], tuple[Tensor, Tensor]]
HEADLINE = (20_000, 256)
WANTED_RATIO = 12.0

GLUE = r"""
#include <torch/extension.h>
#include "bindings.h"

using torch::Tensor;

std::vector<Tensor> project(
    Tensor means, Tensor scales, Tensor quats, Tensor view, Tensor projection, double fx, double fy, double cx,
    double cy, int64_t height, int64_t width
) {
    auto [centers, radii, conics, covariances, depths] = project_gaussians_forward_tensor_cpu(
        means.size(0), means, scales, 1.0f, quats, view, projection, fx, fy, cx, cy, height, width, 0.01f);
    return {centers, conics, covariances, depths};
}

std::tuple<Tensor, Tensor, int64_t> forward(
    int64_t size, Tensor centers, Tensor conics, Tensor colors, Tensor opacities, Tensor background,
    Tensor covariances, Tensor depths
) {
    auto [image, rest, seen] = rasterize_forward_tensor_cpu(
        size, size, centers, conics, colors, opacities, background, covariances, depths);
    return {image, rest, reinterpret_cast<int64_t>(seen)};
}

std::vector<Tensor> backward(
    int64_t size, Tensor centers, Tensor conics, Tensor colors, Tensor opacities, Tensor background,
    Tensor covariances, Tensor depths, Tensor rest, int64_t seen, Tensor grad_image, Tensor grad_alpha
) {
    auto *lists = reinterpret_cast<std::vector<int32_t> *>(seen);
    Tensor none = torch::empty({0});
    auto [v_centers, v_conics, v_colors, v_opacities] = rasterize_backward_tensor_cpu(
        size, size, centers, conics, colors, opacities, background, covariances, depths, rest, lists, grad_image,
        grad_alpha, none, none, none, none);
    delete[] lists;
    return {v_centers, v_conics, v_colors, v_opacities};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    module.def("project", &project);
    module.def("forward", &forward);
    module.def("backward", &backward);
}
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    source: Path
    """OpenSplat's folder."""
    build: Path = Path.home() / ".cache" / "sdi-gs" / "opensplat"
    """Folder for what is compiled."""
    native: bool = False
    """Whether to compile for this processor, which OpenSplat's own build does not."""
    gaussians: tuple[int, ...] = (HEADLINE[0],)
    """Numbers of Gaussians."""
    sizes: tuple[int, ...] = (HEADLINE[1],)
    """Pixels along a side."""
    repeats: int = 15
    """Turns of each of the two."""


def built(settings: Settings) -> Any:
    """Compile OpenSplat's file, and return the extension."""
    file = settings.source / FILE
    if not file.is_file():
        raise UserError(f"--source {settings.source}: no {FILE} there; give the folder of a clone of OpenSplat")
    if shutil.which("c++") is None and shutil.which("g++") is None:
        raise UserError("no C++ compiler (c++ or g++) to compile OpenSplat with; install one")
    folder = settings.build / ("native" if settings.native else "release")
    folder.mkdir(parents=True, exist_ok=True)
    glue = folder / "glue.cpp"
    if not glue.exists() or glue.read_text() != GLUE:
        glue.write_text(GLUE)
    flags = ["-O3", "-DNDEBUG", *(["-march=native"] if settings.native else [])]
    try:
        return load(
            f"opensplat_{folder.name}",
            [str(glue), str(file.resolve())],
            extra_cflags=flags,
            extra_include_paths=[str(file.parent.resolve())],
            build_directory=str(folder),
        )
    except RuntimeError as error:
        # Without the compiler's whole output.
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error).splitlines()[0])
        raise UserError(f"{file} was not compiled, perhaps because its functions have changed: {reason}") from None


def opensplat_renderer(extension: Any) -> Renderer:
    """Return a function that renders a scene's one camera by OpenSplat."""

    class Rasterize(torch.autograd.Function):
        @staticmethod
        def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
            ctx: Any, size: int, centers: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, *rest: Tensor
        ) -> tuple[Tensor, Tensor]:
            given = [tensor.contiguous() for tensor in (centers, conics, colors, opacities, *rest)]
            image, remaining, ctx.seen = extension.forward(size, *given)
            ctx.size = size
            ctx.save_for_backward(*given, remaining)
            return image, 1.0 - remaining

        @staticmethod
        def backward(ctx: Any, grad_image: Tensor, grad_alpha: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            gradients = (grad_image.contiguous(), grad_alpha.contiguous())
            return None, *extension.backward(ctx.size, *ctx.saved_tensors, ctx.seen, *gradients), None, None, None

    def render(scene: Scene) -> tuple[Tensor, Tensor]:
        view, intrinsics, size = scene.viewmats[0], scene.Ks[0], scene.size
        fx, fy, cx, cy = (float(intrinsics[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
        projection = torch.zeros(4, 4)
        projection[0, 0], projection[0, 2] = 2 * fx / size, 2 * cx / size - 1
        projection[1, 1], projection[1, 2] = 2 * fy / size, 2 * cy / size - 1
        # Depths are those of the view; only x, y and w are read.
        projection[3, 2] = 1.0
        leaves = scene.leaves
        centers, conics, covariances, depths = extension.project(
            leaves["means"], leaves["scales"], leaves["quats"], view, projection @ view, fx, fy, cx, cy, size, size
        )
        return Rasterize.apply(
            size, centers, conics, leaves["colors"], leaves["opacities"][:, None], torch.zeros(3),
            covariances.detach(), depths.detach(),
        )  # fmt: skip

    return render


def rendered_by(render: Renderer, scene: Scene) -> tuple[Tensor, list[Tensor]]:
    """Return the picture and the gradients."""
    rendered, alphas = render(scene)
    gradients = torch.autograd.grad(rendered.square().sum() + alphas.sum(), list(scene.leaves.values()))
    return rendered.detach().reshape(scene.size, scene.size, 3), list(gradients)


def seconds(render: Renderer, scene: Scene, clock: Callable[[], float]) -> float:
    """Return the time of forward and backward by a clock."""
    begin = clock()
    rendered_by(render, scene)
    return clock() - begin


def compared(settings: Settings, render: Renderer, count: int, size: int) -> dict[str, Any]:
    """Return milliseconds and ratios of one cell, and how far the two agree."""
    scene = make_scene("ball", count, 1, size)
    row: dict[str, Any] = {"gaussians": count, "size": size}
    (picture, gradients), (other_picture, other_gradients) = (rendered_by(r, scene) for r in (render_numba, render))
    difference = (picture - other_picture).abs()
    row["picture"] = {"mean": float(difference.mean()), "largest": float(difference.max())}
    row["gradients"] = {
        name: round(float((theirs - ours).norm() / ours.norm()), 4)
        for name, ours, theirs in zip(scene.leaves, gradients, other_gradients, strict=True)
    }
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(threads)
        turns = [[seconds(one, scene, clock) for one in (render_numba, render)] for _ in range(settings.repeats + 1)]
        # The first turn warms up.
        own, other = (1e3 * min(turn[side] for turn in turns[1:]) for side in (0, 1))
        row[f"threads_{threads}"] = {"ms": own, "opensplat_ms": other, "ratio": other / own}
    torch.set_num_threads(1)
    return row


def main(settings: Settings) -> None:
    """Build, compare and print."""
    torch.set_num_threads(1)
    try:
        render = opensplat_renderer(built(settings))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    rows = [compared(settings, render, count, size) for count in settings.gaussians for size in settings.sizes]
    for row in rows:
        one, two = row["threads_1"], row["threads_2"]
        print(
            f"{row['gaussians']:7d} at {row['size']:4d}: CPU {one['ms']:7.2f} against {one['opensplat_ms']:8.2f} ms, "
            f"{one['ratio']:5.1f} times; wall, two threads {two['ms']:7.2f} against {two['opensplat_ms']:8.2f} ms, "
            f"{two['ratio']:5.1f} times"
        )
    print(json.dumps({"benchmark": "opensplat", "native": settings.native, "wanted": WANTED_RATIO, "rows": rows}))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
