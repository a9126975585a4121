"""A field that is shown an object from all sides knows how it looks from others."""

from __future__ import annotations

import pytest
import torch

from sdi_gs.camera_config import CameraConfig
from sdi_gs.cameras import sample_cameras
from sdi_gs.representations.ngp.config import HashGridConfig, NgpConfig, NgpLossConfig
from sdi_gs.representations.ngp.fitting import Views, fit_ngp
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.truth import held_out_cameras, render_truth

NO_LOSSES = NgpLossConfig(
    orientation=0.0, sparsity=0.0, opaqueness=0.0, z_variance=0.0, convexity=0.0, convexity_final=0.0
)


@pytest.mark.slow
def test_a_field_fitted_to_toybox_pictures_shows_held_out_views() -> None:
    # True pictures need no coarse start.
    config = NgpConfig(grid=HashGridConfig(initial_levels=8), losses=NO_LOSSES)
    generator = torch.Generator().manual_seed(0)
    ngp = Ngp(config, generator=generator, device=torch.device("cpu"))
    item = canonical_object("robot", "blue")
    backgrounds = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]])

    def views_of(step: int) -> Views:
        cameras = sample_cameras(CameraConfig(), 3, width=48, height=48, generator=generator)
        truth = render_scenes([(item,)] * 3, cameras, backgrounds)
        return Views(cameras=cameras, background=backgrounds, images=truth.rgb)

    cameras = held_out_cameras(48)
    truth = render_truth([item], cameras)

    def score() -> float:
        with torch.no_grad():
            shown = ngp.render(cameras, torch.ones(len(cameras), 3))
        return metrics.psnr(shown.rgb, truth.rgb).mean().item()

    before = score()
    fit_ngp(ngp, views_of, steps=200, generator=generator)
    assert before < 16.0
    assert score() >= 28.0
