"""Whether densification comes to the same cloud on two devices: each strategy, fitted to pictures of a toybox object.

Both sides begin with the same cloud and see the same pictures; where gsplat draws at random while it splits or moves
Gaussians, each device draws its own numbers.

Letters: V views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.doctor.rig import Rig
from sdi_gs.doctor.rows import Row, at_least, at_most
from sdi_gs.fitting import fit_to_images
from sdi_gs.representations.config import DensifyConfig, GaussiansConfig, Strategy
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.run_config import RunConfig
from sdi_gs.scene import make_scene
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.views import render_views, ring_cameras

COUNT_LIMIT = 0.05
"""Of the reference's final count."""
LOSS_LIMIT = 0.5
"""Of the loss at the start, on views that were not trained on."""
AGREEMENT_LIMIT = 1.0
"""dB between the two sides' final losses."""

Fit = Callable[[RunConfig, torch.device], Gaussians]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One side's cloud after the last step."""

    count: int
    loss: float
    """Mean squared error of views that were not trained on."""
    finite: bool


def check_growth(rig: Rig, *, fit: Fit | None = None) -> Iterator[Row]:
    """Four rows per strategy; ``fit`` stands in for the side under test."""
    size = rig.size.growth_image_size
    item = canonical_object("robot", "blue")
    unseen = ring_cameras(rig.toybox.cameras, 6, size, elevation_deg=15.0)
    truth = render_scenes([(item,)] * len(unseen), unseen).rgb

    def loss_of(cloud: Gaussians) -> float:
        return float((render_views(cloud, unseen).rgb - truth).square().mean())

    def fitted(config: RunConfig, device: torch.device) -> Gaussians:
        scene = fit_to_images(
            config,
            lambda cameras, background: _pictures(cameras, background),
            image_size=size,
            device=device,
            start=_start(config),
        )
        assert isinstance(scene.representation, Gaussians)
        return scene.representation

    def _pictures(cameras: CameraBatch, background: torch.Tensor) -> torch.Tensor:
        return render_scenes([(item,)] * len(cameras), cameras, background).rgb

    for strategy in get_args(Strategy):
        config = growth_config(rig.toybox, strategy, rig.size.growth_steps)
        before = loss_of(Gaussians(_start(config)["gaussians"]))
        ours = _summary((fit or fitted)(config, rig.device), loss_of)
        theirs = _summary(fitted(config, rig.reference), loss_of)
        yield from _rows(strategy, before, ours, theirs, start=config.gaussians.num_initial)


def growth_config(base: RunConfig, strategy: Strategy, steps: int) -> RunConfig:
    """A short run that refines every tenth of its length and grows well past its start."""
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
