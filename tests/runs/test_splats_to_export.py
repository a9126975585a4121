"""Which splats an export keeps: those that pictures need, and what it prints about the others."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.pictures.framing import training_framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.export import export
from sdi_gs.runs.loading import SavedScene
from sdi_gs.runs.splats_to_export import splats_to_export
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.splat_cloud import SplatCloud
from sdi_gs.training.splats_of_field import psnr_of

USUAL = training_framing(CameraConfig())


def onion(scale: float = 1.0) -> SplatCloud:
    """A shell of 900 coloured splats around 300 more opaque ones that nobody sees."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(1200, 3, generator=generator), dim=1)
    radii = torch.cat([torch.full((900,), 0.7), torch.full((300,), 0.3)])
    return SplatCloud(
        means=scale * radii[:, None] * directions,
        log_scales=torch.full((1200, 3), math.log(0.05 * scale)),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(1200, 1),
        opacity_logit=torch.cat([2.0 + 0.5 * torch.rand(900, generator=generator), torch.full((300,), 4.0)]),
        sh_dc=torch.randn(1200, 3, generator=generator),
        sh_rest=torch.zeros(1200, 0, 3),
    )


def file_of(cloud: SplatCloud) -> SavedScene:
    return SavedScene(representation=gaussians_from_splats(cloud), path=Path("onion.ply"), run=None)


def likeness(cloud: SplatCloud, kept: SplatCloud) -> float:
    views = USUAL.ring(5, 96, elevation_deg=30.0)
    wanted = render_views(gaussians_from_splats(cloud), views).rgb
    return psnr_of(gaussians_from_splats(kept), views, wanted)


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_what_adds_least_to_pictures_goes_first_whatever_the_size(scale: float) -> None:
    cloud = onion(scale)
    found = splats_to_export(file_of(cloud), ExportOptions(max_splats=900))
    # Almost all of the shell; the core is seen through it here and there.
    from_middle = found.cloud.means.norm(dim=1) / scale
    assert len(found.cloud) == 900
    assert int((from_middle < 0.5).sum()) < 30
    assert found.about.startswith(", of onion.ply; 900 kept of 1200, ")


def test_pictures_tell_more_than_opacities_do() -> None:
    cloud = onion()
    found = splats_to_export(file_of(cloud), ExportOptions(max_splats=700)).cloud
    most_opaque = torch.zeros(1200, dtype=torch.bool)
    most_opaque[cloud.opacity_logit.topk(700).indices] = True
    assert likeness(cloud, found) > likeness(cloud, cloud.select(most_opaque)) + 3.0


def test_the_likeness_that_is_printed_is_that_of_the_renders() -> None:
    cloud = onion()
    found = splats_to_export(file_of(cloud), ExportOptions(max_splats=600))
    views = USUAL.ring(12, 256, elevation_deg=15.0)
    wanted = render_views(gaussians_from_splats(cloud), views).rgb
    mse = float((render_views(gaussians_from_splats(found.cloud), views).rgb - wanted).square().mean())
    assert f"600 kept of 1200, {-10 * math.log10(mse):.1f} dB of PSNR against all" in found.about


def test_faint_splats_go_and_nothing_else_changes() -> None:
    cloud = onion()
    limit = float(torch.sigmoid(cloud.opacity_logit).median())
    found = splats_to_export(file_of(cloud), ExportOptions(drop_below=limit)).cloud
    wanted = cloud.select(torch.sigmoid(cloud.opacity_logit) >= limit)
    assert len(found) == len(wanted) < 1200
    assert torch.equal(found.means, wanted.means) and torch.equal(found.opacity_logit, wanted.opacity_logit)
    with pytest.raises(UserError, match="none of 1200 splats is visible at --drop-below 0.999: lower it"):
        splats_to_export(file_of(cloud), ExportOptions(drop_below=0.999))


def test_splats_without_a_meaning_do_not_count_and_do_no_harm() -> None:
    cloud = onion()
    cloud.means[:3], cloud.log_scales[3:5], cloud.quats[5] = math.nan, math.inf, 0.0
    found = splats_to_export(file_of(cloud), ExportOptions(max_splats=1000)).cloud
    assert len(found) == 1000
    assert bool(found.means.isfinite().all())


def test_an_export_of_all_is_what_it_was(tmp_path: Path) -> None:
    cloud = onion()
    assert splats_to_export(file_of(cloud), ExportOptions()).cloud is not None
    for name, options in {"a": {}, "b": {"max_splats": 1200}, "c": {"drop_below": 0.01}}.items():
        exported = export(file_of(cloud), tmp_path / f"{name}.ply", **options)
        assert exported.summary == "1200 of 1200 Gaussians, of onion.ply"
    files = [(tmp_path / f"{name}.ply").read_bytes() for name in "abc"]
    assert files[0] == files[1] == files[2]
