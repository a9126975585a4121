"""antimatter15's .splat, against a transcription of its convert.py with struct and against gsplat's writer."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
from gsplat.exporter import export_splats

from sdi_gs.errors import UserError
from sdi_gs.splats.dot_splat import read_dot_splat, write_dot_splat
from sdi_gs.splats.splat_cloud import Frame, SplatCloud

C0 = 0.28209479177387814
ROTATION_ERROR = 0.008
"""Largest error of a unit quaternion's parts in bytes of 1 / 128."""


def make_cloud(count: int = 50, coefficients: int = 0) -> SplatCloud:
    generator = torch.Generator().manual_seed(count)
    return SplatCloud(
        means=torch.randn(count, 3, generator=generator),
        log_scales=0.7 * torch.randn(count, 3, generator=generator) - 4.0,
        quats=3.0 * torch.randn(count, 4, generator=generator),
        opacity_logit=torch.linspace(-4.0, 5.0, count),
        sh_dc=(torch.rand(count, 3, generator=generator) - 0.5) / C0,
        sh_rest=torch.randn(count, coefficients, 3, generator=generator),
    )


def covariances(cloud: SplatCloud) -> torch.Tensor:
    covars, _ = _quat_scale_to_covar_preci(cloud.quats, cloud.log_scales.exp(), compute_preci=False)
    assert covars is not None
    return covars


def converted(cloud: SplatCloud) -> list[bytes]:
    """Every splat as convert.py writes it, with rounding where that cuts off; in the axes and order given."""
    rows = []
    for i in range(len(cloud)):
        rgb = [0.5 + C0 * value for value in cloud.sh_dc[i].tolist()]
        alpha = 1.0 / (1.0 + math.exp(-cloud.opacity_logit[i].item()))
        colour = [min(max(round(255 * value), 0), 255) for value in (*rgb, alpha)]
        quat = cloud.quats[i].tolist()
        length = math.sqrt(sum(part * part for part in quat))
        turn = [min(max(round(128 * part / length + 128), 0), 255) for part in quat]
        scales = [math.exp(value) for value in cloud.log_scales[i].tolist()]
        rows.append(struct.pack("<3f3f4B4B", *cloud.means[i].tolist(), *scales, *colour, *turn))
    return rows


def test_every_row_is_what_the_format_says_and_the_weightiest_come_first(tmp_path: Path) -> None:
    cloud = make_cloud()
    report = write_dot_splat(tmp_path / "a.splat", cloud, frame="train")
    data = (tmp_path / "a.splat").read_bytes()
    assert (report.total, report.written, len(data)) == (50, 50, 50 * 32)
    weight = [
        math.exp(sum(cloud.log_scales[i].tolist())) / (1.0 + math.exp(-cloud.opacity_logit[i].item()))
        for i in range(50)
    ]
    order = sorted(range(50), key=lambda i: -weight[i])
    expected = converted(cloud)
    for place, i in enumerate(order):
        row, wanted = (struct.unpack("<6f8B", one) for one in (data[32 * place : 32 * place + 32], expected[i]))
        assert row[:3] == wanted[:3]
        assert row[3:6] == pytest.approx(wanted[3:6], rel=1e-6)
        # A float32 beside the middle between two bytes may fall to either.
        assert max(abs(a - b) for a, b in zip(row[6:], wanted[6:], strict=True)) <= 1


def test_the_viewers_frame_turns_means_as_a_ply_does(tmp_path: Path) -> None:
    cloud = make_cloud(1)
    write_dot_splat(tmp_path / "a.splat", cloud)
    x, y, z = cloud.means[0].tolist()
    assert struct.unpack("<3f", (tmp_path / "a.splat").read_bytes()[:12]) == pytest.approx((y, -z, -x))


@pytest.mark.parametrize("frame", ["viewer", "train"])
def test_what_was_written_is_read_back_as_far_as_bytes_can_hold_it(tmp_path: Path, frame: Frame) -> None:
    cloud = make_cloud()
    write_dot_splat(tmp_path / "a.splat", cloud, frame=frame)
    back = read_dot_splat(tmp_path / "a.splat", frame=frame)
    weight = cloud.log_scales.double().sum(dim=-1).exp() * cloud.opacity_logit.double().sigmoid()
    cloud = replace(cloud, **{n: getattr(cloud, n)[weight.argsort(descending=True)] for n in vars(cloud)})
    torch.testing.assert_close(back.means, cloud.means, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(back.log_scales, cloud.log_scales, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(0.5 + C0 * back.sh_dc, 0.5 + C0 * cloud.sh_dc, rtol=0.0, atol=0.5001 / 255)
    torch.testing.assert_close(back.opacity_logit.sigmoid(), cloud.opacity_logit.sigmoid(), rtol=0.0, atol=0.5001 / 255)
    unit = torch.nn.functional.normalize(cloud.quats, dim=-1)
    assert (back.quats - unit).abs().max() < ROTATION_ERROR
    assert back.sh_rest.shape == (50, 0, 3)
    size = cloud.log_scales.exp().amax(dim=-1)[:, None, None] ** 2
    assert ((covariances(back) - covariances(cloud)).abs() / size).max() < 4 * ROTATION_ERROR


def test_a_file_of_gsplats_is_read(tmp_path: Path) -> None:
    cloud = make_cloud()
    shown = (cloud.sh_dc[:, None], cloud.sh_rest)
    data = export_splats(cloud.means, cloud.log_scales, cloud.quats, cloud.opacity_logit, *shown, format="splat")
    (tmp_path / "a.splat").write_bytes(data)
    back = read_dot_splat(tmp_path / "a.splat", frame="train")
    # gsplat stores along a curve through space, so the rows are matched by their positions.
    nearest = torch.cdist(back.means, cloud.means).argmin(dim=-1)
    assert sorted(nearest.tolist()) == list(range(50))
    torch.testing.assert_close(back.means, cloud.means[nearest])
    torch.testing.assert_close(back.log_scales, cloud.log_scales[nearest], rtol=0.0, atol=1e-5)
    # It cuts colours and rotations off instead of rounding them: up to a whole byte.
    torch.testing.assert_close(C0 * back.sh_dc, C0 * cloud.sh_dc[nearest], rtol=0.0, atol=1.001 / 255)
    unit = torch.nn.functional.normalize(cloud.quats, dim=-1)[nearest]
    assert (back.quats - unit).abs().max() < 2 * ROTATION_ERROR


def row(
    means: tuple[float, ...] = (0.0, 0.0, 0.0),
    scales: tuple[float, ...] = (0.1, 0.1, 0.1),
    rgba: tuple[int, ...] = (255, 128, 0, 200),
    quats: tuple[int, ...] = (255, 128, 128, 128),
) -> bytes:
    return struct.pack("<3f3f4B4B", *means, *scales, *rgba, *quats)


def test_splats_that_cannot_be_shown_are_left_out_and_edges_stay_finite(tmp_path: Path) -> None:
    rows = [
        row(scales=(0.0, 0.1, 0.1), rgba=(0, 0, 0, 255)),
        row(means=(math.nan, 0.0, 0.0)),
        row(scales=(math.inf, 0.1, 0.1)),
        row(quats=(128, 128, 128, 128)),
        row(rgba=(0, 0, 0, 0)),
    ]
    (tmp_path / "a.splat").write_bytes(b"".join(rows))
    with pytest.warns(UserWarning, match=r"3 of its 5 splats are left out \(2 not finite, 1 without rotation\)"):
        cloud = read_dot_splat(tmp_path / "a.splat")
    assert len(cloud) == 2
    assert all(torch.isfinite(getattr(cloud, name)).all() for name in vars(cloud))
    torch.testing.assert_close(cloud.opacity_logit.sigmoid(), torch.tensor([1.0, 0.0]), rtol=0.0, atol=2e-6)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes are no splat"),
        (row() + row()[:31], "63 bytes are 1 splats and 31 bytes more"),
        (row() + row(scales=(0.1, -2.5, 0.1)), "scale_1 of its splat 1 is -2.5"),
        (row(means=(math.nan,) * 3) * 3, "none of its 3 splats is finite"),
        (row() * 5, "its 5 splats are more than the 4"),
    ],
    ids=["empty", "cut", "negative", "nan", "too many"],
)
def test_a_flawed_file_is_refused_in_one_line(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "bad.splat"
    path.write_bytes(data)
    with pytest.raises(UserError) as refused:
        read_dot_splat(path, max_splats=4)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_exists_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.splat"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="never overwritten"):
        write_dot_splat(path, make_cloud())
    assert path.read_bytes() == b"mine"
    write_dot_splat(path, make_cloud(3), overwrite=True)
    assert path.stat().st_size == 96


def test_a_cloud_of_nothing_visible_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the 50 splats can be shown"):
        write_dot_splat(tmp_path / "a.splat", replace(make_cloud(), opacity_logit=torch.full((50,), -9.0)))
    assert list(tmp_path.iterdir()) == []
