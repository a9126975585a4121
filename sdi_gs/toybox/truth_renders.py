"""Renders of true objects in the views of a score, kept in memory for the next score.

Letters: V views, H W pixels, K objects or scenes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, ViewWord, orbit_cameras
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox import metrics
from sdi_gs.toybox.classes import COLOURS
from sdi_gs.toybox.objects import PlacedObject, Shown, recoloured, style_of
from sdi_gs.toybox.patches import PatchRender, changing_borders, nearest_shades, render_patches
from sdi_gs.toybox.styles import StyleName
from sdi_gs.toybox.truth import render_truth

# Objects rendered in one call: large enough to keep threads busy, small enough for memory at 128 px.
OBJECTS_AT_ONCE = 11

VIEW_GRID_AZIMUTHS = 24
# Offset by half a step, so that no azimuth of the grid lies on the border of two view words.
VIEW_GRID_OFFSET_DEG = 7.5

FEW = slice(None, None, 3)
"""Every third view: of three rings of eight, two or three of each, from all sides."""

MOST_BYTES = 400 * 2**20
"""Memory for kept renders: the members of seven prompts at 64 px."""


@dataclass(frozen=True, kw_only=True)
class TrueViews:
    """K true objects over white, each in all V views."""

    rgb: Tensor  # [K, V, H, W, 3] in [0, 1]
    alpha: Tensor  # [K, V, H, W, 1]


class TruthRenders:
    """Renders of true objects in fixed views; the least recently used are dropped beyond ``most_bytes``.

    One object serves any number of scores in the same views: ``score_against_truth(..., renders=renders)``.
    """

    def __init__(self, cameras: CameraBatch, *, most_bytes: int = MOST_BYTES) -> None:
        self.cameras = cameras
        self.shape = (len(cameras), cameras.height, cameras.width)
        self._kept = _KeptTensors(most_bytes)

    @cached_property
    def few(self) -> TruthRenders:
        """Renders in ``FEW`` of the views, for searches."""
        return TruthRenders(self.cameras.rows(FEW), most_bytes=self._kept.most_bytes // 3)

    def views_like(self, items: Sequence[Shown], predicted: RenderOutput) -> TrueViews:
        """Return the true views of K objects with which the predicted views [V, H, W] are compared.

        Every comparison asks here. Plain objects look the same whatever was predicted; of an object with a style it
        is the nearest member, patch by patch over all views.
        """
        if style_of(items[0]) is None:
            return self.views(items)
        rgb, alpha = [], []
        for item in items:
            assert isinstance(item, PlacedObject) and item.style is not None
            patches, light = self._nearest_member(item, item.style, predicted)
            rgb.append(patches.shaded(light))
            alpha.append(patches.alpha)
        return TrueViews(rgb=torch.stack(rgb), alpha=torch.stack(alpha))

    def patch_changes(self, item: Shown, predicted: RenderOutput) -> float | None:
        """Return ``changing_borders`` of the member that the predicted views are compared with; None without a style.

        The nearest member of a plain object's views is plain. Its score would be perfect, its pattern is not.
        """
        if not isinstance(item, PlacedObject) or item.style is None:
            return None
        patches, light = self._nearest_member(item, item.style, predicted)
        return changing_borders(light, patches)

    def views(self, items: Sequence[Shown]) -> TrueViews:
        """Return renders of K objects; of those with a style, the mean over all members."""
        rgb, alpha = self._kept.get(("views", *items), lambda: self._mean_views(items, self.cameras))
        return TrueViews(rgb=rgb, alpha=alpha)

    def silhouettes(self, items: Sequence[Shown]) -> Tensor:  # [K, V, H, W] bool
        """Return the silhouettes of K objects, which do not depend on their colours."""
        uncoloured = [recoloured(item, next(iter(COLOURS))) for item in items]
        (masks,) = self._kept.get(
            ("silhouettes", *uncoloured), lambda: (metrics.silhouette(self._mean_views(items, self.cameras)[1]),)
        )
        return masks

    def in_every_colour(self, item: Shown, index: int = 0) -> TrueViews:
        """Return renders with one object, that with the index in a scene, in each of ``COLOURS``, in their order."""
        return self.views([recoloured(item, colour, index) for colour in COLOURS])

    def from_all_sides(self, item: PlacedObject) -> tuple[Tensor, list[list[ViewWord]]]:
        """Return, for every view, renders [V, 24, H, W, 3] from 24 azimuths at its elevation, and their view words."""
        grids, grid_of = _grids_around(self.cameras)
        (rgb,) = self._kept.get(
            ("sides", item), lambda: (torch.stack([self._mean_views([item], grid)[0][0] for grid in grids]),)
        )
        words = [grid.view_words() for grid in grids]
        return rgb[grid_of], [words[index] for index in grid_of]

    def _mean_views(self, items: Sequence[Shown], cameras: CameraBatch) -> tuple[Tensor, Tensor]:
        """Return renders [K, V, H, W, 3] and their alpha [K, V, H, W, 1], means over the members of a style."""
        if style_of(items[0]) is not None:
            patches = [self._patches(item, cameras) for item in items if isinstance(item, PlacedObject)]
            return torch.stack([item.mean() for item in patches]), torch.stack([item.alpha for item in patches])
        render = render_truth(items, cameras)
        return render.rgb.unflatten(0, (len(items), -1)), render.alpha.unflatten(0, (len(items), -1))

    def _nearest_member(
        self, item: PlacedObject, style: StyleName, predicted: RenderOutput
    ) -> tuple[PatchRender, Tensor]:  # and [Q] bool
        """Return an object's patches, and which are light in the member nearest to the predicted views."""
        patches = self._patches(item, self.cameras)
        return patches, nearest_shades(predicted.rgb, patches, style)

    def _patches(self, item: PlacedObject, cameras: CameraBatch) -> PatchRender:
        """Return renders of an object with a style, its shades open; kept in the views of the score."""
        if cameras is not self.cameras:
            return render_patches([item] * len(cameras), cameras)

        def make() -> tuple[Tensor, ...]:
            made = render_patches([item] * len(cameras), cameras)
            return made.foreground, made.contrast, made.alpha, made.cells

        foreground, contrast, alpha, cells = self._kept.get(("patches", item), make)
        return PatchRender(foreground=foreground, contrast=contrast, alpha=alpha, cells=cells)


def in_chunks(items: Sequence[Shown]) -> Iterator[Sequence[Shown]]:
    """Split objects into groups that are rendered and kept together."""
    for start in range(0, len(items), OBJECTS_AT_ONCE):
        yield items[start : start + OBJECTS_AT_ONCE]


def _grids_around(cameras: CameraBatch) -> tuple[list[CameraBatch], list[int]]:
    """Return rings of cameras, one for all views of the same elevation, distance and lens, and each view's ring."""
    azimuth = VIEW_GRID_OFFSET_DEG + 360.0 / VIEW_GRID_AZIMUTHS * torch.arange(VIEW_GRID_AZIMUTHS)
    rings: dict[tuple[float, float, float], int] = {}
    grid_of = []
    for v in range(len(cameras)):
        distance = cameras.world_from_camera[v, :3, 3].norm().item()
        fov_y_deg = math.degrees(2.0 * math.atan(0.5 * cameras.height / cameras.intrinsics[v, 1, 1].item()))
        grid_of.append(rings.setdefault((cameras.elevation_deg[v].item(), distance, fov_y_deg), len(rings)))
    grids = [
        orbit_cameras(
            azimuth, *(torch.full_like(azimuth, value) for value in ring), width=cameras.width, height=cameras.height
        )
        for ring in rings
    ]
    return grids, grid_of


class _KeptTensors:
    """Tensors by key; the latest are kept whatever their size."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return the tensors of a key, made where they are not kept."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self._bytes() > self.most_bytes:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _bytes(self) -> int:
        return sum(tensor.nbytes for tensors in self._kept.values() for tensor in tensors)
