"""Distance fields against predicates and brute force that share nothing with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sdi_gs.toybox import primitives as prim
from sdi_gs.toybox.kernels.tracing import point_distances

WHITE = (1.0, 1.0, 1.0)
ORIGIN = (0.0, 0.0, 0.0)

# Shapes without rounding, each with its inside written as inequalities.
INSIDE: dict[str, tuple[prim.Row, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]]] = {
    "sphere": (prim.ellipsoid(ORIGIN, (0.6, 0.6, 0.6), WHITE), lambda x, y, z: x**2 + y**2 + z**2 < 0.36),
    "box": (
        prim.box(ORIGIN, (0.3, 0.5, 0.7), WHITE),
        lambda x, y, z: (abs(x) < 0.3) & (abs(y) < 0.5) & (abs(z) < 0.7),
    ),
    "cone": (
        prim.cone(ORIGIN, 0.6, 0.2, 0.5, WHITE),
        lambda x, y, z: (abs(z) < 0.5) & (np.hypot(x, y) < 0.4 - 0.4 * z),
    ),
    "torus": (
        prim.torus(ORIGIN, 0.6, 0.2, WHITE),
        lambda x, y, z: (np.hypot(x, y) - 0.6) ** 2 + z**2 < 0.04,
    ),
    "cup": (
        prim.cup(ORIGIN, 0.5, 0.1, 0.6, WHITE),
        lambda x, y, z: (np.hypot(x, y) < 0.5) & (abs(z) < 0.6) & ((np.hypot(x, y) > 0.4) | (z < -0.5)),
    ),
    "prism": (
        prim.prism(ORIGIN, 0.7, 0.5, 0.1, 0.4, WHITE),
        lambda x, y, z: (abs(x) < 0.7) & (abs(z) < 0.4) & (abs(y) < 0.3 - 0.5 * z),
    ),
}
ELLIPSOID = prim.ellipsoid(ORIGIN, (0.3, 0.5, 0.7), WHITE)


def distances(row: prim.Row, points: np.ndarray) -> np.ndarray:
    out = np.empty(len(points))
    point_distances(np.array([row]), points, out)
    return out


def random_points(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1.0, 1.0, (count, 3))


@pytest.mark.parametrize("name", INSIDE)
def test_sign_of_the_distance_tells_inside_from_outside(name: str) -> None:
    row, inside = INSIDE[name]
    points = random_points(20_000)
    expected = inside(*points.T)
    assert expected.any()
    distance = distances(row, points)
    clear = np.abs(distance) > 1e-9
    np.testing.assert_array_equal(distance[clear] < 0.0, expected[clear])


@pytest.mark.parametrize("name", INSIDE)
def test_distance_outside_is_that_to_the_nearest_inside_point(name: str) -> None:
    row, inside = INSIDE[name]
    axis = np.linspace(-0.8, 0.8, 81)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    solid = grid[inside(*grid.T)]
    points = random_points(60)
    points = points[~inside(*points.T)]
    brute = np.linalg.norm(points[:, None] - solid, axis=2).min(axis=1)
    # The nearest grid point inside lies at most one cell diagonal behind the surface.
    gap = brute - distances(row, points)
    assert gap.min() > -1e-9
    assert gap.max() < np.sqrt(3.0) * 0.02


@pytest.mark.parametrize("name", INSIDE)
def test_distance_changes_no_faster_than_the_point_moves(name: str) -> None:
    row, _ = INSIDE[name]
    points = random_points(5_000)
    step = np.random.default_rng(2).normal(size=points.shape) * 0.05
    change = np.abs(distances(row, points + step) - distances(row, points))
    assert np.all(change <= np.linalg.norm(step, axis=1) + 1e-9)


def test_ellipsoid_distance_is_exact_in_sign_and_first_order_at_the_surface() -> None:
    radii = np.array([0.3, 0.5, 0.7])
    points = random_points(5_000)
    np.testing.assert_array_equal(distances(ELLIPSOID, points) < 0.0, ((points / radii) ** 2).sum(axis=1) < 1.0)
    direction = points / np.linalg.norm(points, axis=1, keepdims=True)
    surface = direction * radii
    normal = surface / radii**2
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    for offset in (-0.01, 0.01):
        # Second order: half the curvature times the offset squared; the sharpest radius is 0.3^2 / 0.7.
        error = distances(ELLIPSOID, surface + offset * normal) - offset
        assert np.abs(error).max() < 0.01**2 / (0.09 / 0.7)


def test_union_is_the_nearest_of_its_shapes() -> None:
    rows = np.array([row for row, _ in INSIDE.values()])
    rows[:, prim.CENTRE] = np.linspace(-1.5, 1.5, len(rows))
    points = random_points(2_000)
    union = np.empty(len(points))
    point_distances(rows, points, union)
    single = np.stack([distances(tuple(row), points) for row in rows])
    np.testing.assert_allclose(union, single.min(axis=0), atol=1e-12)
