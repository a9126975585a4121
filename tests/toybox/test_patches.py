"""Objects with a style: cells, shades, and the member nearest to given images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sdi_gs.toybox.classes import CLASSES, ClassName
from sdi_gs.toybox.metrics import psnr
from sdi_gs.toybox.objects import canonical_object, scene_primitives
from sdi_gs.toybox.patches import (
    PatchRender,
    border_distance,
    cells_at,
    changing_borders,
    draw_shades,
    nearest_shades,
    render_patches,
)
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
        assert min(distance, default=1.0) > 0.005


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
def test_away_from_seams_light_is_the_plain_object_and_dark_a_share_of_it(style: StyleName) -> None:
    renders = render_patches([replace(CHAIR, style=style)] * 4, CAMERAS)
    plain, black = (render_scenes([(CHAIR,)] * 4, CAMERAS, ground).rgb for ground in ((0.2, 0.5, 0.9), (0.0, 0.0, 0.0)))
    lit = torch.ones(STYLES[style].num_cells, dtype=torch.bool)
    light, dark = renders.shaded(lit, (0.2, 0.5, 0.9)), renders.shaded(~lit, (0.0, 0.0, 0.0))
    full = (light - plain).abs().amax(dim=-1) < 1e-6
    inside = full & (renders.alpha[..., 0] > 0.0)
    assert inside.sum() > 0.2 * (renders.alpha > 0.0).sum()
    torch.testing.assert_close(dark[inside], DARK_SHADE * black[inside], rtol=0.0, atol=1e-6)
    assert torch.equal(renders.cells >= 0, renders.alpha[..., 0] > 0.0)
    # On a seam both shades meet in the middle.
    middle = renders.mean((0.0, 0.0, 0.0))
    assert ((light[~full] < plain[~full]).any(dim=-1)).all()
    assert (dark <= middle + 1e-6).all()
    torch.testing.assert_close(middle, 0.5 * (1.0 + DARK_SHADE) * black, rtol=0.0, atol=1e-6)


def test_the_distance_to_a_border_is_measured_along_the_surface() -> None:
    x, y, z = CELL_OFFSET
    middle = torch.tensor([x + 0.01, y + 0.06, z + 0.1], dtype=torch.float64)
    tilted = [0.6, 0.0, 0.8]
    normals = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], tilted], dtype=torch.float64)
    distance = border_distance(middle.expand(3, 3), normals, "patchwork")
    # Parallel to the near face, 0.06 to the next one; across it, 0.01; at a slope, 0.01 / sin of the angle.
    torch.testing.assert_close(distance, torch.tensor([0.06, 0.01, 0.01 / 0.8], dtype=torch.float64))


def test_pixels_are_nearly_the_mean_of_what_they_cover() -> None:
    """Without seams, pixels of a hard edge differ from their mean by 34 dB."""
    light = draw_shades("patchwork", np.random.default_rng(0))
    fine_cameras = toybox_cameras(CAMERAS.azimuth_deg, CAMERAS.elevation_deg, size=256)
    fine = render_patches([CHAIR] * 4, fine_cameras).shaded(light)
    covered = torch.nn.functional.avg_pool2d(fine.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    assert psnr(render_patches([CHAIR] * 4, CAMERAS).shaded(light), covered).min() > 36.5


def test_one_cell_changes_its_own_pixels_only() -> None:
    renders = render_patches([CHAIR] * 4, CAMERAS)
    light = draw_shades("patchwork", np.random.default_rng(0))
    cell = int(renders.cells[0].max())
    changed = light.clone()
    changed[cell] = ~changed[cell]
    differs = (renders.shaded(light) != renders.shaded(changed)).any(dim=-1)
    assert differs[0].any()
    assert (renders.cells[differs] == cell).all()
    assert (differs == (renders.cells == cell)).double().mean() > 0.999


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
    assert int((pixels > 8).sum()) > 60
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
    empty, colour = torch.zeros(2, 7, 9, 1), torch.zeros(2, 7, 9, 3)
    renders = PatchRender(foreground=colour, contrast=colour, alpha=empty, cells=torch.from_numpy(cells))
    assert changing_borders(torch.from_numpy(light), renders) == pytest.approx(np.mean(changes))
    assert changing_borders(torch.ones(6, dtype=torch.bool), renders) == 0.0


def test_about_half_of_a_members_borders_change() -> None:
    renders = render_patches([CHAIR] * 4, CAMERAS)
    shares = [changing_borders(draw_shades("patchwork", np.random.default_rng(seed)), renders) for seed in range(8)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert max(shares) - min(shares) < 0.2
