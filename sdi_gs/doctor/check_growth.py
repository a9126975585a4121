"""Check "growth": each densification strategy grows an equivalent cloud on two devices.

Both sides start with the same cloud and fit the same pictures of a toybox object. When gsplat splits or moves Gaussians
at random, each device draws its own numbers.

Letters: V views, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import Representation
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.rows import Row, at_least, at_most
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.representations.catalog import make_scene, restore_representation
from sdi_gs.settings.densify import DensifyConfig, Strategy
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.training.fitting import fit_to_images

COUNT_LIMIT = 0.05
"""Largest difference in the final count, as a share of the reference's."""
LOSS_LIMIT = 0.5
"""Largest final loss, as a share of the initial one, on views that were not trained on."""
AGREEMENT_LIMIT = 1.0
"""Largest difference between the two sides' final losses, in dB."""

_UNSEEN_VIEWS = 6

Fit = Callable[[RunConfig, torch.device], Representation]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The cloud of one side after the last step."""

    count: int
    loss: float
    """Mean squared error on views that were not trained on."""
    finite: bool


def check_growth(
    setup: CheckSetup, *, fit: Fit | None = None, strategies: Sequence[Strategy] = get_args(Strategy)
) -> Iterator[Row]:
    """Yield four rows per strategy; ``fit`` replaces the fitting of the side under test."""
    size = setup.size.growth_image_size
    unseen = ring_cameras(setup.toybox.cameras, _UNSEEN_VIEWS, size, elevation_deg=15.0)
    truth = _pictures(unseen, torch.ones(len(unseen), 3))

    def summary(gaussians: Representation) -> Fitted:
        loss = float((render_views(gaussians, unseen).rgb - truth).square().mean())
        splats = gaussians.splats()
        assert splats is not None
        finite = all(bool(value.isfinite().all()) for value in vars(splats).values())
        return Fitted(count=gaussians.num_points, loss=loss, finite=finite)

    def usual(config: RunConfig, device: torch.device) -> Representation:
        return fitted_robot(config, device, image_size=size)

    for strategy in strategies:
        config = growth_config(setup.toybox, strategy, setup.size.growth_steps)
        before = summary(restore_representation(config, _start(config), device=torch.device("cpu")))
        ours = summary((fit or usual)(config, setup.device))
        theirs = summary(usual(config, setup.reference))
        yield from _rows(strategy, before, ours, theirs)


def fitted_robot(config: RunConfig, device: torch.device, *, image_size: int) -> Representation:
    """Fit a cloud to pictures of toybox's robot; the initial cloud is the same on every device."""
    scene = fit_to_images(config, _pictures, image_size=image_size, device=device, saved=_start(config))
    return scene.representation


def growth_config(base: RunConfig, strategy: Strategy, steps: int) -> RunConfig:
    """Return a short run that refines every tenth of its length and grows well past its initial size."""
    return replace(
        base,
        steps=steps,
        representation="gaussians",
        gaussians=GaussiansConfig(num_initial=600, initial_radius=0.6),
        densify=DensifyConfig(
            strategy=strategy,
            max_gaussians=4000,
            min_gaussians=100,
            start=0.1,
            stop=0.8,
            every=max(steps // 10, 1),
            grow_share=0.1,
        ),
    )


def _start(config: RunConfig) -> dict[str, Any]:
    """Return a scene's state before its first step; random values are drawn on the CPU, where a seed is portable."""
    scene = make_scene(config, generator=torch.Generator().manual_seed(config.seed), device=torch.device("cpu"))
    return scene.state()


def _pictures(
    cameras: CameraBatch,  # V of them
    backgrounds: Tensor,  # [V, 3]
) -> Tensor:  # [V, H, W, 3]
    """Render the true object."""
    return render_scenes([(canonical_object("robot", "blue"),)] * len(cameras), cameras, backgrounds).rgb


def _rows(strategy: Strategy, before: Fitted, ours: Fitted, theirs: Fitted) -> Iterator[Row]:
    yield at_most(
        f"{strategy}: final count off",
        abs(ours.count / theirs.count - 1.0),
        COUNT_LIMIT,
        unit="share",
        note=f"from {before.count} to {ours.count} here and {theirs.count} there",
    )
    yield at_least(f"{strategy}: finite parameters", float(ours.finite), 1.0)
    yield at_most(
        f"{strategy}: loss over that at the start",
        ours.loss / before.loss,
        LOSS_LIMIT,
        note=f"{ours.loss:.5f} at the end",
    )
    apart = 10.0 * abs(math.log10(ours.loss / theirs.loss)) if ours.loss > 0.0 else math.nan
    yield at_most(f"{strategy}: final losses apart", apart, AGREEMENT_LIMIT, unit="dB")
