"""Clouds that runs start from: shells, splats, points, surfaces, and files that are none of these."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.formats import write_mesh
from sdi_gs.representations.gaussians import SH_C0, Gaussians
from sdi_gs.representations.initial_gaussians import gaussian_ball, initial_gaussians
from sdi_gs.representations.mesh_files import sample_mesh
from sdi_gs.representations.point_files import read_points
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.splats.formats import write_splats
from sdi_gs.splats.ply import write_splat_ply

CPU = torch.device("cpu")
FLOATS = [(name, "f4") for name in "xyz"]
BYTES = [(name, "u1") for name in ("red", "green", "blue")]


def start(seed: int = 0, **changes: Any) -> Gaussians:
    config = replace(GaussiansConfig(num_initial=200), **changes)
    return initial_gaussians(config, generator=torch.Generator().manual_seed(seed), device=CPU)


def colours(gaussians: Gaussians) -> Tensor:  # [N, 3]
    return 0.5 + SH_C0 * gaussians.params["sh0"].detach()[:, 0]


def write_points(path: Path, points: np.ndarray, rgb: np.ndarray | None = None) -> Path:
    """A binary point cloud by another hand."""
    table = np.empty(len(points), dtype=FLOATS + (BYTES if rgb is not None else []))
    for index, name in enumerate("xyz"):
        table[name] = points[:, index]
    for index, (name, _) in enumerate(BYTES if rgb is not None else []):
        table[name] = rgb[:, index]  # pyright: ignore[reportOptionalSubscript]
    PlyData([PlyElement.describe(table, "vertex")]).write(path)
    return path


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)


def test_a_ball_is_what_it_always_was() -> None:
    config = GaussiansConfig(num_initial=50)
    expected = gaussian_ball(config, generator=torch.Generator().manual_seed(4), device=CPU)
    found = initial_gaussians(config, generator=torch.Generator().manual_seed(4), device=CPU)
    for name, value in expected.params.items():
        assert torch.equal(found.params[name], value)


def test_a_shell_lies_on_its_sphere_and_covers_it() -> None:
    params = start(init="shell", num_initial=5000, initial_radius=0.6).params
    means = params["means"].detach().double()
    torch.testing.assert_close(means.norm(dim=-1), torch.full((5000,), 0.6).double())
    # Heights of a uniform sphere are uniform (Archimedes).
    heights = (means[:, 2] / 0.6).sort().values
    uniform = 2.0 * (torch.arange(5000) + 0.5) / 5000 - 1.0
    assert (heights - uniform).abs().max() < 2.0 * 1.63 / math.sqrt(5000), "Kolmogorov-Smirnov at 1 %"
    # N squares of one width's side have the area of the sphere.
    assert (params["scales"].exp()[:, 0].square().sum() / (4 * math.pi * 0.36)).item() == pytest.approx(1.0)


def test_splats_come_back_as_they_were_exported(tmp_path: Path) -> None:
    trained = gaussian_ball(GaussiansConfig(num_initial=80), generator=torch.Generator().manual_seed(1), device=CPU)
    write_splat_ply(tmp_path / "a.ply", trained.splats())
    found = start(init="splats", init_from=str(tmp_path / "a.ply"))
    for name, value in trained.params.items():
        torch.testing.assert_close(found.params[name].detach(), value.detach(), rtol=0.0, atol=1e-5)


def test_splats_can_be_fitted_and_lose_harmonics_that_do_not_train(tmp_path: Path) -> None:
    params = {name: value.detach() for name, value in start(num_initial=40).params.items()}
    trained = Gaussians(params | {"means": 10.0 * params["means"] + 3.0, "shN": torch.ones(40, 3, 3)})
    write_splat_ply(tmp_path / "a.ply", trained.splats(), frame="train")
    path = str(tmp_path / "a.ply")
    found = start(init="splats", init_from=path, init_fit=True, init_axes="world", initial_radius=0.5)
    assert "shN" not in found.params
    means = found.params["means"].detach()
    assert means.norm(dim=-1).max().item() == pytest.approx(0.5)
    factor = torch.pdist(means).max() / torch.pdist(trained.params["means"].detach()).max()
    torch.testing.assert_close(
        found.params["scales"].exp(), trained.params["scales"].exp() * factor, rtol=1e-4, atol=0.0
    )


def test_points_become_round_gaussians_as_wide_as_their_neighbours_are_far(tmp_path: Path, points: np.ndarray) -> None:
    path = write_points(tmp_path / "p.ply", points)
    gaussians = start(init="points", init_from=str(path), init_fit=False, initial_opacity=0.3)
    means = gaussians.params["means"].detach()
    assert torch.equal(means, torch.from_numpy(points))
    distances = torch.cdist(means.double(), means.double()).fill_diagonal_(torch.inf)
    expected = distances.sort(dim=-1).values[:, :3].mean(dim=-1)
    middle = 0.5 * (means.amax(dim=0) + means.amin(dim=0))
    radius = (means - middle).norm(dim=-1).max().item()
    widths = gaussians.params["scales"].exp().detach()
    limited = expected.clamp(1e-3 * radius, 0.1 * radius).float()[:, None].expand(-1, 3)
    torch.testing.assert_close(widths, limited, rtol=1e-4, atol=0.0)
    assert (limited != expected.float()[:, None]).any(), "strays are limited"
    torch.testing.assert_close(torch.sigmoid(gaussians.params["opacities"]), torch.full((300,), 0.3))
    torch.testing.assert_close(colours(gaussians).mean(dim=0), torch.full((3,), 0.5), rtol=0.0, atol=0.02)


def test_points_bring_their_colours(tmp_path: Path, points: np.ndarray) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, size=(300, 3)).astype(np.uint8)
    path = write_points(tmp_path / "p.ply", points, rgb)
    gaussians = start(init="points", init_from=str(path))
    torch.testing.assert_close(colours(gaussians), torch.from_numpy(rgb / 255.0).float(), rtol=0.0, atol=1e-6)


def test_points_are_fitted_into_the_radius_unless_asked_otherwise(tmp_path: Path, points: np.ndarray) -> None:
    path = write_points(tmp_path / "p.ply", 40.0 * points + 100.0)
    means = start(init="points", init_from=str(path), initial_radius=0.7).params["means"].detach()
    assert means.norm(dim=-1).max().item() == pytest.approx(0.7)
    torch.testing.assert_close(means.amax(dim=0), -means.amin(dim=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        # Where up and front of a file end up: z and x.
        ("world", [[1.0, 2.0, 3.0]]),
        ("viewer", [[-3.0, 1.0, -2.0]]),
        ("y-up", [[3.0, 1.0, 2.0]]),
    ],
)
def test_axes_of_a_file_are_turned_to_the_worlds(tmp_path: Path, axes: Any, expected: list[list[float]]) -> None:
    others = np.random.default_rng(0).normal(size=(20, 3))
    path = write_points(tmp_path / "p.ply", np.concatenate([[[1.0, 2.0, 3.0]], others]))
    found = start(init="points", init_from=str(path), init_axes=axes, init_fit=False)
    torch.testing.assert_close(found.params["means"].detach()[:1], torch.tensor(expected), rtol=0.0, atol=1e-5)


def two_triangles(**colours_of: Any) -> Any:
    """A triangle of area 6 at z = 0 and one of area 2 at z = 5."""
    import trimesh

    vertices = [[0, 0, 0], [4, 0, 0], [0, 3, 0], [0, 0, 5], [2, 0, 5], [0, 2, 5]]
    return trimesh.Trimesh(vertices, [[0, 1, 2], [3, 4, 5]], process=False, **colours_of)


def test_a_surface_is_sampled_by_its_area(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    two_triangles().export(path)
    points, rgb = sample_mesh(path, 8000, generator=torch.Generator().manual_seed(0))
    assert rgb is None
    low = points[points[:, 2] == 0.0].double()
    assert len(low) + int((points[:, 2] == 5.0).sum()) == 8000
    # Binomial with p = 3/4, four deviations.
    assert abs(len(low) / 8000 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 8000)
    assert ((low[:, 0] >= 0) & (low[:, 1] >= 0) & (low[:, 0] / 4 + low[:, 1] / 3 <= 1 + 1e-6)).all()
    # Uniform over a triangle: the mean is its centroid, and each coordinate's variance is side^2 / 18.
    torch.testing.assert_close(low.mean(dim=0), torch.tensor([4 / 3, 1.0, 0.0]).double(), rtol=0.0, atol=0.05)
    torch.testing.assert_close(low[:, :2].var(dim=0), torch.tensor([16 / 18, 0.5]).double(), rtol=0.06, atol=0.0)


def test_a_seed_decides_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    two_triangles().export(path)
    first, again, other = (start(seed, init="mesh", init_from=str(path)).params["means"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_mesh_brings_the_colours_of_its_faces_or_corners(tmp_path: Path) -> None:
    red, blue = [255, 0, 0, 255], [0, 0, 255, 255]
    by_face, by_corner = tmp_path / "faces.ply", tmp_path / "corners.ply"
    two_triangles(face_colors=[red, blue]).export(by_face)
    two_triangles(vertex_colors=[red, blue, red, blue, blue, blue]).export(by_corner)
    points, rgb = sample_mesh(by_face, 500, generator=torch.Generator().manual_seed(0))
    assert rgb is not None
    low = points[:, 2] == 0.0
    assert torch.equal(rgb[low], torch.tensor([1.0, 0.0, 0.0]).expand(int(low.sum()), 3))
    assert torch.equal(rgb[~low], torch.tensor([0.0, 0.0, 1.0]).expand(int((~low).sum()), 3))
    points, rgb = sample_mesh(by_corner, 500, generator=torch.Generator().manual_seed(0))
    assert rgb is not None
    # Blue grows towards the corner at x = 4.
    low = points[:, 2] == 0.0
    torch.testing.assert_close(rgb[low, 2], points[low, 0] / 4.0, rtol=0.0, atol=1e-5)


def test_an_exported_glb_brings_its_colours(tmp_path: Path) -> None:
    # Its colours are linear, in 16 bits, and accompany a material.
    rgb = np.tile([[0.8, 0.2, 0.02]], (3, 1))
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    normals = np.tile([[0.0, 0.0, 1.0]], (3, 1))
    mesh = TriangleMesh(vertices=corners, faces=np.array([[0, 1, 2]]), normals=normals, rgb=rgb)
    write_mesh(tmp_path / "mesh.glb", mesh, "glb")
    _, colours_there = sample_mesh(tmp_path / "mesh.glb", 50, generator=torch.Generator().manual_seed(0))
    assert colours_there is not None
    torch.testing.assert_close(colours_there, torch.from_numpy(rgb[:1]).float().expand(50, 3), rtol=0.0, atol=2.5e-3)


def test_a_mesh_of_plain_material_brings_no_colours(tmp_path: Path) -> None:
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    box = trimesh.creation.box()
    box.visual = TextureVisuals(material=PBRMaterial(metallicFactor=0.0))
    box.export(tmp_path / "box.glb")
    points, colours_there = sample_mesh(tmp_path / "box.glb", 50, generator=torch.Generator().manual_seed(0))
    assert points.shape == (50, 3)
    assert colours_there is None


def test_the_parts_of_a_scene_start_together(tmp_path: Path) -> None:
    import trimesh

    parts = [trimesh.creation.box(bounds=[[0, 0, 0], [1, 1, 1]]), trimesh.creation.box(bounds=[[3, 0, 0], [4, 1, 1]])]
    trimesh.Scene(parts).export(tmp_path / "scene.glb")
    points, _ = sample_mesh(tmp_path / "scene.glb", 400, generator=torch.Generator().manual_seed(0))
    assert ((points[:, 0] <= 1.0) | (points[:, 0] >= 3.0)).all()
    assert 120 < int((points[:, 0] <= 1.0).sum()) < 280


def test_a_mesh_is_taken_as_y_up(tmp_path: Path) -> None:
    import trimesh

    tower = trimesh.creation.box(bounds=[[-0.1, 0.0, -0.2], [0.1, 5.0, 0.2]])
    tower.export(tmp_path / "tower.obj")
    means = start(init="mesh", init_from=str(tmp_path / "tower.obj"), num_initial=2000).params["means"].detach()
    extent = means.amax(dim=0) - means.amin(dim=0)
    assert extent.argmax() == 2
    # The file's depth, z, is the world's front, x.
    assert (extent[0] / extent[1]).item() == pytest.approx(2.0, rel=0.05)


def test_what_a_source_is_need_not_be_said(tmp_path: Path, points: np.ndarray) -> None:
    trained = gaussian_ball(GaussiansConfig(num_initial=80), generator=torch.Generator().manual_seed(1), device=CPU)
    write_splat_ply(tmp_path / "splats.ply", trained.splats())
    write_splats(tmp_path / "splats.splat", trained.splats(), "splat")
    write_points(tmp_path / "points.ply", points)
    two_triangles().export(tmp_path / "mesh.glb")
    kinds = {"splats.ply": "splats", "splats.splat": "splats", "points.ply": "points", "mesh.glb": "mesh"}
    for name, kind in kinds.items():
        source = str(tmp_path / name)
        said, seen = (start(init=init, init_from=source, num_initial=40) for init in (kind, None))
        for key, value in said.params.items():
            assert torch.equal(value, seen.params[key]), (name, key)


def test_a_mesh_starts_alike_from_every_kind_of_file(tmp_path: Path) -> None:
    mesh = two_triangles()
    mesh.export(tmp_path / "mesh.obj")
    mesh.export(tmp_path / "mesh.ply")
    mesh.export(tmp_path / "words.ply", encoding="ascii")
    mesh.export(tmp_path / "mesh.off")
    (tmp_path / "mesh.off").rename(tmp_path / "download")
    expected = start(init_from=str(tmp_path / "mesh.obj")).params["means"]
    for name in ("mesh.ply", "words.ply", "download"):
        torch.testing.assert_close(start(init_from=str(tmp_path / name)).params["means"], expected, msg=name)


def test_points_are_read_from_text_and_behind_other_rows(tmp_path: Path, points: np.ndarray) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, size=(300, 3)).astype(np.uint8)
    path = write_points(tmp_path / "p.ply", points, rgb)
    elements = PlyData.read(path).elements
    camera = PlyElement.describe(np.ones(2, dtype=[("fov", "f8"), ("id", "u1")]), "camera")
    PlyData(elements, text=True).write(tmp_path / "text.ply")
    PlyData([camera, *elements], text=True).write(tmp_path / "text behind.ply")
    PlyData([camera, *elements]).write(tmp_path / "behind.ply")
    (tmp_path / "mac.ply").write_bytes((tmp_path / "text.ply").read_bytes().replace(b"\n", b"\r"))
    (tmp_path / "dos.ply").write_bytes((tmp_path / "text.ply").read_bytes().replace(b"\n", b"\r\n"))
    expected = start(init_from=str(path))
    for name in ("text.ply", "text behind.ply", "behind.ply", "mac.ply", "dos.ply"):
        found = start(init_from=str(tmp_path / name))
        for key, value in expected.params.items():
            torch.testing.assert_close(found.params[key], value, msg=f"{name} {key}")


def test_points_without_a_place_or_colour_are_left_out_and_counted(tmp_path: Path, points: np.ndarray) -> None:
    rgb = np.zeros((300, 3))
    spoilt = points.copy()
    # A scan has NaN where nothing was seen.
    spoilt[:20, 1], spoilt[20:25, 0], spoilt[25, 2] = np.nan, 1e12, np.inf
    path = write_points(tmp_path / "p.ply", spoilt, rgb)
    with pytest.warns(UserWarning, match=r"26 of its 300 points are left out \(21 not finite, 5 farther than 1e\+10\)"):
        found = start(init_from=str(path))
    assert len(found) == 274
    expected = start(init_from=str(write_points(tmp_path / "q.ply", points[26:], rgb[26:])))
    torch.testing.assert_close(found.params["means"], expected.params["means"])


@pytest.mark.parametrize("kind", ["points", "integers", "text", "mesh"])
def test_heights_of_a_survey_survive(tmp_path: Path, kind: str) -> None:
    """Metres from an equator, whose heights differ by less than float32 can tell there."""
    generator = np.random.default_rng(0)
    places = np.array([500_000.0, 4_000_000.0, 100.0]) + generator.uniform(0.0, 20.0, size=(2000, 3))
    places[:, 1] = 4_000_000.0 + np.linspace(0.0, 1.0, 2000)
    scale = 1000.0 if kind == "integers" else 1.0
    table = np.empty(2000, dtype=[(name, "i4" if kind == "integers" else "f8") for name in "xyz"])
    for axis in range(3):
        # Millimetres; the equator is too far for an int32 of them.
        table["xyz"[axis]] = (places[:, axis] - (2_000_000.0 if kind == "integers" and axis == 1 else 0.0)) * scale
    path = tmp_path / "p.ply"
    PlyData([PlyElement.describe(table, "vertex")], text=kind == "text").write(path)
    if kind == "mesh":
        lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in places.tolist()]
        path.write_text("\n".join([*lines, *(f"f {i} {i + 1} {i + 2}" for i in range(1, 1999)), ""]))
    with pytest.warns(UserWarning, match="lies around .* too far from the origin for 32-bit numbers"):
        means = start(init_from=str(path), num_initial=2000).params["means"].detach()
    height = means[:, 0] if kind == "mesh" else means[:, 1]
    # Without the shift there are 5 heights: steps of a quarter of a metre.
    assert len(height.unique()) > 1000


@pytest.mark.parametrize("names", [("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")])
@pytest.mark.parametrize(("kind", "full"), [("u1", 255), ("u2", 65535), ("i4", 255), ("f4", 255), ("f4", 1)])
def test_colours_of_points_have_many_names_and_types(
    tmp_path: Path, points: np.ndarray, names: tuple[str, str, str], kind: str, full: int
) -> None:
    table = np.empty(300, dtype=FLOATS + [(name, kind) for name in names])
    for index, name in enumerate("xyz"):
        table[name] = points[:, index]
    shares = np.array([1.0, 0.5, 0.25])
    for name, share in zip(names, shares, strict=True):
        table[name] = share * full
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "p.ply")
    _, rgb = read_points(tmp_path / "p.ply")
    assert rgb is not None
    np.testing.assert_allclose(rgb[0], shares, atol=1.0 / full if full > 1 else 1e-6)


def bad_files(folder: Path) -> dict[str, tuple[str, Path, str]]:
    """Kind asked for, file, and what is said."""
    generator = np.random.default_rng(0)
    cloud = generator.normal(size=(20, 3)).astype(np.float32)
    broken = np.full_like(cloud, np.nan)
    (folder / "empty.ply").write_bytes(b"")
    (folder / "words.obj").write_text("no mesh at all")
    (folder / "words.glb").write_text("no mesh at all")
    none = np.zeros((0, 3), dtype=np.float32)
    return {
        "missing": ("points", folder / "none.ply", "there is no such file"),
        "missing mesh": ("mesh", folder / "none.glb", "there is no such file"),
        "folder": ("points", folder, "it is a folder"),
        "empty": ("points", folder / "empty.ply", "it is an empty file; copy or export it anew"),
        "no points": ("points", write_points(folder / "zero.ply", none), "does not describe any vertices"),
        "NaN": ("points", write_points(folder / "nan.ply", broken), "none of its 20 points is finite (20 not finite)"),
        "one cell": ("points", write_points(folder / "cell.ply", 1e-15 * cloud), "all of its 20 points coincide"),
        "points as splats": (
            "splats",
            write_points(folder / "points.ply", cloud),
            "as splats: it is a .ply of 20 points; use --init points, or leave --init out",
        ),
        "mesh as splats": ("splats", folder / "words.obj", "it is a mesh (obj); use --init mesh"),
        "points as a mesh": ("mesh", folder / "points.ply", "it is a .ply of 20 points; use --init points"),
        "mesh as points": ("points", folder / "words.obj", "it is a mesh (obj); use --init mesh"),
        "words": ("mesh", folder / "words.obj", "has no faces"),
        "words as glb": ("mesh", folder / "words.glb", "as a mesh: "),
        "mesh as a run": ("run", folder / "words.obj", "as run: it is a mesh (obj); use --init mesh, or leave"),
        "points as a run": ("run", folder / "points.ply", "it is a .ply of 20 points; use --init points, or leave"),
        "one place": ("points", write_points(folder / "one.ply", np.ones((9, 3))), "all of its 9 points coincide"),
        "too few": ("points", write_points(folder / "few.ply", cloud[:3]), "3 points are too few"),
    }


BAD_FILES = (
    *(
        "missing",
        "missing mesh",
        "folder",
        "empty",
        "no points",
        "NaN",
        "one cell",
        "points as splats",
        "points as a mesh",
    ),
    *("mesh as points", "mesh as splats", "words", "words as glb", "one place", "too few"),
)


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_will_not_do_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    kind, path, says = bad_files(tmp_path)[name]
    with pytest.raises(UserError) as refused:
        start(init=kind, init_from=str(path))
    assert says in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_colours_of_floats_and_of_bytes_mean_the_same(tmp_path: Path, points: np.ndarray) -> None:
    table = np.empty(300, dtype=FLOATS + [(name, "f4") for name in ("red", "green", "blue")])
    for index, name in enumerate("xyz"):
        table[name] = points[:, index]
    for name in ("red", "green", "blue"):
        table[name] = 0.25
    PlyData([PlyElement.describe(table, "vertex")]).write(tmp_path / "p.ply")
    _, rgb = read_points(tmp_path / "p.ply")
    assert rgb is not None
    assert torch.equal(rgb, torch.full((300, 3), 0.25))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"init": "cube"}, "init must be one of ball, shell, splats, points, mesh, run, got 'cube'"),
        ({"init": "ball", "init_from": "a.ply"}, "init ball does not start from a file, got init_from 'a.ply'"),
        ({"init": "mesh"}, "init 'mesh' needs init_from"),
        ({"init_axes": "up"}, "init_axes must be one of world, viewer, y-up"),
        ({"num_initial": 10_000_001}, "num_initial must be 1 to 10000000"),
        ({"axis_ratio_cap": 0.5}, "axis_ratio_cap must be 1 to 1000000, got 0.5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        GaussiansConfig(**changes)
