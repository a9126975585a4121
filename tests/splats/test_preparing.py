"""Clouds as an export's options ask for them: harmonics cut and filled up, heights in metres."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.settings.export import ExportOptions, ShDegree
from sdi_gs.splats.formats import read_splats, write_splats
from sdi_gs.splats.preparing import height_of, scaled, with_sh_degree
from sdi_gs.splats.splat_cloud import SplatCloud


def make_cloud(coefficients: int, count: int = 40) -> SplatCloud:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return SplatCloud(
        means=draw(count, 3),
        log_scales=draw(count, 3) - 4.0,
        quats=draw(count, 4),
        opacity_logit=draw(count),
        sh_dc=draw(count, 3),
        sh_rest=draw(count, coefficients, 3),
    )


@pytest.mark.parametrize("before", [0, 3, 8, 15])
@pytest.mark.parametrize(("degree", "most"), [("keep", 15), ("0", 0), ("1", 3), ("2", 8)])
def test_harmonics_are_cut_and_never_invented(before: int, degree: ShDegree, most: int) -> None:
    cloud = make_cloud(before)
    cut = with_sh_degree(cloud, degree).sh_rest
    assert torch.equal(cut, cloud.sh_rest[:, : min(before, most)])


@pytest.mark.parametrize("before", [0, 3, 15])
def test_padding_adds_zeros_up_to_degree_3(before: int, tmp_path: Path) -> None:
    cloud = make_cloud(before)
    padded = with_sh_degree(cloud, "3-pad").sh_rest
    assert torch.equal(padded[:, :before], cloud.sh_rest)
    assert padded.shape[1] == 15 and not padded[:, before:].any()
    write_splats(tmp_path / "a.ply", cloud, "ply", options=ExportOptions(sh_degree="3-pad"))
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    # What older importers of Unity count: 62 floats.
    assert len(body) == 40 * 248 and b"f_rest_44" in header


def test_the_height_is_that_of_the_ellipsoids_without_floaters() -> None:
    count = 4000
    cloud = make_cloud(0, count)
    stands = replace(
        cloud,
        means=torch.stack([torch.zeros(count), torch.zeros(count), torch.linspace(-1.0, 1.0, count)], dim=1),
        log_scales=torch.tensor([[0.5, 1e-6, 1e-6]]).log().expand(count, 3),
        # The long axis, x, stands upright.
        quats=torch.tensor([[math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]]).expand(count, 4),
        opacity_logit=torch.full((count,), 2.0),
    )
    assert height_of(stands) == pytest.approx(3.0, rel=0.01)
    lying = replace(stands, quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, 4))
    assert height_of(lying) == pytest.approx(2.0, rel=0.01)
    means, opacity = lying.means.clone(), lying.opacity_logit.clone()
    means[:3, 2], means[10:20, 2], opacity[10:20] = 50.0, -90.0, -20.0
    assert height_of(replace(lying, means=means, opacity_logit=opacity)) == pytest.approx(2.0, rel=0.01)


def test_a_file_has_the_height_asked_for_in_metres(tmp_path: Path) -> None:
    cloud = make_cloud(3, 2000)
    write_splats(tmp_path / "a.ply", cloud, "ply", options=ExportOptions(scale=1.8))
    found = read_splats(tmp_path / "a.ply")
    assert height_of(found) == pytest.approx(1.8, rel=1e-4)
    factor = 1.8 / height_of(cloud)
    torch.testing.assert_close(found.means, cloud.means * factor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.log_scales.exp(), cloud.log_scales.exp() * factor, rtol=1e-4, atol=0)
    assert torch.equal(scaled(cloud, 2.0).sh_rest, cloud.sh_rest)


def test_splats_without_a_height_are_refused(tmp_path: Path) -> None:
    cloud = replace(make_cloud(0), opacity_logit=torch.full((40,), -20.0))
    with pytest.raises(UserError, match="no height to scale: leave --scale out"):
        write_splats(tmp_path / "a.ply", cloud, "ply", options=ExportOptions(scale=1.0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_height_is_positive_and_finite(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        ExportOptions(scale=scale)
