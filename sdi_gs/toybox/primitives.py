"""The shapes that toybox objects are made of, as rows of one float array.

A row holds everything the tracer (``tracing.py``) needs: what shape, where, how turned, how large, which colour.
Every constructor takes its shape standing upright (axis along z) and turns it by ``rotation`` (local to object).
All lengths are scene units. ``rounding`` softens edges inwards, so the outer size stays as stated.

Letters: P primitives, K columns of a row.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Rotation = tuple[Vector, Vector, Vector]  # rows of object_from_local
Row = tuple[float, ...]

# Shape codes in column 0.
ELLIPSOID, BOX, CONE, TORUS, CUP, PRISM = range(6)

# Columns of a row. Compiled code keeps these numbers: after a change, delete numba's cache (__pycache__/*.nb?).
KIND = 0
CENTRE = 1  # three columns
ROTATION = 4  # nine columns, object_from_local row by row
SIZE = 13  # four columns, their meaning depends on the shape
ROUNDING = 17
EXTENT = 18  # three columns, half sides of the box around the shape in its own frame
COLOUR = 21  # three columns
ROW_LENGTH = 24

UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ALONG_X: Rotation = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
"""Cyclic turn that lays the local z axis along x (and local x along y)."""
ALONG_Y: Rotation = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
"""Cyclic turn that lays the local z axis along y (and local y along x)."""


def tilt_about_x(angle_deg: float) -> Rotation:
    """Lean the local z axis towards +y."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return ((1.0, 0.0, 0.0), (0.0, c, s), (0.0, -s, c))


def turn_about_z(angle_deg: float) -> Rotation:
    """Turn the local x axis towards +y."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


def _row(
    kind: int,
    centre: Vector,
    size: tuple[float, float, float, float],
    extent: Vector,
    colour: Vector,
    rotation: Rotation,
    rounding: float = 0.0,
) -> Row:
    return (float(kind), *centre, *rotation[0], *rotation[1], *rotation[2], *size, rounding, *extent, *colour)


def ellipsoid(centre: Vector, radii: Vector, colour: Vector, rotation: Rotation = UPRIGHT) -> Row:
    """An ellipsoid with the given half axes."""
    return _row(ELLIPSOID, centre, (*radii, 0.0), radii, colour, rotation)


def box(centre: Vector, half: Vector, colour: Vector, rotation: Rotation = UPRIGHT, rounding: float = 0.0) -> Row:
    """A box with the given half sides and rounded edges."""
    core = (half[0] - rounding, half[1] - rounding, half[2] - rounding, 0.0)
    return _row(BOX, centre, core, half, colour, rotation, rounding)


def cone(
    centre: Vector,
    bottom: float,
    top: float,
    half_height: float,
    colour: Vector,
    rotation: Rotation = UPRIGHT,
    rounding: float = 0.0,
) -> Row:
    """A cone frustum about local z; equal radii make a cylinder."""
    core = (max(bottom - rounding, 0.0), max(top - rounding, 0.0), half_height - rounding, 0.0)
    widest = max(core[0], core[1]) + rounding
    return _row(CONE, centre, core, (widest, widest, half_height), colour, rotation, rounding)


def torus(centre: Vector, ring: float, tube: float, colour: Vector, rotation: Rotation = UPRIGHT) -> Row:
    """A ring in the local xy plane: ``ring`` to the middle of the tube, ``tube`` its radius."""
    return _row(TORUS, centre, (ring, tube, 0.0, 0.0), (ring + tube, ring + tube, tube), colour, rotation)


def cup(
    centre: Vector, radius: float, wall: float, half_height: float, colour: Vector, rotation: Rotation = UPRIGHT
) -> Row:
    """A round cup, open at local +z, with walls and a floor ``wall`` thick."""
    return _row(CUP, centre, (radius, wall, half_height, 0.0), (radius, radius, half_height), colour, rotation)


def prism(
    centre: Vector,
    half_length: float,
    bottom: float,
    top: float,
    half_height: float,
    colour: Vector,
    rotation: Rotation = UPRIGHT,
    rounding: float = 0.0,
) -> Row:
    """A bar along local x whose cross section is a trapezoid: half widths ``bottom`` and ``top`` along local y."""
    core = (
        max(bottom - rounding, 0.0),
        max(top - rounding, 0.0),
        half_height - rounding,
        half_length - rounding,
    )
    widest = max(core[0], core[1]) + rounding
    return _row(PRISM, centre, core, (half_length, widest, half_height), colour, rotation, rounding)


def bounds(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest corner of the box around rows [P, K], from each shape's own turned box."""
    rotation = rows[:, ROTATION : ROTATION + 9].reshape(-1, 3, 3)
    reach = np.einsum("pij,pj->pi", np.abs(rotation), rows[:, EXTENT : EXTENT + 3])
    centre = rows[:, CENTRE : CENTRE + 3]
    return (centre - reach).min(axis=0), (centre + reach).max(axis=0)


def placed(rows: NDArray[np.float64], position: Vector, yaw_deg: float, scale: float) -> NDArray[np.float64]:
    """Rows [P, K] scaled about the origin, turned by ``yaw_deg`` about z (front towards +y), then moved."""
    moved = rows.copy()
    turn = np.array(turn_about_z(yaw_deg))
    moved[:, CENTRE : CENTRE + 3] = scale * rows[:, CENTRE : CENTRE + 3] @ turn.T + np.array(position)
    rotation = rows[:, ROTATION : ROTATION + 9].reshape(-1, 3, 3)
    moved[:, ROTATION : ROTATION + 9] = (turn @ rotation).reshape(-1, 9)
    moved[:, SIZE : EXTENT + 3] *= scale
    return moved
