"""Pieces and flaws of triangles, against trimesh and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from sdi_gs.mesh.surface import flaws, level_surface, pieces, vertex_normals, with_fewer_faces

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])


def noise_surface(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A surface with every case of marching cubes in it."""
    values = np.random.default_rng(seed).random((14, 15, 16), np.float32)
    return level_surface(values, 0.6, low=np.zeros(3), spacing=1.0)


@pytest.mark.parametrize("seed", range(4))
def test_noise_gives_a_watertight_surface(seed: int) -> None:
    vertices, faces = noise_surface(seed)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert flaws(faces) == []
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0.0


def test_pieces_and_their_volumes_are_trimeshs() -> None:
    vertices, faces = noise_surface(0)
    of_faces, volumes = pieces(vertices, faces)
    parts = trimesh.Trimesh(vertices, faces, process=False).split(only_watertight=False)
    assert len(volumes) == len(parts) > 3
    np.testing.assert_allclose(np.sort(volumes), np.sort([part.volume for part in parts]), atol=1e-9)
    assert np.bincount(of_faces).sum() == len(faces)


def test_normals_are_the_means_of_the_faces_by_area() -> None:
    vertices, faces = noise_surface(1)
    normals = vertex_normals(vertices, faces)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    for vertex in range(0, len(vertices), 500):
        around = (faces == vertex).any(axis=1)
        expected = (mesh.face_normals[around] * mesh.area_faces[around, None]).sum(axis=0)
        np.testing.assert_allclose(normals[vertex], expected / np.linalg.norm(expected), atol=1e-9)


def test_flaws_are_told_apart() -> None:
    turned = TETRAHEDRON.copy()
    turned[0] = turned[0][::-1]
    fin = np.concatenate([TETRAHEDRON, [[0, 1, 4]]])
    assert flaws(TETRAHEDRON) == []
    assert flaws(TETRAHEDRON[:-1]) == ["3 edges with one face only"]
    assert flaws(turned) == ["3 edges whose faces look opposite ways"]
    assert flaws(fin) == ["2 edges with one face only", "1 edges with more than two faces"]


def test_fewer_faces_are_about_as_many_as_asked_for() -> None:
    vertices, faces = noise_surface(2)
    _, fewer = with_fewer_faces(vertices, faces, len(faces) // 3)
    assert 0.7 * len(faces) // 3 <= len(fewer) <= len(faces) // 3
    assert set(np.unique(fewer)) == set(range(fewer.max() + 1))
