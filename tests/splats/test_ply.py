"""Splat files, against plyfile's reading and writing of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from sdi_gs.errors import UserError
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.splats.screening import LOG_SCALE_WINDOW
from sdi_gs.splats.splat_cloud import VIEWER_FROM_TRAIN, SplatCloud, rotate_cloud


def make_cloud(count: int = 40, coefficients: int = 0) -> SplatCloud:
    generator = torch.Generator().manual_seed(count + coefficients)
    quats = torch.randn(count, 4, generator=generator)
    return SplatCloud(
        means=torch.randn(count, 3, generator=generator),
        log_scales=torch.randn(count, 3, generator=generator) - 4.0,
        quats=quats / quats.norm(dim=-1, keepdim=True),
        opacity_logit=torch.linspace(-5.0, 5.0, count),
        sh_dc=torch.randn(count, 3, generator=generator),
        sh_rest=torch.randn(count, coefficients, 3, generator=generator),
    )


def edited(cloud: SplatCloud, part: str, row: int, value: float) -> SplatCloud:
    """The cloud with one splat's values of one kind replaced."""
    values = getattr(cloud, part).clone()
    values[row] = value
    return replace(cloud, **{part: values})


def assert_clouds_close(actual: SplatCloud, expected: SplatCloud) -> None:
    for field in fields(SplatCloud):
        torch.testing.assert_close(
            getattr(actual, field.name), getattr(expected, field.name), rtol=1e-6, atol=2e-6, msg=field.name
        )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A good file of degree 1, to be spoilt."""
    path = tmp_path / "good.ply"
    write_splat_ply(path, make_cloud(coefficients=3))
    return path


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_plyfile_finds_the_standard_properties_in_their_order(tmp_path: Path, coefficients: int) -> None:
    write_splat_ply(tmp_path / "a.ply", make_cloud(coefficients=coefficients))
    ply = PlyData.read(tmp_path / "a.ply")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(3 * coefficients)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [element.name for element in ply.elements] == ["vertex"]
    assert [prop.name for prop in ply["vertex"].properties] == names
    assert {prop.val_dtype for prop in ply["vertex"].properties} == {"f4"}
    assert not ply.text
    assert ply.byte_order == "<"
    # 68 bytes per row at degree 0 and 248 at degree 3, behind the header.
    header = (tmp_path / "a.ply").read_bytes().index(b"end_header\n") + len(b"end_header\n")
    assert (tmp_path / "a.ply").stat().st_size == header + 40 * (68 + 12 * coefficients)


def test_plyfile_reads_raw_values_in_the_viewers_axes(tmp_path: Path) -> None:
    cloud = make_cloud(coefficients=8)
    write_splat_ply(tmp_path / "a.ply", cloud)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    x, y, z = cloud.means.numpy().T
    np.testing.assert_array_equal(np.stack([vertex["x"], vertex["y"], vertex["z"]]), np.stack([y, -z, -x]))
    for name in ("nx", "ny", "nz"):
        np.testing.assert_array_equal(vertex[name], 0.0)
    np.testing.assert_array_equal(vertex["opacity"], cloud.opacity_logit)
    np.testing.assert_array_equal(vertex["scale_1"], cloud.log_scales[:, 1])
    np.testing.assert_array_equal(vertex["f_dc_2"], cloud.sh_dc[:, 2])
    turned = rotate_cloud(cloud, VIEWER_FROM_TRAIN)
    np.testing.assert_array_equal(vertex["rot_0"], turned.quats[:, 0])
    # Channel-major: 8 of red, 8 of green, 8 of blue.
    np.testing.assert_array_equal(vertex["f_rest_5"], turned.sh_rest[:, 5, 0])
    np.testing.assert_array_equal(vertex["f_rest_9"], turned.sh_rest[:, 1, 1])
    np.testing.assert_array_equal(vertex["f_rest_23"], turned.sh_rest[:, 7, 2])


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
@pytest.mark.parametrize("frame", ["viewer", "train"])
def test_what_was_written_is_read_back(tmp_path: Path, coefficients: int, frame: str) -> None:
    cloud = make_cloud(coefficients=coefficients)
    report = write_splat_ply(tmp_path / "a.ply", cloud, frame=frame)  # pyright: ignore[reportArgumentType]
    back = read_splat_ply(tmp_path / "a.ply", frame=frame)  # pyright: ignore[reportArgumentType]
    assert_clouds_close(back, cloud)
    assert (report.total, report.written, report.clamped_scales) == (40, 40, 0)


def test_the_train_frame_leaves_the_axes_alone(tmp_path: Path) -> None:
    cloud = make_cloud()
    write_splat_ply(tmp_path / "a.ply", cloud, frame="train")
    np.testing.assert_array_equal(PlyData.read(tmp_path / "a.ply")["vertex"]["x"], cloud.means[:, 0])


def test_the_same_cloud_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.ply", "b.ply"):
        write_splat_ply(tmp_path / name, make_cloud(coefficients=15), comments=["seed 3"])
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_splats_that_cannot_be_shown_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    cloud = make_cloud(coefficients=3)
    cloud = edited(cloud, "means", 3, math.nan)
    cloud = edited(cloud, "sh_rest", 4, math.inf)
    cloud = edited(cloud, "opacity_logit", 5, math.log(1 / 254) - 1e-3)
    cloud = edited(cloud, "opacity_logit", 6, math.log(1 / 254) + 1e-3)
    cloud = edited(cloud, "quats", 7, 0.0)
    # Two reasons, one count.
    cloud = edited(edited(cloud, "quats", 8, 0.0), "log_scales", 8, math.nan)
    report = write_splat_ply(tmp_path / "a.ply", cloud)
    assert (report.total, report.written) == (40, 35)
    assert report.dropped_non_finite == 3
    assert report.dropped_transparent == 1
    assert report.dropped_zero_quaternion == 1
    kept = torch.tensor([row not in (3, 4, 5, 7, 8) for row in range(40)])
    assert_clouds_close(read_splat_ply(tmp_path / "a.ply"), cloud.select(kept))


def test_values_that_readers_overflow_on_are_clamped(tmp_path: Path) -> None:
    cloud = edited(edited(make_cloud(), "log_scales", 0, -90.0), "opacity_logit", 1, 80.0)
    cloud = replace(cloud, quats=cloud.quats * 7.0)
    report = write_splat_ply(tmp_path / "a.ply", cloud)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    assert report.clamped_scales == 1
    assert vertex["scale_0"][0] == LOG_SCALE_WINDOW[0]
    assert 1 / (1 + math.exp(-vertex["opacity"][1])) == pytest.approx(1 - 1e-6, abs=1e-9)
    norms = np.sqrt(sum(vertex[f"rot_{i}"].astype(np.float64) ** 2 for i in range(4)))
    np.testing.assert_allclose(norms, 1.0, atol=1e-6)


def test_a_cloud_of_nothing_visible_is_refused(tmp_path: Path) -> None:
    cloud = replace(make_cloud(), opacity_logit=torch.full((40,), -9.0))
    with pytest.raises(UserError, match="none of the 40 splats can be shown .*40 transparent"):
        write_splat_ply(tmp_path / "a.ply", cloud)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "message"), [("log_scales", "scales are positive"), ("opacity_logit", "opacities lie in")]
)
def test_activated_values_are_refused_both_ways(tmp_path: Path, part: str, message: str) -> None:
    cloud = make_cloud()
    activated = torch.exp(cloud.log_scales) if part == "log_scales" else torch.sigmoid(cloud.opacity_logit)
    spoilt = replace(cloud, **{part: activated})
    with pytest.raises(UserError, match=message):
        write_splat_ply(tmp_path / "a.ply", spoilt)
    assert list(tmp_path.iterdir()) == []

    write_splat_ply(tmp_path / "raw.ply", cloud)
    ply = PlyData.read(tmp_path / "raw.ply")
    columns = ("scale_0", "scale_1", "scale_2") if part == "log_scales" else ("opacity",)
    for name in columns:
        values = ply["vertex"].data[name].astype(np.float64)
        ply["vertex"].data[name] = np.exp(values) if part == "log_scales" else 1 / (1 + np.exp(-values))
    ply.write(tmp_path / "activated.ply")
    with pytest.raises(UserError, match=message):
        read_splat_ply(tmp_path / "activated.ply")


@pytest.mark.parametrize("size", [100.0, 5000.0])
def test_an_object_of_large_splats_is_read_and_written(tmp_path: Path, size: float) -> None:
    """A scan in centimetres or millimetres: every standard deviation exceeds 1."""
    cloud = make_cloud()
    spread = torch.rand(40, 3, generator=torch.Generator().manual_seed(2))
    large = replace(cloud, means=size * cloud.means, log_scales=math.log(0.011 * size) + spread)
    assert bool((large.log_scales > 0).all())
    write_splat_ply(tmp_path / "a.ply", large)
    assert_clouds_close(read_splat_ply(tmp_path / "a.ply"), large)


def test_deviations_of_a_large_object_are_refused(tmp_path: Path) -> None:
    cloud = make_cloud()
    spread = torch.rand(40, 3, generator=torch.Generator().manual_seed(2))
    with pytest.raises(UserError, match="wider than the cloud itself, so they look like standard deviations"):
        write_splat_ply(tmp_path / "a.ply", replace(cloud, means=100 * cloud.means, log_scales=torch.exp(2.5 * spread)))


def test_one_large_splat_and_logits_of_zero_are_read(tmp_path: Path) -> None:
    cloud = make_cloud()
    one = replace(cloud, log_scales=cloud.log_scales.abs() + 1.0).select(torch.arange(40) == 3)
    half = replace(cloud, opacity_logit=torch.zeros(40))
    for name, kept in (("one.ply", one), ("half.ply", half)):
        write_splat_ply(tmp_path / name, kept)
        assert_clouds_close(read_splat_ply(tmp_path / name), kept)


def test_a_file_that_exists_is_kept_unless_told_otherwise(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(UserError, match="never overwritten"):
        write_splat_ply(written, make_cloud(7))
    assert written.read_bytes() == before
    write_splat_ply(written, make_cloud(7), overwrite=True)
    assert len(read_splat_ply(written)) == 7


def test_comments_stay_one_ascii_line_each(tmp_path: Path) -> None:
    comments = ["prompt a blue\nend_header\nrobot", "prompt ein Bär", "x" * 5000]
    write_splat_ply(tmp_path / "a.ply", make_cloud(), comments=comments)
    seen = PlyData.read(tmp_path / "a.ply")["vertex"].comments
    assert seen[:2] == ["prompt a blue end_header robot", "prompt ein B\\xe4r"]
    assert len(seen[2]) == 1000
    assert len(read_splat_ply(tmp_path / "a.ply")) == 40
    # spz wants these three lines first.
    start = (tmp_path / "a.ply").read_bytes().split(b"\n")[:3]
    assert start == [b"ply", b"format binary_little_endian 1.0", b"element vertex 40"]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_other_orders_types_and_properties_are_read(tmp_path: Path, byte_order: str) -> None:
    cloud = make_cloud(coefficients=3)
    write_splat_ply(tmp_path / "a.ply", cloud)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    names = [name for name in reversed(vertex.dtype.names) if name not in ("nx", "ny", "nz")]
    other = np.zeros(40, dtype=[*((name, "f8") for name in names), ("label", "u1")])
    for name in names:
        other[name] = vertex[name]
    camera = PlyElement.describe(np.zeros(2, dtype=[("fov", "f4")]), "camera")
    elements = [PlyElement.describe(other, "vertex"), camera]
    PlyData(elements, byte_order=byte_order, comments=["hello"]).write(tmp_path / "b.ply")  # pyright: ignore[reportArgumentType]
    assert_clouds_close(read_splat_ply(tmp_path / "b.ply"), cloud)


def test_splats_of_a_foreign_file_that_cannot_be_shown_are_left_out(written: Path, tmp_path: Path) -> None:
    ply = PlyData.read(written)
    ply["vertex"].data["f_rest_2"][0] = np.nan
    for i in range(4):
        ply["vertex"].data[f"rot_{i}"][1] = 0.0
    ply.write(tmp_path / "b.ply")
    expected = make_cloud(coefficients=3).select(torch.arange(40) >= 2)
    with pytest.warns(UserWarning, match=r"2 of its 40 splats are left out \(1 not finite, 1 without rotation\)"):
        back = read_splat_ply(tmp_path / "b.ply")
    assert_clouds_close(back, expected)


def swapped(old: bytes, new: bytes) -> Callable[[bytes, bytes], bytes]:
    """A flaw that is a few other bytes in the header."""

    def spoil(header: bytes, body: bytes) -> bytes:
        assert old in header
        return header.replace(old, new) + body

    return spoil


POINTS = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
    b"property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
)
MESH = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float x\nend_header\n"

FLAWS: dict[str, tuple[Callable[[bytes, bytes], bytes], str]] = {
    "cut in its vertices": (
        lambda header, body: header + body[:-1],
        "cut short, 40 splats need 4160 bytes and 4159 are there",
    ),
    "cut in its header": (lambda header, body: header[:100], "no end_header"),
    "empty": (lambda header, body: b"", "does not start with 'ply'"),
    "no ply": (lambda header, body: b"\x89PNG\r\n\x1a\n" + body, "does not start with 'ply'"),
    "binary rows after an ASCII header": (
        swapped(b"binary_little_endian", b"ascii"),
        "row 0 of this ASCII .ply",
    ),
    "huge count": (swapped(b"vertex 40", b"vertex 4000000"), "cut short, 4000000 splats need"),
    "absurd count": (swapped(b"vertex 40", b"vertex " + b"9" * 30), "header says 'element vertex 999"),
    "over the limit": (
        swapped(b"vertex 40", b"vertex 10000001"),
        "10000001 splats are more than the 10000000",
    ),
    "negative count": (swapped(b"vertex 40", b"vertex -40"), "header says 'element vertex -40'"),
    "no vertices": (swapped(b"vertex 40", b"vertex 0"), "does not describe any vertices"),
    "endless header": (
        swapped(b"end_header\n", b"comment " + b"x" * 200_000 + b"\nend_header\n"),
        "no end_header in its first",
    ),
    "half a point": (lambda header, body: MESH + bytes(4), "lack y, z, f_dc_0, f_dc_1, f_dc_2, opacity, scale_0"),
    "points": (
        lambda header, body: POINTS + bytes(15),
        "a cloud of points or a mesh and no splats, its vertices lack opacity, scale_0",
    ),
    "compressed": (
        swapped(b"element vertex", b"element chunk 1\nproperty float min_x\nelement vertex"),
        "it is a compressed .ply (PlayCanvas' chunks); save it as a plain .ply",
    ),
    "no opacity": (swapped(b" opacity", b" density"), "lack opacity;"),
    "harmonics amiss": (swapped(b" f_rest_8", b" f_more_8"), "8 f_rest_* properties"),
    "gap in harmonics": (swapped(b" f_rest_8", b" f_rest_9"), "9 f_rest_* properties but no f_rest_8"),
    "list property": (
        swapped(b"property float nx", b"property list uchar int nx"),
        "header says 'property list uchar int nx'",
    ),
    "twice the same": (swapped(b"float ny", b"float nx"), "properties of different names"),
    "unknown type": (swapped(b"float nx", b"half nx"), "header says 'property half nx'"),
    "faces first": (
        swapped(b"element vertex", b"element face 3\nelement vertex"),
        "header says 'element face 3'",
    ),
    "no format": (swapped(b"format binary_little_endian 1.0\n", b""), "does not describe any vertices"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_file_is_refused_in_one_line(written: Path, flaw: str) -> None:
    spoil, message = FLAWS[flaw]
    data = written.read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    written.write_bytes(spoil(data[:end], data[end:]))
    with pytest.raises(UserError) as caught:
        read_splat_ply(written)
    assert message in str(caught.value)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "comment",
    [
        # Each holds a byte that str.splitlines() or str.split() takes for the end of a line or of a word.
        "comment Ångström … 5\u2028\u00a0".encode(),
        b"comment a\x0belement face 3\x0cproperty\x1cend_header\x1d\x1e\x85x",
        b"obj_info \x85element vertex 3\x00",
        b"comment end_header",
        b"comment",
        b"   comment \xff\xfe",
        b"comment old\rend_header\relement vertex 9",
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \t\n"])
def test_comments_are_ignored_whatever_bytes_they_hold(
    written: Path, tmp_path: Path, comment: bytes, end: bytes
) -> None:
    data = written.read_bytes()
    header, _, body = data.partition(b"end_header\n")
    header = header.replace(b"format", comment + b"\nformat", 1) + comment + b"\n"
    path = tmp_path / "b.ply"
    path.write_bytes(header.replace(b"\n", end) + b"end_header" + end + body)
    assert_clouds_close(read_splat_ply(path), make_cloud(coefficients=3))


@pytest.mark.parametrize("text", ["٤٠", "4²", "40\u00a0", "+40", "4_0"])
def test_a_count_is_made_of_ascii_digits(written: Path, text: str) -> None:
    written.write_bytes(written.read_bytes().replace(b"vertex 40", f"vertex {text}".encode()))
    with pytest.raises(UserError, match="its header says 'element vertex "):
        read_splat_ply(written)


@pytest.mark.filterwarnings("ignore:.*good.ply")
def test_random_damage_to_the_header_is_refused_or_harmless(written: Path) -> None:
    data = written.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        spoilt = bytearray(data)
        spoilt[rng.integers(data.index(b"end_header"))] = rng.integers(256)
        written.write_bytes(spoilt)
        try:
            read_splat_ply(written)
        except UserError:
            refused += 1
    # A letter in a normal's name, or a digit that makes the file longer than it need be, does no harm.
    assert refused > 150


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is a folder"):
        read_splat_ply(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_splat_ply(tmp_path / "absent.ply")


def test_a_file_of_nothing_but_nan_is_refused(written: Path, tmp_path: Path) -> None:
    ply = PlyData.read(written)
    ply["vertex"].data["x"] = np.nan
    ply.write(tmp_path / "nan.ply")
    with pytest.raises(UserError, match="none of its 40 splats is finite"):
        read_splat_ply(tmp_path / "nan.ply")
