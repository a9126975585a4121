"""Builders of toybox objects: one function per class that returns the object's primitives.

Object frame: z up, front +x, and so +y on the right of somebody who looks at the front. A builder takes the object's
colour and its proportions ``p``, numbers in [0, 1] where 0.5 is the canonical object, and returns the primitives'
rows. It may put its object at any height. Lengths are scene units.
"""

from __future__ import annotations

import math

from sdi_gs.toybox.primitives import (
    ALONG_X,
    ALONG_Y,
    Row,
    Vector,
    box,
    cone,
    cup,
    ellipsoid,
    prism,
    tilt_about_x,
    torus,
    turn_about_z,
)

# Share of the canonical length by which a proportion of 0 or 1 differs from it.
SPREAD = 0.13

DARK: Vector = (0.12, 0.12, 0.13)
GREY: Vector = (0.62, 0.63, 0.66)
WOOD: Vector = (0.50, 0.31, 0.15)
CREAM: Vector = (0.95, 0.89, 0.76)
GLASS: Vector = (0.55, 0.82, 0.97)
SNOW: Vector = (0.93, 0.94, 0.95)
GLOW: Vector = (1.00, 0.90, 0.35)
SIGNAL: Vector = (0.92, 0.15, 0.12)
CARROT: Vector = (1.00, 0.50, 0.08)
BRICK: Vector = (0.60, 0.30, 0.24)
DOUGH: Vector = (0.80, 0.58, 0.34)
COFFEE: Vector = (0.28, 0.16, 0.09)

BOTH_SIDES = (-1.0, 1.0)


def _vary(proportion: float, canonical: float, spread: float = SPREAD) -> float:
    """Return a length for a proportion in [0, 1]; 0.5 is the canonical one."""
    return canonical * (1.0 + spread * (2.0 * proportion - 1.0))


def build_ball(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """Build an ellipsoid that is nearly a sphere."""
    radius = _vary(p[0], 0.72)
    return [ellipsoid((0, 0, 0), (radius, radius, radius * _vary(p[1], 1.0, 0.08)), colour)]


def build_cube(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """Build a box with rounded edges."""
    half = _vary(p[0], 0.49, 0.11)
    return [box((0, 0, 0), (half, half, half * _vary(p[1], 1.0, 0.07)), colour, rounding=0.05)]


def build_cone(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A cone that stands on its base."""
    return [cone((0, 0, 0), _vary(p[0], 0.60), 0.05, _vary(p[1], 0.68, 0.10), colour, rounding=0.03)]


def build_cylinder(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A cylinder that stands upright."""
    radius = _vary(p[0], 0.46)
    return [cone((0, 0, 0), radius, radius, _vary(p[1], 0.66), colour, rounding=0.03)]


def build_donut(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A ring of dough, its upper part in the colour."""
    ring, tube = _vary(p[0], 0.56), _vary(p[1], 0.23)
    return [torus((0, 0, 0), ring, tube, DOUGH), torus((0, 0, 0.30 * tube), ring, 1.04 * tube, colour)]


def build_chair(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A seat on four legs with a back, and a light cushion and pad in front."""
    half, leg, back, thick = _vary(p[0], 0.42), _vary(p[1], 0.34), _vary(p[2], 0.42), _vary(p[3], 0.07)
    seat = 2.0 * leg
    rows = [
        box((0, 0, seat), (half, half, thick), colour, rounding=0.03),
        box((thick - half, 0, seat + back), (thick, half, back), colour, rounding=0.03),
        # A light cushion and pad: only the front shows them.
        box((0.12, 0, seat + thick), (0.74 * half, 0.78 * half, 0.07), CREAM, rounding=0.05),
        box((2.0 * thick - half, 0, seat + 1.15 * back), (0.05, 0.62 * half, 0.45 * back), CREAM, rounding=0.03),
    ]
    foot = half - thick
    rows += [
        box((x * foot, y * foot, leg), (thick, thick, leg), colour, rounding=0.02)
        for x in BOTH_SIDES
        for y in BOTH_SIDES
    ]
    return rows


def build_table(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A top in the colour on four wooden legs."""
    depth, width, height, thick = _vary(p[1], 0.50), _vary(p[0], 0.68), _vary(p[2], 0.40), _vary(p[3], 0.075)
    rows = [box((0, 0, 2.0 * height), (depth, width, thick), colour, rounding=0.03)]
    rows += [
        box((x * (depth - 0.11), y * (width - 0.11), height), (0.075, 0.075, height), WOOD, rounding=0.02)
        for x in BOTH_SIDES
        for y in BOTH_SIDES
    ]
    return rows


def build_mug(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A cup of coffee with a handle on the +y side."""
    radius, half, handle = _vary(p[0], 0.46), _vary(p[1], 0.52), _vary(p[2], 0.27)
    inside = radius - 0.05
    return [
        cup((0, 0, 0), radius, 0.08, half, colour),
        torus((0, radius + 0.05, 0), handle, 0.085, colour, ALONG_X),
        cone((0, 0, 0.3 * half), inside, inside, 0.3 * half, COFFEE),
    ]


def build_mushroom(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A cap in the colour on a light stem."""
    cap, dome, half, stem = _vary(p[0], 0.68), _vary(p[1], 0.40), _vary(p[2], 0.42), _vary(p[3], 0.21)
    return [
        cone((0, 0, half), 1.25 * stem, stem, half, CREAM, rounding=0.05),
        ellipsoid((0, 0, 2.0 * half), (cap, cap, dome), colour),
        cone((0, 0, 2.0 * half - 0.62 * dome), 0.4 * cap, 0.84 * cap, 0.35 * dome, CREAM),
    ]


def build_snowman(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """Three balls of snow; hat and scarf have the colour."""
    low, mid, head, hat = _vary(p[0], 0.44, 0.10), _vary(p[1], 0.32), _vary(p[2], 0.24), _vary(p[3], 0.17)
    middle = 0.80 * (low + mid)
    top = middle + 0.84 * (mid + head)
    rows = [
        ellipsoid((0, 0, 0), (low, low, low), SNOW),
        ellipsoid((0, 0, middle), (mid, mid, mid), SNOW),
        ellipsoid((0, 0, top), (head, head, head), SNOW),
        torus((0, 0, 0.5 * (middle + mid + top - head)), 0.80 * head, 0.085, colour),
        cone((0, 0, top + 0.72 * head), 1.05 * head, 1.05 * head, 0.05, colour, rounding=0.03),
        cone((0, 0, top + 0.72 * head + hat), 0.74 * head, 0.68 * head, hat, colour, rounding=0.03),
        cone((head + 0.09, 0, top - 0.02), 0.085, 0.02, 0.14, CARROT, ALONG_X),
    ]
    rows += [
        ellipsoid((0.88 * head, y * 0.36 * head, top + 0.30 * head), (0.065, 0.065, 0.065), DARK) for y in BOTH_SIDES
    ]
    rows += [
        ellipsoid((0.97 * mid * math.cos(a), 0, middle + 0.97 * mid * math.sin(a)), (0.075, 0.075, 0.075), DARK)
        for a in (-0.42, 0.25)
    ]
    rows += [
        cone((0, y * (mid + 0.16), middle + 0.18), 0.06, 0.06, 0.24, WOOD, tilt_about_x(52.0 * y)) for y in BOTH_SIDES
    ]
    return rows


def build_tree(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A trunk with three tiers in the colour."""
    height, width, trunk = _vary(p[0], 0.30), _vary(p[1], 0.58), _vary(p[2], 0.13)
    rows = [cone((0, 0, 0), trunk, trunk, 0.30, WOOD)]
    for level, share in enumerate((1.0, 0.80, 0.58)):
        centre = 0.22 + height * (1.0 + 1.15 * level)
        rows.append(cone((0, 0, centre), share * width, 0.22 * share * width, height, colour, rounding=0.04))
    return rows[:-1] + [cone((0, 0, 0.22 + 3.3 * height), 0.58 * width, 0.04, height, colour, rounding=0.03)]


def build_house(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """Light walls under a roof in the colour, with a door in front."""
    width, depth, wall, roof = _vary(p[0], 0.50), _vary(p[1], 0.52), _vary(p[2], 0.36), _vary(p[3], 0.30)
    eaves = 2.0 * wall
    rows = [
        box((0, 0, wall), (depth, width, wall), CREAM),
        prism((0, 0, eaves + roof), depth + 0.10, width + 0.16, 0.03, roof, colour),
        box((-0.25 * depth, 0.52 * width, eaves + 1.25 * roof), (0.09, 0.09, 0.65 * roof), BRICK),
        # The door is in front, with a window on either side; the back has one wide window.
        box((depth, 0, 0.25), (0.03, 0.13, 0.25), WOOD),
        box((-depth, 0, 1.1 * wall), (0.03, 0.26, 0.13), GLASS),
    ]
    rows += [box((depth, y * 0.60 * width, 1.15 * wall), (0.03, 0.11, 0.12), GLASS) for y in BOTH_SIDES]
    rows += [box((0, y * width, 1.15 * wall), (0.15, 0.03, 0.12), GLASS) for y in BOTH_SIDES]
    return rows


def build_car(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A body in the colour on four wheels; grille and yellow lamps in front, red lamps behind."""
    length, width, body, cabin = _vary(p[0], 0.76, 0.10), _vary(p[1], 0.37), _vary(p[2], 0.17), _vary(p[3], 0.16)
    wheel, across = 0.19, turn_about_z(90.0)
    middle = wheel + 0.09
    shoulder = middle + body
    rows = [
        box((0, 0, middle), (length, width, body), colour, rounding=0.08),
        prism((-0.12, 0, shoulder + cabin - 0.03), 0.86 * width, 0.56 * length, 0.36 * length, cabin, GLASS, across),
        box((-0.12, 0, shoulder + 2.0 * cabin - 0.02), (0.37 * length, 0.86 * width, 0.05), colour, rounding=0.03),
        # Dark grille and yellow lamps in front, red lamps and a light number plate behind.
        box((length, 0, middle - 0.02), (0.03, 0.36 * width, 0.06), DARK),
        box((-length, 0, middle - 0.02), (0.03, 0.34 * width, 0.06), SNOW),
    ]
    for y in BOTH_SIDES:
        rows.append(ellipsoid((length - 0.01, y * 0.68 * width, middle + 0.03), (0.06, 0.09, 0.08), GLOW))
        rows.append(box((0.01 - length, y * 0.68 * width, middle + 0.04), (0.05, 0.09, 0.07), SIGNAL))
        rows += [
            cone((x * 0.60 * length, y * 0.92 * width, wheel), wheel, wheel, 0.08, DARK, ALONG_Y, 0.02)
            for x in BOTH_SIDES
        ]
        rows += [
            cone((x * 0.60 * length, y * (0.92 * width + 0.08), wheel), 0.085, 0.085, 0.02, GREY, ALONG_Y)
            for x in BOTH_SIDES
        ]
    return rows


def build_rocket(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A white hull; nose, port and three fins have the colour, and the port is in front."""
    radius, half, nose, fin = _vary(p[0], 0.27), _vary(p[1], 0.42, 0.10), _vary(p[2], 0.24), _vary(p[3], 0.19)
    port = (radius - 0.02, 0.0, 0.38 * half)
    rows = [
        cone((0, 0, 0), radius, radius, half, SNOW),
        cone((0, 0, half + nose), radius, 0.03, nose, colour),
        cone((0, 0, -half - 0.07), 0.55 * radius, 0.80 * radius, 0.07, DARK),
        cone((0, 0, -0.52 * half), radius + 0.015, radius + 0.015, 0.07, colour),
        # A round port in front and a fin behind tell the two apart.
        cone(port, 0.17, 0.17, 0.05, colour, ALONG_X, 0.02),
        cone((port[0] + 0.03, 0.0, port[2]), 0.11, 0.11, 0.05, GLASS, ALONG_X, 0.02),
    ]
    for angle in (60.0, 180.0, 300.0):
        turn, reach = math.radians(angle), radius + 0.75 * fin
        centre = (reach * math.cos(turn), reach * math.sin(turn), -0.78 * half)
        rows.append(box(centre, (fin, 0.06, 0.24), colour, turn_about_z(angle), 0.04))
    return rows


def build_lamp(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A shade in the colour on a post."""
    shade, half, post, foot = _vary(p[0], 0.48), _vary(p[1], 0.29), _vary(p[2], 0.44, 0.10), _vary(p[3], 0.31)
    top = 2.0 * post + half
    return [
        cone((0, 0, 0.06), foot, 0.85 * foot, 0.06, DARK, rounding=0.02),
        cone((0, 0, post), 0.07, 0.07, post, GREY),
        cone((0, 0, top), shade, 0.56 * shade, half, colour, rounding=0.02),
        ellipsoid((0, 0, top - half), (0.45 * shade, 0.45 * shade, 0.12), GLOW),
    ]


def build_robot(colour: Vector, p: tuple[float, ...]) -> list[Row]:
    """A body in the colour; face and chest panel in front, a dark pack behind."""
    width, half, head, arm, leg = (
        _vary(p[0], 0.34),
        _vary(p[1], 0.32),
        _vary(p[2], 0.22),
        _vary(p[3], 0.28),
        _vary(p[4], 0.20),
    )
    waist = 2.0 * leg
    chest, face = waist + half, waist + 2.0 * half + 0.04 + head
    front = 0.24
    rows = [
        box((0, 0, chest), (front, width, half), colour, rounding=0.05),
        box((0, 0, face), (0.9 * head, 1.15 * head, head), GREY, rounding=0.05),
        cone((0, 0, face - head - 0.03), 0.10, 0.10, 0.06, DARK),
        cone((0, 0, face + head + 0.06), 0.06, 0.06, 0.08, DARK),
        ellipsoid((0, 0, face + head + 0.16), (0.08, 0.08, 0.08), SIGNAL),
        # Face and chest panel in front, a dark pack behind.
        box((0.9 * head, 0, face - 0.45 * head), (0.03, 0.52 * head, 0.045), DARK),
        box((front, 0, chest + 0.05), (0.03, 0.55 * width, 0.42 * half), CREAM, rounding=0.02),
        ellipsoid((front + 0.03, -0.25 * width, chest + 0.06), (0.04, 0.06, 0.06), SIGNAL),
        ellipsoid((front + 0.03, 0.25 * width, chest + 0.06), (0.04, 0.06, 0.06), GLOW),
        box((-front - 0.05, 0, chest + 0.03), (0.10, 0.66 * width, 0.66 * half), DARK, rounding=0.04),
    ]
    for y in BOTH_SIDES:
        eye = (0.9 * head, y * 0.50 * head, face + 0.22 * head)
        rows += [
            ellipsoid(eye, (0.05, 0.075, 0.075), GLOW),
            box((0, y * (width + 0.10), chest + half - arm), (0.11, 0.09, arm), GREY, rounding=0.04),
            ellipsoid((0.02, y * (width + 0.10), chest + half - 2.0 * arm), (0.12, 0.10, 0.10), colour),
            box((0.02, y * 0.52 * width, leg), (0.14, 0.12, leg + 0.03), GREY, rounding=0.03),
            box((0.08, y * 0.52 * width, 0.02), (0.22, 0.14, 0.08), colour, rounding=0.04),
        ]
    return rows
