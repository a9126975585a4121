"""Rows of primitives: boxes around them, turns and placement."""

from __future__ import annotations

import numpy as np
import pytest

from sdi_gs.toybox import primitives as prim
from sdi_gs.toybox.kernels.tracing import point_distances

WHITE = (1.0, 1.0, 1.0)
ORIGIN = (0.0, 0.0, 0.0)
SHAPES = {
    "ellipsoid": prim.ellipsoid(ORIGIN, (0.3, 0.5, 0.7), WHITE),
    "box": prim.box(ORIGIN, (0.3, 0.5, 0.7), WHITE, rounding=0.1),
    "cone": prim.cone(ORIGIN, 0.6, 0.2, 0.5, WHITE, rounding=0.05),
    "torus": prim.torus(ORIGIN, 0.6, 0.2, WHITE),
    "cup": prim.cup(ORIGIN, 0.5, 0.1, 0.6, WHITE),
    "prism": prim.prism(ORIGIN, 0.7, 0.5, 0.2, 0.4, WHITE, rounding=0.05),
}


def distances(rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    out = np.empty(len(points))
    point_distances(rows, points, out)
    return out


def grid_points(half: float, steps: int) -> np.ndarray:
    axis = np.linspace(-half, half, steps)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


@pytest.mark.parametrize("name", SHAPES)
def test_extent_is_the_tight_box_of_the_shape(name: str) -> None:
    row = np.array([SHAPES[name]])
    points = grid_points(1.0, 101)
    inside = points[distances(row, points) < 0.0]
    extent = row[0, prim.EXTENT : prim.EXTENT + 3]
    assert np.all(np.abs(inside) <= extent + 1e-9)
    np.testing.assert_allclose(np.abs(inside).max(axis=0), extent, atol=0.021)


def test_bounds_of_turned_shapes_are_those_of_their_boxes() -> None:
    rows = np.array(
        [
            prim.box((1.0, 0.0, 0.0), (0.1, 0.2, 0.3), WHITE, prim.ALONG_X),
            prim.box((0.0, -1.0, 0.5), (0.1, 0.1, 0.1), WHITE, prim.turn_about_z(45.0)),
        ]
    )
    low, high = prim.bounds(rows)
    diagonal = 0.1 * np.sqrt(2.0)
    np.testing.assert_allclose(low, [-diagonal, -1.0 - diagonal, -0.2])
    np.testing.assert_allclose(high, [1.3, 0.2 - 0.1, 0.6])


@pytest.mark.parametrize(
    ("rotation", "tip"),
    [
        (prim.UPRIGHT, (0.0, 0.0, 1.0)),
        (prim.ALONG_X, (1.0, 0.0, 0.0)),
        (prim.ALONG_Y, (0.0, 1.0, 0.0)),
        (prim.tilt_about_x(30.0), (0.0, 0.5, np.sqrt(0.75))),
    ],
)
def test_rotation_sends_the_tip_of_a_cone_where_it_says(rotation: prim.Rotation, tip: prim.Vector) -> None:
    row = np.array([prim.cone(ORIGIN, 0.3, 0.0, 1.0, WHITE, rotation)])
    points = np.array([tip, tip]) * np.array([[0.97], [-0.97]])
    at_tip, at_foot = distances(row, points)
    # The cone is 0.0045 wide at 0.97 of its height; its foot is 0.03 deep there.
    assert at_tip == pytest.approx(-0.0045, abs=2e-4)
    assert at_foot == pytest.approx(-0.03, abs=1e-6)


def test_turn_about_z_takes_front_to_the_y_side() -> None:
    np.testing.assert_allclose(np.array(prim.turn_about_z(90.0)) @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)


def test_placed_moves_the_distance_field_as_a_similarity() -> None:
    rows = np.array(list(SHAPES.values()))
    rows[:, prim.CENTRE] = np.linspace(-0.5, 0.5, len(rows))
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (500, 3))
    position, yaw, scale = (0.3, -0.2, 0.7), 35.0, 0.6
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    moved_points = scale * points @ turn.T + np.array(position)
    moved = prim.placed(rows, position, yaw, scale)
    np.testing.assert_allclose(distances(moved, moved_points), scale * distances(rows, points), atol=1e-12)
