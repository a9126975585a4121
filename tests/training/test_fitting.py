"""A field that is shown an object from all sides knows how it looks from others."""

from __future__ import annotations

import pytest
import torch

from sdi_gs.contracts import Representation
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.ngp import HashGridConfig, NgpConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.truth import held_out_cameras, render_truth
from sdi_gs.training.fitting import fit_to_images

CPU = torch.device("cpu")


@pytest.mark.slow
def test_a_field_fitted_to_toybox_pictures_shows_held_out_views() -> None:
    # True pictures need no coarse start.
    field = NgpConfig(grid=HashGridConfig(initial_levels=8))
    backgrounds = ("white", "gray", "black")
    config = RunConfig(representation="ngp", steps=200, views_per_step=3, backgrounds=backgrounds, ngp=field)
    item, cameras = canonical_object("robot", "blue"), held_out_cameras(48)
    truth = render_truth([item], cameras)

    def score(representation: Representation) -> float:
        return metrics.psnr(render_views(representation, cameras).rgb, truth.rgb).mean().item()

    fitted = fit_to_images(
        config,
        lambda training, background: render_scenes([(item,)] * len(training), training, background).rgb,
        image_size=48,
        device=CPU,
        final_rate=0.1,
    )
    assert score(Ngp(field, generator=torch.Generator().manual_seed(1), device=CPU)) < 16.0
    assert score(fitted.representation) >= 28.0
