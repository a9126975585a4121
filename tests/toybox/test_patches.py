"""Objects with a style: cells, shades, and the member nearest to given images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdi_gs.toybox.classes import CLASSES, ClassName
from sdi_gs.toybox.objects import canonical_object, scene_primitives
from sdi_gs.toybox.patches import PatchRender, cells_at, changing_borders, draw_shades, nearest_shades, render_patches
from sdi_gs.toybox.primitives import BOX, CENTRE, CONE, CUP, EXTENT, KIND, PRISM, ROTATION
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.styles import CELL_OFFSET, DARK_SHADE, STYLE_NAMES, STYLES, StyleName
from sdi_gs.toybox.views import toybox_cameras

CAMERAS = toybox_cameras(torch.tensor([10.0, 100.0, 190.0, 280.0]), torch.tensor([15.0, -5.0, 30.0, 70.0]), size=64)
CHAIR = canonical_object("chair", "green", "patchwork")


def flat_faces(class_name: ClassName) -> list[list[float]]:
    """Return where flat faces across each axis lie, for the canonical object."""
    faces: list[list[float]] = [[], [], []]
    flat_axes = {BOX: (0, 1, 2), PRISM: (0, 2), CONE: (2,), CUP: (2,)}
    for row in scene_primitives((canonical_object(class_name, "red"),)):
        rotation = row[ROTATION : ROTATION + 9].reshape(3, 3)
        for local in flat_axes.get(int(row[KIND]), ()):
            axis = int(np.abs(rotation[:, local]).argmax())
            if abs(rotation[axis, local]) > 0.999:
                faces[axis] += [row[CENTRE + axis] + sign * row[EXTENT + local] for sign in (-1.0, 1.0)]
    return faces


@pytest.mark.parametrize("class_name", CLASSES)
def test_no_flat_face_of_a_canonical_object_lies_on_a_face_of_the_cells(class_name: ClassName) -> None:
    sides = STYLES["patchwork"].sides
    for faces, side, offset in zip(flat_faces(class_name), sides, CELL_OFFSET, strict=True):
        distance = [abs((face - offset + 0.5 * side) % side - 0.5 * side) for face in faces]
        assert min(distance, default=1.0) > 0.0025


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_points_share_a_cell_if_they_share_every_slab(style: StyleName) -> None:
    points = torch.rand(400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.9 - 0.95
    cut = list(zip(STYLES[style].sides, CELL_OFFSET, strict=True))
    slabs = [
        tuple(math.floor((p - offset) / side) for p, (side, offset) in zip(point, cut, strict=True) if side < math.inf)
        for point in points.tolist()
    ]
    cells = cells_at(points, style).tolist()
    assert len(set(zip(slabs, cells, strict=True))) == len(set(slabs)) == len(set(cells))
    assert 0 <= min(cells) and max(cells) < STYLES[style].num_cells


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_light_members_are_the_plain_object_and_dark_ones_half_as_bright(style: StyleName) -> None:
    renders = render_patches([replace(CHAIR, style=style)] * 4, CAMERAS)
    plain = render_scenes([(CHAIR,)] * 4, CAMERAS, background=(0.2, 0.5, 0.9))
    lit = torch.ones(STYLES[style].num_cells, dtype=torch.bool)
    torch.testing.assert_close(renders.shaded(lit, (0.2, 0.5, 0.9)), plain.rgb, rtol=0.0, atol=1e-6)
    dark = renders.shaded(~lit, (0.0, 0.0, 0.0))
    torch.testing.assert_close(dark, DARK_SHADE * renders.foreground, rtol=0.0, atol=1e-6)
    assert torch.equal(renders.cells >= 0, plain.alpha[..., 0] > 0.0)


def test_one_cell_changes_its_own_pixels_only() -> None:
    renders = render_patches([CHAIR] * 4, CAMERAS)
    light = draw_shades("patchwork", np.random.default_rng(0))
    cell = int(renders.cells[0].max())
    changed = light.clone()
    changed[cell] = ~changed[cell]
    differs = (renders.shaded(light) != renders.shaded(changed)).any(dim=-1)
    assert differs[0].any()
    assert torch.equal(differs, renders.cells == cell)


def test_cells_turn_and_move_with_the_object() -> None:
    moved = replace(CHAIR, yaw_deg=90.0, scale=0.8)
    turned = toybox_cameras(CAMERAS.azimuth_deg + 90.0, CAMERAS.elevation_deg, size=64)
    still = render_patches([CHAIR] * 4, CAMERAS).cells
    # The object's middle fills the same pixels at 0.8 of the size seen from 0.8 of the distance.
    near = turned.world_from_camera.clone()
    near[:, :3, 3] *= 0.8
    closer = render_patches([moved] * 4, replace(turned, world_from_camera=near)).cells
    covered = (still >= 0) & (closer >= 0)
    assert (still == closer)[covered].double().mean() > 0.98


def test_the_nearest_member_of_a_members_images_is_itself() -> None:
    renders = render_patches([CHAIR] * 4, CAMERAS)
    light = draw_shades("patchwork", np.random.default_rng(4))
    blurred = renders.shaded(light) + 0.02 * torch.randn(4, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    found = nearest_shades(blurred, renders, "patchwork")
    # A cell that shows in a sliver of a pixel cannot be told from noise.
    pixels = torch.bincount(renders.cells[renders.cells >= 0], minlength=len(light))
    assert int((pixels > 8).sum()) > 80
    assert torch.equal(found[pixels > 8], light[pixels > 8])


def test_changing_borders_are_counted_pixel_by_pixel() -> None:
    rng = np.random.default_rng(5)
    cells = rng.integers(-1, 6, (2, 7, 9))
    light = rng.random(6) < 0.5
    changes = []
    for image in cells:
        for y in range(7):
            for x in range(9):
                for b, a in ((y + 1, x), (y, x + 1)):
                    if b < 7 and a < 9 and -1 not in (image[y, x], image[b, a]) and image[y, x] != image[b, a]:
                        changes.append(light[image[y, x]] != light[image[b, a]])
    empty = torch.zeros(2, 7, 9, 1)
    renders = PatchRender(foreground=empty.expand(-1, -1, -1, 3), alpha=empty, cells=torch.from_numpy(cells))
    assert changing_borders(torch.from_numpy(light), renders) == pytest.approx(np.mean(changes))
    assert changing_borders(torch.ones(6, dtype=torch.bool), renders) == 0.0


def test_about_half_of_a_members_borders_change() -> None:
    renders = render_patches([CHAIR] * 4, CAMERAS)
    shares = [changing_borders(draw_shades("patchwork", np.random.default_rng(seed)), renders) for seed in range(8)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert max(shares) - min(shares) < 0.2
