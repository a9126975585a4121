"""Tile lists against gsplat's torch version and a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gsplat.cuda import _torch_impl

from sdi_gs.rasterize import rasterization
from sdi_gs.rasterize.kernels import binning


@pytest.mark.parametrize("packed", [False, True])
def test_tile_lists_match_gsplat(packed: bool, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(60, width=70, height=45, scales=(0.02, 0.2))
    cameras = scene.cameras()
    _, _, dense = rasterization(**scene.leaves(), **cameras, packed=False)
    _, _, meta = rasterization(**scene.leaves(), **cameras, packed=packed)
    tile_counts, _, flatten_ids = _torch_impl._isect_tiles(
        dense["means2d"].detach(), dense["radii"], dense["depths"].detach(), 16, 5, 3
    )
    if packed:
        place = torch.full((2 * 60,), -1, dtype=torch.int32)
        place[meta["camera_ids"] * 60 + meta["gaussian_ids"]] = torch.arange(len(meta["camera_ids"]), dtype=torch.int32)
        flatten_ids = place[flatten_ids.long()]
        tile_counts = tile_counts[meta["camera_ids"], meta["gaussian_ids"]]
    assert (meta["tile_width"], meta["tile_height"]) == (5, 3)
    assert torch.equal(meta["tiles_per_gauss"].int(), tile_counts.int())
    assert torch.equal(meta["flatten_ids"], flatten_ids.int())
    offsets = meta["isect_offsets"].flatten()
    assert offsets[0] == 0 and (offsets.diff() >= 0).all() and offsets[-1] <= len(flatten_ids)


def test_equal_depths_are_drawn_in_the_order_given() -> None:
    # Two opaque discs at the same place: the first one hides the second.
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    arguments = {
        "means": torch.zeros(2, 3),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2),
        "scales": torch.full((2, 3), 0.5),
        "opacities": torch.full((2,), 0.99),
        "viewmats": torch.eye(4)[None]
        + torch.tensor([0.0, 0.0, 0.0, 3.0])[None, None] * torch.eye(4)[2][None, :, None],
        "Ks": torch.tensor([[[20.0, 0.0, 8.5], [0.0, 20.0, 8.5], [0.0, 0.0, 1.0]]]),
        "width": 17,
        "height": 17,
    }
    for order in ([0, 1], [1, 0]):
        rendered, _, _ = rasterization(colors=colors[order], **arguments)
        assert rendered[0, 8, 8].argmax() == order[0]
        assert rendered[0, 8, 8, order[0]] == pytest.approx(0.99, abs=1e-5)


def test_tiles_are_front_to_back(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(3000)
    cameras = scene.cameras()
    _, _, meta = rasterization(**scene.leaves(), **cameras, packed=False)
    depths = meta["depths"].detach().flatten()[meta["flatten_ids"].long()]
    bounds = [*meta["isect_offsets"].flatten().tolist(), len(depths)]
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        assert (depths[first:last].diff() >= 0).all()


@pytest.mark.parametrize("spread", [1, 2, 300, 1 << 20, (1 << 24) + 1, 1 << 31])
@pytest.mark.parametrize("count", [1, 100, 6000])
def test_depths_are_sorted_stably_whatever_their_range(count: int, spread: int) -> None:
    generator = np.random.default_rng(0)
    keys = (generator.integers(0, spread, count) + 70_000).astype(np.uint32)
    expected = np.argsort(keys, kind="stable")
    assert np.array_equal(binning._order(keys.copy(), keys.min(), keys.max()), expected)
