"""What a small call costs: the Python around the kernels, counted."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from typing import Any

import torch

from sdi_gs.rasterize import rasterization


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions are called, built-in ones included."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return pstats.Stats(profile).total_calls  # pyright: ignore[reportAttributeAccessIssue]


def test_a_small_step_makes_few_calls(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(16)
    leaves, cameras = scene.leaves(), scene.cameras()

    def step() -> None:
        rendered, alphas, _ = rasterization(**leaves, **cameras, packed=False)
        (rendered.square().sum() + alphas.sum()).backward()

    step()
    # A call that meets the garbage collector is longer. It was 671 once; torch's own part is about 100.
    assert min(calls_of(step) for _ in range(5)) <= 335


def test_nothing_is_copied_that_lies_in_order(make_scene: Callable[..., Any]) -> None:
    scene = make_scene(16)
    rendered, alphas, meta = rasterization(**scene.leaves(), **scene.cameras(), packed=False)
    composited: Any = rendered.grad_fn
    items = meta["means2d"].grad_fn.projected.items
    for name in ("means2d", "depths", "conics", "radii", "tiles_per_gauss"):
        assert torch.from_numpy(getattr(items, name)).data_ptr() == meta[name].data_ptr(), name
    for image, array in zip((rendered, alphas), composited.images, strict=True):
        assert torch.from_numpy(array).data_ptr() == image.data_ptr()
