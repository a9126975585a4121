"""The terms of a Gaussian scene's loss that LucidDreamer has, as a step computes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sdi_gs.cameras import orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.run import RunConfig

WEIGHTS = {"picture_tv": 0.5, "depth_tv": 0.25, "mean_scale": 2.0}


def scene_of(config: RunConfig) -> GaussianScene:
    return GaussianScene(config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))


def test_weights_scale_the_terms_and_every_term_moves_the_gaussians() -> None:
    base = preset("smoke", prompt="a blue robot")
    nothing = LossConfig(fog=0.0, needles=0.0)
    two = torch.tensor([0.0, 90.0])
    cameras = orbit_cameras(two, 0.0 * two, 3.0 + 0.0 * two, 40.0 + 0.0 * two, width=24, height=24)
    for name, weight in WEIGHTS.items():
        values = []
        for factor in (1.0, 3.0):
            scene = scene_of(replace(base, losses=replace(nothing, **{name: factor * weight})))
            background = torch.ones(2, 3)
            render = scene.render(cameras, background, progress=0.0, generator=torch.Generator())
            (term,) = scene.losses(render, cameras, 0.0).items()
            assert term[0] == name
            values.append(term[1].item())
            scene.backward(term[1], render, step=0)
            gradients = scene.gradients()
            assert max(value.abs().max().item() for value in gradients.values()) > 0.0
            assert all(value.isfinite().all() for value in gradients.values())
        assert values[1] == pytest.approx(3.0 * values[0], rel=1e-5)
    scene = scene_of(replace(base, losses=nothing))
    render = scene.render(cameras, torch.ones(2, 3), progress=0.0, generator=torch.Generator())
    assert scene.losses(render, cameras, 0.0) == {}


def test_the_mean_scale_is_that_of_all_axes_in_scene_units() -> None:
    base = preset("smoke", prompt="a blue robot")
    scene = scene_of(replace(base, losses=LossConfig(fog=0.0, needles=0.0, mean_scale=1.0)))
    count = len(scene.gaussians)
    scene.gaussians.params["scales"].data = torch.tensor([0.1, 0.2, 0.6]).log().expand(count, 3).clone()
    one = torch.ones(1)
    cameras = orbit_cameras(0.0 * one, 0.0 * one, 3.0 * one, 40.0 * one, width=16, height=16)
    render = scene.render(cameras, torch.ones(1, 3), progress=0.0, generator=torch.Generator())
    assert scene.losses(render, cameras, 0.0)["mean_scale"].item() == pytest.approx(0.3, rel=1e-5)
