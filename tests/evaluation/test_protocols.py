"""From where results are scored: the cameras of the published protocols, and what single options change."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.evaluation.extent import Extent
from sdi_gs.evaluation.icosphere import icosphere
from sdi_gs.evaluation.protocol_views import cameras_of
from sdi_gs.settings.protocols import PROTOCOLS, ProtocolName, ViewOptions, protocol_with
from sdi_gs.splats.sight import MARGIN

DOCS = Path(__file__).parents[2] / "docs/eval.md"
AS_IT_IS = ViewOptions()
EXTENT = Extent(middle=(0.1, -0.2, 0.3), radius=0.8, centre=(0.2, 0.0, 0.1), half_side=0.7)


def places(name: ProtocolName, extent: Extent | None = None) -> np.ndarray:
    return cameras_of(protocol_with(name, AS_IT_IS), extent).world_from_camera[:, :3, 3].double().numpy()


def threestudio_test_places(count: int, distance: float, elevation_deg: float) -> np.ndarray:
    """Transcribe the positions of threestudio's RandomCameraDataset for the split "test" (data/uncond.py)."""
    azimuth = torch.linspace(0.0, 360.0, count).double() * np.pi / 180.0
    elevation = torch.full_like(azimuth, elevation_deg) * np.pi / 180.0
    return torch.stack(
        [
            distance * torch.cos(elevation) * torch.cos(azimuth),
            distance * torch.cos(elevation) * torch.sin(azimuth),
            distance * torch.sin(elevation),
        ],
        dim=-1,
    ).numpy()


def pose_spherical(theta: float, phi: float, radius: float) -> np.ndarray:
    """Transcribe Dream Fields' pose (dreamfields/lib.scene), NeRF's own."""
    theta, phi = np.radians(theta), np.radians(phi)
    lift = np.eye(4)
    lift[2, 3] = radius
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]]
    turn = np.array(
        [[np.cos(theta), 0, -np.sin(theta), 0], [0, 1, 0, 0], [np.sin(theta), 0, np.cos(theta), 0], [0, 0, 0, 1]]
    )
    return np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]) @ turn @ tilt @ lift


def test_sdi_sees_what_threestudio_tests() -> None:
    np.testing.assert_allclose(places("sdi"), threestudio_test_places(50, 2.0, 15.0), atol=1e-5)


def test_mv_sdi_takes_50_of_120_views() -> None:
    chosen = np.linspace(0, 119, 50, dtype=int)
    np.testing.assert_allclose(places("mv-sdi"), threestudio_test_places(120, 2.0, 15.0)[chosen], atol=1e-5)


def test_dreamfusion_retrieves_by_dream_fields_view() -> None:
    pose = pose_spherical(30.0, -45.0, 4.0)
    np.testing.assert_allclose(places("dreamfusion"), pose[None, :3, 3], atol=1e-5)
    # OpenGL's camera looks along -z with y up, ours along z with y down.
    own = cameras_of(protocol_with("dreamfusion", AS_IT_IS), None).world_from_camera[0, :3, :3]
    np.testing.assert_allclose(own.numpy(), pose[:3, :3] * [1, -1, -1], atol=1e-5)


def test_the_icosphere_is_trimeshs() -> None:
    trimesh = pytest.importorskip("trimesh")
    expected = trimesh.creation.icosphere(subdivisions=2)
    own = icosphere(2)
    distances = np.linalg.norm(own.vertices[:, None] - expected.vertices[None], axis=-1)
    match = distances.argmin(axis=1)
    assert sorted(match) == list(range(162))
    assert distances.min(axis=1).max() < 1e-7
    neighbours = [set(map(int, found)) for found in expected.vertex_neighbors]
    assert [set(match[np.flatnonzero(row)]) for row in own.neighbours] == [neighbours[index] for index in match]


def test_t3bench_stands_on_an_icosphere_around_the_object() -> None:
    trimesh = pytest.importorskip("trimesh")
    protocol = protocol_with("t3bench-quality", AS_IT_IS)
    cameras = cameras_of(protocol, EXTENT)
    assert len(cameras) == 810
    expected = trimesh.creation.icosphere(subdivisions=2, radius=2.2).vertices * 0.7 + [0.2, 0.0, 0.1]
    found = cameras.world_from_camera[:, :3, 3].numpy()
    for field, fov in enumerate((np.pi / 3, np.pi / 4, np.pi / 5, np.pi / 6, np.pi / 7.5)):
        ring = slice(162 * field, 162 * (field + 1))
        distances = np.linalg.norm(found[ring][:, None] - expected[None], axis=-1)
        assert sorted(distances.argmin(axis=1)) == list(range(162))
        assert distances.min(axis=1).max() < 1e-5
        focal = cameras.intrinsics[ring, 1, 1].numpy()
        np.testing.assert_allclose(focal, 256.0 / np.tan(0.5 * fov), rtol=1e-5)


def test_t3benchs_poses_are_its_renderers() -> None:
    cameras = cameras_of(protocol_with("t3bench-quality", AS_IT_IS), None)
    for pose in cameras.world_from_camera[:162].double().numpy():
        # meshrender.py, with OpenGL's axes.
        v = pose[:3, 3]
        f = v / np.linalg.norm(v)
        u = np.array([0, 0, 1]) if np.abs(np.dot(f, [0, 0, 1])) < 0.99 else np.array([0, 1, 0])
        r = np.cross(u, -v)
        r = r / np.linalg.norm(r)
        up = np.cross(-v, r)
        up = up / np.linalg.norm(up)
        np.testing.assert_allclose(pose[:3, :3], np.stack([-r, -up, -f], axis=1), atol=1e-5)


def test_the_default_is_fitted_to_the_bounding_sphere() -> None:
    cameras = cameras_of(protocol_with("orbit", AS_IT_IS), EXTENT)
    away = cameras.world_from_camera[:, :3, 3] - torch.tensor(EXTENT.middle)
    distance = MARGIN * EXTENT.radius / np.sin(np.radians(20.0))
    assert torch.allclose(away.norm(dim=1), torch.tensor(distance).float())
    assert torch.allclose(away[:, 2], torch.tensor(distance * np.sin(np.radians(15.0))).float(), atol=1e-5)
    # The ball's outline, at the same share of every picture.
    assert (len(cameras), cameras.width) == (50, 512)
    assert len({round(azimuth, 3) for azimuth in cameras.azimuth_deg.tolist()}) == 50


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_the_page_names_the_first_places_of_every_protocol(protocol: object) -> None:
    name = protocol.name  # pyright: ignore[reportAttributeAccessIssue]
    found = re.search(rf"^\| `{name}` \|([^|]*)\|", DOCS.read_text(), flags=re.MULTILINE)
    assert found is not None
    written = [[float(number) for number in place.split(",")] for place in re.findall(r"\(([-\d., ]+)\)", found[1])]
    unit = Extent(middle=(0.0, 0.0, 0.0), radius=1.0, centre=(0.0, 0.0, 0.0), half_side=1.0)
    own = places(name, unit)
    indices = (0,) if len(own) == 1 else (0, 1, len(own) - 1)
    np.testing.assert_allclose(written, own[list(indices)], atol=6e-4)


def test_single_options_change_a_protocol() -> None:
    changed = protocol_with("sdi", ViewOptions(count=4, size=64, background="grey", fov_y_deg=30.0, distance=5.0))
    assert changed.azimuths_deg == (0.0, 90.0, 180.0, 270.0)
    assert (changed.size, changed.background, changed.fov_y_deg, changed.distance) == (64, "grey", (30.0,), 5.0)
    assert changed.elevation_deg == 15.0
    with pytest.raises(UserError, match=r"--views.count changes a ring of cameras, and protocol t3bench-quality has"):
        protocol_with("t3bench-quality", ViewOptions(count=4))
    with pytest.raises(ValueError, match="size must be 16 to 4096"):
        ViewOptions(size=4)
