"""Splat files of other programs: gsplat's exporter, INRIA's layout as plyfile writes it, and what is neither."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat.exporter import export_splats
from plyfile import PlyData, PlyElement

from sdi_gs.errors import UserError
from sdi_gs.files.origin import Origin
from sdi_gs.runs.loading import load
from sdi_gs.splats.formats import SPLAT_FORMATS, SplatFormat, format_of, read_splats, write_splats
from sdi_gs.splats.splat_cloud import SplatCloud


def make_cloud(coefficients: int, count: int = 30) -> SplatCloud:
    generator = torch.Generator().manual_seed(coefficients)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return SplatCloud(
        means=draw(count, 3),
        log_scales=draw(count, 3) - 4.0,
        quats=torch.nn.functional.normalize(draw(count, 4), dim=-1),
        opacity_logit=draw(count).clamp(-4.0, 4.0),
        sh_dc=draw(count, 3),
        sh_rest=draw(count, coefficients, 3),
    )


def assert_same(actual: SplatCloud, expected: SplatCloud) -> None:
    for name in vars(expected):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), msg=name)


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_gsplats_export_is_read(tmp_path: Path, coefficients: int) -> None:
    cloud = make_cloud(coefficients)
    path = tmp_path / "gsplat.ply"
    export_splats(
        means=cloud.means,
        scales=cloud.log_scales,
        quats=cloud.quats,
        opacities=cloud.opacity_logit,
        sh0=cloud.sh_dc[:, None],
        shN=cloud.sh_rest,
        format="ply",
        save_to=str(path),
    )
    assert_same(read_splats(path, frame="train"), cloud)


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
@pytest.mark.parametrize("normals", [True, False])
def test_inrias_layout_is_read_with_normals_and_without(tmp_path: Path, coefficients: int, normals: bool) -> None:
    """Built as save_ply of its gaussian_model.py builds it: one tuple of attributes per splat."""
    cloud = make_cloud(coefficients)
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else []), *(f"f_dc_{i}" for i in range(3))]
    names += [f"f_rest_{i}" for i in range(3 * coefficients)]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    parts = [
        cloud.means,
        *([torch.zeros(30, 3)] if normals else []),
        cloud.sh_dc,
        cloud.sh_rest.transpose(1, 2).flatten(start_dim=1),
        cloud.opacity_logit[:, None],
        cloud.log_scales,
        cloud.quats,
    ]
    elements = np.empty(30, dtype=[(name, "f4") for name in names])
    elements[:] = list(map(tuple, np.concatenate([part.numpy() for part in parts], axis=1)))
    PlyData([PlyElement.describe(elements, "vertex")]).write(tmp_path / "point_cloud.ply")
    assert_same(read_splats(tmp_path / "point_cloud.ply", frame="train"), cloud)


def test_each_format_is_known_by_its_content_or_name(tmp_path: Path) -> None:
    cloud = make_cloud(3)
    write_splats(tmp_path / "a.ply", cloud, "ply", origin=Origin(prompt="made by hand"))
    write_splats(tmp_path / "a.splat", cloud, "splat")
    assert [format_of(tmp_path / name).name for name in ("a.ply", "a.splat")] == ["ply", "splat"]
    # A download that lost its name is still a .ply; a .splat has nothing but its name.
    (tmp_path / "a.ply").rename(tmp_path / "download.splat")
    assert_same(read_splats(tmp_path / "download.splat"), cloud)
    (tmp_path / "a.splat").rename(tmp_path / "A.SPLAT")
    assert len(read_splats(tmp_path / "A.SPLAT")) == 30


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.ksplat", b"\x1f\x8b\x08\x00" * 20, ".ksplat files are none of the formats that this program opens; give a"),
        ("a.spz", b"\x1f\x8b\x08\x00" * 20, "its compressed content is damaged"),
        ("splats", b"hello", "it is none of the formats"),
        ("a.ply", b"\x89PNG\r\n\x1a\n" * 9, "does not start with 'ply'"),
        ("a.splat", b"\x89PNG\r\n\x1a\n" + bytes(range(248, 128, -1))[:88], "in a .splat are never negative"),
        ("a.splat", b"\x89PNG\r\n\x1a\n", "8 bytes are 0 splats and 8 bytes more"),
    ],
    ids=["ksplat", "spz", "no suffix", "picture as ply", "picture as splat", "short picture as splat"],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as refused:
        read_splats(tmp_path / name)
    assert says in str(refused.value)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is a folder"):
        read_splats(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_splats(tmp_path / "absent.splat")


def test_a_file_with_too_many_splats_is_refused_by_every_format(tmp_path: Path) -> None:
    for row in [row for row in SPLAT_FORMATS if row.reads]:
        path = tmp_path / f"{row.name}{row.suffix}"
        row.write(path, make_cloud(0))
        assert len(read_splats(path, max_splats=30)) == 30
        with pytest.raises(UserError, match="its 30 splats are more than the 29"):
            read_splats(path, max_splats=29)


def test_rows_agree_with_their_modules() -> None:
    names = ["ply", "splat", "html", "spz", "sog", "compressed-ply", "gltf-splats", "usda", "inria"]
    assert [row.name for row in SPLAT_FORMATS] == names
    for row in SPLAT_FORMATS:
        codec = row.codec()
        assert (codec.read is not None, codec.write is not None) == (row.reads, row.writes)
        assert row.summary and row.noun


def test_a_loss_is_reported_only_where_there_is_one() -> None:
    losses = {row.name: [row.codec().loss(make_cloud(degree)) for degree in (0, 3)] for row in SPLAT_FORMATS}
    assert "an .spz does not hold: its nearest are written" in str(losses.pop("spz")[1])
    assert [found[0] for found in losses.values()] == [None] * len(losses)
    assert [name for name, found in losses.items() if found[1] is not None] == ["splat"]
    assert "one colour per Gaussian" in str(losses["splat"][1])


# A format as somebody else would add it: a module, and a row below.
NPZ = """
import io
import numpy as np
import torch
from sdi_gs.files import write_atomically
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.screening import require_at_most, screened_after_reading, screened_for_writing
from sdi_gs.splats.splat_cloud import SplatCloud

def write(path, cloud, *, options, origin, overwrite):
    kept, report = screened_for_writing(cloud, path, options.frame)
    content = io.BytesIO()
    np.savez(content, comments=origin.lines(), **{name: value.numpy() for name, value in vars(kept).items()})
    write_atomically(path, content.getvalue(), overwrite=overwrite)
    return report

def read(path, *, frame, max_splats):
    arrays = np.load(path)
    require_at_most(max_splats, len(arrays["means"]), path)
    cloud = SplatCloud(**{name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "comments"})
    return screened_after_reading(cloud, path, frame)

CODEC = SplatCodec(read=read, write=write, recognizes=lambda path, head: head.startswith(b"PK"))
"""
FOLDER = """
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.ply import read_splat_ply

def read(path, *, frame, max_splats):
    return read_splat_ply(path / "point_cloud" / "point_cloud.ply", frame=frame, max_splats=max_splats)

CODEC = SplatCodec(read=read, recognizes=lambda path, head: (path / "point_cloud").is_dir())
"""
PAGE = """
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.screening import screened_for_writing

def write(path, cloud, *, options, origin, overwrite):
    kept, report = screened_for_writing(cloud, path, options.frame)
    path.write_text(f"<title>{origin.prompt}</title>")
    return report

CODEC = SplatCodec(write=write, loss=lambda cloud: "a page is only looked at")
"""
NPZ_ROW = SplatFormat(
    name="npz", suffix=".npz", summary="numpy's arrays", noun="an .npz of splats", module="npz_splats"
)
FOLDER_ROW = SplatFormat(
    name="folder", suffix="", summary="a folder", noun="a folder of splats", module="folder_splats", writes=False
)
PAGE_ROW = SplatFormat(name="page", suffix=".html", summary="a page", noun="a page", module="page_splats", reads=False)
OWN_NAMES = ", ".join(row.name for row in SPLAT_FORMATS if row.writes)
RUN_WITH_ROWS = """
import sys
import sdi_gs.splats.formats as formats
from sdi_gs.splats.formats import SplatFormat
formats.SPLAT_FORMATS = (*formats.SPLAT_FORMATS, {rows})
from sdi_gs.commands.main import main
print([main(["export", *line.split()]) for line in sys.argv[1:]])
"""


@pytest.fixture
def own_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the modules of three formats, whose rows are in the table."""
    (tmp_path / "npz_splats.py").write_text(NPZ)
    (tmp_path / "folder_splats.py").write_text(FOLDER)
    (tmp_path / "page_splats.py").write_text(PAGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sdi_gs.splats.formats.SPLAT_FORMATS", (*SPLAT_FORMATS, NPZ_ROW, FOLDER_ROW, PAGE_ROW))
    return tmp_path


def test_a_new_format_is_one_module_and_one_row(own_formats: Path) -> None:
    cloud = make_cloud(3)
    write_splats(own_formats / "a.npz", cloud, "npz")
    assert format_of(own_formats / "a.npz") == NPZ_ROW
    assert_same(read_splats(own_formats / "a.npz"), cloud)
    # By content alone.
    (own_formats / "a.npz").rename(own_formats / "download")
    assert_same(read_splats(own_formats / "download"), cloud)


def test_a_format_that_is_only_written_is_never_read(own_formats: Path) -> None:
    path = own_formats / "a.html"
    write_splats(path, make_cloud(0), "page", origin=Origin(prompt="a blue robot"))
    assert "a blue robot" in path.read_text()
    with pytest.raises(UserError, match=r"none of the formats .* layout, an .npz of splats, a folder of splats, a run"):
        read_splats(path)
    with pytest.raises(UserError, match="page is only written"):
        read_splats(path, "page")


def test_a_folder_can_be_a_format_that_is_only_read(own_formats: Path) -> None:
    folder = own_formats / "trained"
    (folder / "point_cloud").mkdir(parents=True)
    write_splats(folder / "point_cloud/point_cloud.ply", make_cloud(3), "ply")
    assert_same(read_splats(folder), make_cloud(3))
    assert load(folder).run is None
    assert load(folder).representation.num_points == 30
    with pytest.raises(UserError, match=f"folder is only read; the formats to write are {OWN_NAMES}, npz, page"):
        write_splats(own_formats / "b", make_cloud(0), "folder")


@pytest.mark.slow
def test_the_command_line_takes_a_new_format(own_formats: Path) -> None:
    write_splats(own_formats / "a.ply", make_cloud(3), "ply")
    lines = ("a.ply --format npz", "a-export.npz --out b.ply", "a.ply --format page", "a.ply --format nothing")
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITH_ROWS.format(rows=f"{NPZ_ROW!r}, {PAGE_ROW!r}"), *lines],
        cwd=own_formats,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(own_formats), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 2]", done.stderr
    assert done.stdout.startswith("a-export.npz\n30 of 30 Gaussians, of a.ply\n")
    assert_same(read_splats(own_formats / "b.ply"), make_cloud(3))
    assert (own_formats / "a-export.html").exists()
    assert "a page is only looked at\n" in done.stderr
    assert f"format nothing: choose one of {OWN_NAMES}, npz, page, glb, obj, ply-mesh" in done.stderr
