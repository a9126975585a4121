"""The comparison with OpenSplat: its errors, and its calls on a stand-in that renders by torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import opensplat
import pytest
import torch
from opensplat import Settings, built, opensplat_renderer
from rasterizer import make_scene, render_numba
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.rasterize import torch_reference


class StandIn:
    """The extension's three functions; centres are counted from the first pixel's middle, as OpenSplat does."""

    def project(self, means: Tensor, scales: Tensor, quats: Tensor, *rest: Any) -> list[Tensor]:
        view, projection, fx, fy, cx, cy, height, width = rest
        places = torch.cat([means, torch.ones(len(means), 1)], dim=1) @ projection.T
        size = torch.tensor([width, height])
        centers = 0.5 * ((places[:, :2] / places[:, 3:] + 1.0) * size - 1.0)
        intrinsics = torch.tensor([[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]])
        splats = torch_reference.project(
            means, quats, scales, torch.ones(len(means)), view[None], intrinsics, width, height
        )
        return [centers, splats["conics"][0], torch.zeros(len(means), 2, 2), splats["depths"][0]]

    def forward(self, size: int, *given: Tensor) -> tuple[Tensor, Tensor, int]:
        self.leaves = [tensor.detach().requires_grad_() for tensor in given[:4]]
        centers, conics, colors, opacities = self.leaves
        with torch.enable_grad():
            splats = {
                "means2d": centers[None] + 0.5,
                "conics": conics[None],
                "opacities": opacities[None, :, 0],
                "depths": given[-1][None],
                "radii": torch.full((1, len(centers), 2), size),
            }
            self.images = torch_reference.composite(splats, colors[None], given[4][None], size, size)
        colours, alphas = (image[0].detach() for image in self.images)
        return colours, 1.0 - alphas[..., 0], 7

    def backward(self, size: int, *rest: Any) -> tuple[Tensor, ...]:
        *_, seen, grad_image, grad_alpha = rest
        assert (seen, grad_image.shape) == (7, (size, size, 3))
        return torch.autograd.grad(self.images, self.leaves, [grad_image[None], grad_alpha[None, ..., None]])


def test_pictures_and_gradients_reach_their_places() -> None:
    scene = make_scene("ball", 40, 1, 24)
    images, gradients = [], []
    for render in (render_numba, opensplat_renderer(StandIn())):
        rendered, alphas = render(scene)
        images.append(rendered.detach().reshape(24, 24, 3))
        loss = rendered.square().sum() + alphas.sum()
        gradients.append(torch.autograd.grad(loss, list(scene.leaves.values())))
    torch.testing.assert_close(images[1], images[0], rtol=0.0, atol=1e-4)
    for name, ours, theirs in zip(scene.leaves, *gradients, strict=True):
        assert float((ours - theirs).norm() / ours.norm()) < 1e-2, name


def test_a_folder_without_opensplat_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--source .*: no .*gsplat_cpu.cpp there"):
        built(Settings(source=tmp_path))


@pytest.mark.parametrize("compiler", [None, "c++"])
def test_what_hinders_compiling_is_one_line(
    compiler: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: Any, **named: Any) -> None:
        raise RuntimeError(
            "Error building extension 'opensplat'\nmany lines\nglue.cpp:7: error: no such function\nmore"
        )

    source = tmp_path / opensplat.FILE
    source.parent.mkdir(parents=True)
    source.touch()
    monkeypatch.setattr(opensplat.shutil, "which", lambda name: compiler)
    monkeypatch.setattr(opensplat, "load", load)
    expected = "no C\\+\\+ compiler" if compiler is None else "changed: glue.cpp:7: error: no such function$"
    with pytest.raises(UserError, match=expected):
        built(Settings(source=tmp_path, build=tmp_path / "build"))
