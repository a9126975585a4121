"""Numbers of a file that no renderer can use: moved into their window where they mean something, else left out."""

from __future__ import annotations

import math
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from sdi_gs.errors import UserError
from sdi_gs.splats.formats import SPLAT_FORMATS, read_splats
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.splats.screening import COLOUR_LIMIT, LOG_SCALE_WINDOW, MAX_DISTANCE, OPACITY_LOGIT_LIMIT
from sdi_gs.splats.splat_cloud import SplatCloud

COUNT = 40
NAN, INF = math.nan, math.inf


def make_cloud() -> SplatCloud:
    generator = torch.Generator().manual_seed(0)
    return SplatCloud(
        means=torch.randn(COUNT, 3, generator=generator),
        log_scales=torch.randn(COUNT, 3, generator=generator) - 4.0,
        quats=torch.nn.functional.normalize(torch.randn(COUNT, 4, generator=generator), dim=-1),
        opacity_logit=torch.linspace(-5.0, 5.0, COUNT),
        sh_dc=torch.randn(COUNT, 3, generator=generator),
        sh_rest=torch.randn(COUNT, 3, 3, generator=generator),
    )


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_splat_ply(tmp_path / "good.ply", make_cloud())
    return tmp_path / "good.ply"


def edited(good: Path, column: str, rows: slice, value: float) -> Path:
    """The file with a column's value replaced in some rows, by another hand."""
    ply = PlyData.read(good)
    ply["vertex"].data[column][rows] = value
    ply.write(good.with_name("edited.ply"))
    return good.with_name("edited.ply")


def test_infinite_logits_are_opaque_and_the_solid_half_stays(good: Path) -> None:
    path = edited(good, "opacity", slice(0, None, 2), INF)
    with pytest.warns(UserWarning, match=r"edited.ply: numbers out of range are moved into it \(20 opacities\)"):
        cloud = read_splat_ply(path)
    assert len(cloud) == COUNT
    torch.testing.assert_close(cloud.opacity_logit[::2].sigmoid(), torch.ones(20), rtol=0.0, atol=2e-6)
    torch.testing.assert_close(cloud.opacity_logit[1::2], make_cloud().opacity_logit[1::2])


@pytest.mark.parametrize(
    ("column", "value", "kept", "says"),
    [
        ("opacity", -INF, -OPACITY_LOGIT_LIMIT, "5 opacities"),
        ("scale_1", -INF, LOG_SCALE_WINDOW[0], "5 scales"),
        ("scale_1", -1e30, LOG_SCALE_WINDOW[0], "5 scales"),
        ("scale_1", 1e4, LOG_SCALE_WINDOW[1], "5 scales"),
        ("f_dc_1", 1e30, COLOUR_LIMIT, "5 colours"),
        ("f_rest_4", -3e38, -COLOUR_LIMIT, "5 colours"),
    ],
)
def test_a_number_with_a_meaning_is_moved_into_its_window(
    good: Path, column: str, value: float, kept: float, says: str
) -> None:
    path = edited(good, column, slice(5), value)
    with pytest.warns(UserWarning, match=rf"moved into it \({says}\)"):
        cloud = read_splat_ply(path, frame="train")
    assert len(cloud) == COUNT
    parts = {
        "opacity": cloud.opacity_logit,
        "scale_1": cloud.log_scales[:, 1],
        "f_dc_1": cloud.sh_dc[:, 1],
        "f_rest_4": cloud.sh_rest[:, 1, 1],
    }
    torch.testing.assert_close(parts[column][:5], torch.full((5,), kept))
    untouched = read_splat_ply(good, frame="train")
    for field in fields(SplatCloud):
        torch.testing.assert_close(getattr(cloud, field.name)[5:], getattr(untouched, field.name)[5:])


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("x", NAN, "not finite"),
        ("z", INF, "not finite"),
        ("y", 3e38, f"farther than {MAX_DISTANCE:g}"),
        ("y", -2e10, f"farther than {MAX_DISTANCE:g}"),
        ("scale_0", INF, "not finite"),
        ("scale_2", NAN, "not finite"),
        ("opacity", NAN, "not finite"),
        ("rot_3", INF, "not finite"),
        ("f_dc_0", INF, "not finite"),
        ("f_rest_8", NAN, "not finite"),
    ],
)
def test_a_splat_with_a_number_without_a_meaning_is_left_out_and_counted(
    good: Path, column: str, value: float, reason: str
) -> None:
    path = edited(good, column, slice(7), value)
    with pytest.warns(UserWarning) as caught:
        cloud = read_splat_ply(path, frame="train")
    says = f"{path}: 7 of its {COUNT} splats are left out (7 {reason})"
    assert [str(warning.message) for warning in caught] == [says]
    torch.testing.assert_close(cloud.means, read_splat_ply(good, frame="train").means[7:])


def test_usual_numbers_are_read_without_a_word(good: Path, tmp_path: Path) -> None:
    """Long trained logits and unnormalised or tiny quaternions are usual."""
    ply = PlyData.read(good)
    ply["vertex"].data["opacity"][:5] = 18.0
    for column in range(4):
        ply["vertex"].data[f"rot_{column}"] *= np.float32(1e-20)
    path = tmp_path / "edited.ply"
    ply.write(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cloud = read_splat_ply(path)
    assert len(cloud) == COUNT
    torch.testing.assert_close(cloud.quats.norm(dim=-1), torch.ones(COUNT))
    assert cloud.opacity_logit.max() == pytest.approx(OPACITY_LOGIT_LIMIT)


def test_the_writers_keep_what_the_readers_keep(tmp_path: Path) -> None:
    cloud = make_cloud()
    opacity_logit = cloud.opacity_logit.clone()
    opacity_logit[:3], opacity_logit[3:5] = INF, -INF
    log_scales = cloud.log_scales.clone()
    log_scales[6], log_scales[7] = -INF, INF
    spoilt = replace(cloud, opacity_logit=opacity_logit, log_scales=log_scales)
    for row in SPLAT_FORMATS:
        path = tmp_path / f"{row.name}{row.suffix}"
        report = row.write(path, spoilt).report
        assert (report.written, report.dropped_transparent, report.dropped_non_finite) == (37, 2, 1)
        assert report.left_out() == "3 of 40 Gaussians are left out (1 not finite, 2 transparent)"
        assert not row.reads or len(read_splats(path)) == 37


def test_a_file_whose_splats_are_all_far_away_is_refused_with_the_reason(good: Path) -> None:
    with pytest.raises(UserError, match=r"none of its 40 splats is finite \(40 farther than 1e\+10\)"):
        read_splat_ply(edited(good, "x", slice(None), 1e20))
