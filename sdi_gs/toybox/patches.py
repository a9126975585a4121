"""Renders of objects with a style (``styles.py``): patches of the surface that are light or dark.

The heaviest surface in a pixel decides on the pixel's cell, and the cell's shade multiplies all of the pixel's
foreground. So each pixel depends on exactly one shade, and a render is known for all 2^patches members at once. Towards
its border a patch fades to the middle of the two shades: the borders are seams without a shade of their own, so that
pixels on them need no second shade to be antialiased.

Letters: B images, H W pixels, Q cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.objects import PlacedObject
from sdi_gs.toybox.renderer import WHITE, render_scenes
from sdi_gs.toybox.styles import CELL_OFFSET, DARK_SHADE, LIGHT_SHADE, REACH, SEAM, STYLES, StyleName


@dataclass(frozen=True, kw_only=True)
class PatchRender:
    """Renders of styled objects with all shades open."""

    foreground: Tensor  # [B, H, W, 3] the mean over all members over black, [0, 1]
    contrast: Tensor  # [B, H, W, 3] what a light cell adds to the mean, and a dark one takes away
    alpha: Tensor  # [B, H, W, 1] share of the pixel that is covered
    cells: Tensor  # [B, H, W] int64, the cell that decides on the pixel's shade; -1 where nothing covers it

    def shaded(
        self,
        light: Tensor,  # [Q] or [B, Q] bool, which cells are light
        background: Tensor | Sequence[float] = WHITE,  # [B, 3] or [3]
    ) -> Tensor:  # [B, H, W, 3]
        """Return the images of one member, or of one member each."""
        by_image = light.expand(len(self.cells), -1)
        lit = torch.gather(by_image, 1, self.cells.flatten(1).clamp_min(0)).view_as(self.cells)
        return self.mean(background) + torch.where(lit, 1.0, -1.0)[..., None] * self.contrast

    def mean(
        self,
        background: Tensor | Sequence[float] = WHITE,  # [B, 3] or [3]
    ) -> Tensor:  # [B, H, W, 3]
        """Return the mean over all members."""
        behind = torch.as_tensor(background, dtype=self.alpha.dtype).expand(len(self.cells), 3)[:, None, None]
        return self.foreground + (1.0 - self.alpha) * behind


def render_patches(items: Sequence[PlacedObject], cameras: CameraBatch) -> PatchRender:
    """Render object b with camera b, and find every pixel's cell.

    Raises ValueError if the counts differ, and if the objects are not of one style.
    """
    style = items[0].style
    if style is None or any(item.style != style for item in items):
        raise ValueError(f"patches need objects of one style, got {sorted({str(item.style) for item in items})}")
    plain = render_scenes([(item,) for item in items], cameras, background=(0.0, 0.0, 0.0))
    covered = plain.alpha[..., 0] > 0.0
    image, row, column = torch.nonzero(covered, as_tuple=True)
    depth = plain.depth[image, row, column, 0].double()
    pose, intrinsics = cameras.world_from_camera.cpu().double(), cameras.intrinsics.cpu().double()
    focal, centre = intrinsics[:, [0, 1], [0, 1]], intrinsics[:, [0, 1], [2, 2]]
    pixel = torch.stack([column, row], dim=1) + 0.5
    seen = torch.cat([(pixel - centre[image]) / focal[image], torch.ones(len(image), 1)], dim=1) * depth[:, None]
    points = (pose[image, :3, :3] @ seen[:, :, None])[:, :, 0] + pose[image, :3, 3]
    normals = plain.normal[image, row, column].double()
    points, normals = _in_object_frame(points, normals, items, image)
    cells, strength = torch.full(covered.shape, -1), torch.zeros(covered.shape)
    cells[covered] = cells_at(points, style)
    strength[covered] = (border_distance(points, normals, style) / SEAM).clamp(max=1.0).float()
    return PatchRender(
        foreground=0.5 * (LIGHT_SHADE + DARK_SHADE) * plain.rgb,
        contrast=0.5 * (LIGHT_SHADE - DARK_SHADE) * strength[..., None] * plain.rgb,
        alpha=plain.alpha,
        cells=cells,
    )


def cells_at(
    points: Tensor,  # [N, 3] in the object's frame
    style: StyleName,
) -> Tensor:  # [N] int64
    """Return the cells that hold the points."""
    cut = STYLES[style]
    index = torch.zeros(len(points), dtype=torch.int64)
    for axis, (side, count, offset) in enumerate(zip(cut.sides, cut.counts, CELL_OFFSET, strict=True)):
        if count > 1:
            # The first cell begins at most one side below -REACH.
            begin = -REACH - (-REACH - offset) % side
            along = torch.floor((points[:, axis] - begin) / side).long().clamp(0, count - 1)
        else:
            along = torch.zeros_like(index)
        index = index * count + along
    return index


def border_distance(
    points: Tensor,  # [N, 3] in the object's frame
    normals: Tensor,  # [N, 3] of the surface, unit length
    style: StyleName,
) -> Tensor:  # [N]
    """Return the distance to the border of the point's patch along a flat surface, scene units.

    A face of a cell that is parallel to the surface cuts no border into it, however near it is.
    """
    nearest = torch.full((len(points),), math.inf, dtype=points.dtype)
    for axis, (side, offset) in enumerate(zip(STYLES[style].sides, CELL_OFFSET, strict=True)):
        if side < math.inf:
            within = (points[:, axis] - offset) % side
            across = (1.0 - normals[:, axis].square()).clamp_min(1e-12).sqrt()
            nearest = torch.minimum(nearest, torch.minimum(within, side - within) / across)
    return nearest


def draw_shades(style: StyleName, rng: np.random.Generator) -> Tensor:  # [Q] bool
    """Draw which cells are light, each with probability one half."""
    return torch.from_numpy(rng.random(STYLES[style].num_cells) < 0.5)


def nearest_shades(
    rgb: Tensor,  # [B, H, W, 3] over white
    renders: PatchRender,  # B of them, of one object
    style: StyleName,
) -> Tensor:  # [Q] bool
    """Return the member of one object whose images have the least squared difference from the given ones.

    It is exact: a pixel depends on one shade, so each cell takes the shade with the smaller error over all its pixels.
    """
    everywhere = torch.ones(STYLES[style].num_cells, dtype=torch.bool)
    error = [(rgb - renders.shaded(lit)).square().sum(dim=-1) for lit in (everywhere, ~everywhere)]
    covered = renders.cells >= 0
    gain = torch.zeros(len(everywhere), dtype=torch.float64)
    gain.index_add_(0, renders.cells[covered], (error[1] - error[0])[covered].double())
    return gain > 0.0


def changing_borders(
    light: Tensor,  # [Q] bool
    renders: PatchRender,
) -> float:
    """Return the share of the visible borders between two cells at which the shade changes.

    It is one half for a typical member, 0 for an object of one shade. A border counts once per pair of neighbouring
    pixels on its sides, in all images.
    """
    cells, changes, borders = renders.cells, 0, 0
    for axis in (1, 2):
        length = cells.shape[axis] - 1
        here, there = cells.narrow(axis, 0, length), cells.narrow(axis, 1, length)
        border = (here >= 0) & (there >= 0) & (here != there)
        changes += int((light[here[border]] != light[there[border]]).sum())
        borders += int(border.sum())
    return changes / max(borders, 1)


def _in_object_frame(
    points: Tensor,  # [N, 3] world
    normals: Tensor,  # [N, 3] world
    items: Sequence[PlacedObject],  # B of them
    image: Tensor,  # [N] the image, and so the object, of each point
) -> tuple[Tensor, Tensor]:  # [N, 3] each
    """Undo each object's place, turn about z and scale."""
    position = torch.tensor([item.position for item in items], dtype=torch.float64)
    turn = torch.tensor([math.radians(item.yaw_deg) for item in items], dtype=torch.float64)[image]
    scale = torch.tensor([item.scale for item in items], dtype=torch.float64)[image]
    cos, sin = torch.cos(turn), torch.sin(turn)

    def unturned(vectors: Tensor) -> Tensor:
        x, y, z = vectors.unbind(1)
        return torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=1)

    return unturned(points - position[image]) / scale[:, None], unturned(normals)
