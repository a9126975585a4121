"""Renders and bytes of an object in each format, against the bars of the formats' page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sdi_gs.pictures.framing import training_framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.splats.formats import SPLAT_FORMATS, read_splats, write_splats
from sdi_gs.splats.splat_cloud import SplatCloud

BARS = {"spz": (50.0, 0.25), "sog": (52.0, 0.25), "compressed-ply": (55.0, 0.25), "gltf-splats": (100.0, 1.0)}
"""Least PSNR, dB, and most bytes as a share of the .ply's."""


def coloured_ball(count: int = 3000) -> SplatCloud:
    """Return a solid ball of splats as an optimiser leaves them: opaque, flat, in smooth colours."""
    generator = torch.Generator().manual_seed(0)
    outward = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return SplatCloud(
        means=0.8 * outward,
        log_scales=-3.2 + 0.3 * torch.randn(count, 3, generator=generator),
        quats=torch.randn(count, 4, generator=generator),
        opacity_logit=3.0 + torch.randn(count, generator=generator),
        sh_dc=1.2 * torch.sin(4.0 * outward) + 0.1 * torch.randn(count, 3, generator=generator),
        sh_rest=torch.zeros(count, 0, 3),
    )


def renders(cloud: SplatCloud) -> torch.Tensor:
    ring = training_framing(CameraConfig()).ring(3, 256, elevation_deg=15.0)
    return render_views(gaussians_from_splats(cloud, device="cpu"), ring).rgb


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return renders(coloured_ball())


@pytest.mark.parametrize("name", BARS)
def test_an_object_looks_the_same_in_a_quarter_of_the_bytes(name: str, expected: torch.Tensor, tmp_path: Path) -> None:
    row = next(row for row in SPLAT_FORMATS if row.name == name)
    psnr, share = BARS[name]
    write_splats(tmp_path / "a.ply", coloured_ball(), "ply")
    path = tmp_path / f"b{row.suffix}"
    write_splats(path, coloured_ball(), row)
    error = float((renders(read_splats(path, row)) - expected).square().mean())
    assert -10.0 * math.log10(max(error, 1e-20)) >= psnr
    assert path.stat().st_size <= share * (tmp_path / "a.ply").stat().st_size
