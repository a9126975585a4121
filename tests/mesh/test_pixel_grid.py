"""Triangles on pixels against tests of single points and single rays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdi_gs.cameras import camera_rays, orbit_cameras
from sdi_gs.mesh import pixel_grid
from sdi_gs.mesh.pixel_grid import covered_pixels, nearest_faces

WIDTH, HEIGHT = 23, 17


def covers(corners: np.ndarray, x: float, y: float) -> bool:
    """Whether a point is on the same side of all edges."""
    a, b, c = corners
    sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
    return all(side >= 0 for side in sides) or all(side <= 0 for side in sides)


@pytest.mark.parametrize("at_once", [7, 2**20])
def test_exactly_the_pixels_are_found_whose_centre_is_inside(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_grid, "PAIRS_AT_ONCE", at_once)
    corners = np.random.default_rng(0).uniform(-6.0, 28.0, (40, 3, 2))
    corners[7] = corners[7, :1]  # without an area
    found = set()
    for part in covered_pixels(corners, WIDTH, HEIGHT):
        places = np.stack([part.pixels % WIDTH + 0.5, part.pixels // WIDTH + 0.5], axis=1)
        np.testing.assert_allclose((part.weights[:, :, None] * corners[part.faces]).sum(axis=1), places, atol=1e-9)
        found |= set(zip(part.faces.tolist(), part.pixels.tolist(), strict=True))
    wanted = {
        (face, row * WIDTH + column)
        for face in range(40)
        for row in range(HEIGHT)
        for column in range(WIDTH)
        if face != 7 and covers(corners[face], column + 0.5, row + 0.5)
    }
    assert len(wanted) > 500
    assert found == wanted


def test_each_pixel_sees_the_face_that_its_ray_meets_first() -> None:
    generator = np.random.default_rng(1)
    vertices = 0.8 * generator.standard_normal((60, 3))
    vertices[0] = [4.0, 0.0, 0.0]  # behind the camera: its face is left out
    faces = np.arange(60).reshape(20, 3)
    one = torch.ones(1)
    camera = orbit_cameras(0.0 * one, 20.0 * one, 3.0 * one, 50.0 * one, width=24, height=24)
    seen = nearest_faces(vertices, faces, camera)
    rays = camera_rays(camera)
    forward = camera.world_from_camera[0, :3, 2].double().numpy()
    for pixel in range(24 * 24):
        origin, way = rays.origins[pixel].double().numpy(), rays.directions[pixel].double().numpy()
        hits = []
        for face, corners in enumerate(vertices[faces]):
            # origin + t way = a + u (b - a) + v (c - a)
            matrix = np.stack([-way, corners[1] - corners[0], corners[2] - corners[0]], axis=1)
            t, u, v = np.linalg.solve(matrix, origin - corners[0])
            if face and t > 0 and min(u, v, 1 - u - v) >= 0:
                hits.append((t * (way @ forward), face, (1 - u - v, u, v)))
        depth, face, weights = min(hits, default=(np.inf, -1, (0.0, 0.0, 0.0)))
        assert seen.faces[pixel] == face
        assert seen.depths[pixel] == pytest.approx(depth, rel=1e-4)
        assert seen.weights[pixel] == pytest.approx(weights, abs=1e-4)
    assert 50 < np.count_nonzero(seen.faces >= 0) < 24 * 24
