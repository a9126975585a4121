"""The same densification under other units of the loss and of the image, on toybox."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.densify import DensifyConfig, Strategy
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
STEPS, START, CAP = 13, 300, 1000
THRESHOLD = 3e-4
"""Between the gradients of this scene, as they are under a loss that is a mean over pixels."""


def config(strategy: Strategy, *, loss: float = 1.0, image_size: int = 64) -> RunConfig:
    """Four refinements in thirteen steps by random noise, which takes one call of the prior."""
    base = preset_named("smoke").config
    weights = {name: loss * getattr(base.losses, name) for name in ("distillation", "fog", "needles")}
    return replace(
        base,
        prompt="a green chair",
        steps=STEPS,
        guidance=replace(base.guidance, random_fraction=1.0),
        gaussians=replace(base.gaussians, num_initial=START),
        losses=replace(base.losses, **weights),
        densify=DensifyConfig(
            strategy=strategy, start=0.0, stop=1.0, every=3, max_gaussians=CAP, grow_share=0.2, grow_grad2d=THRESHOLD
        ),
        ideal_prior=replace(base.ideal_prior, renders_per_view=8, unconditional_renders=16, image_size=image_size),
    )


def counts(strategy: Strategy, **units: Any) -> list[int]:
    """Gaussians after every step."""
    settings = config(strategy, **units)
    trainer = Trainer(settings, load_prior(settings, device=CPU), device=CPU)
    return [trainer.train_step().num_points for _ in range(STEPS)]


def grown(strategy: Strategy, **units: Any) -> float:
    """Factor by which the count rose."""
    return counts(strategy, **units)[-1] / START


UNITS = {"loss x 1000": {"loss": 1e3}, "loss / 1000": {"loss": 1e-3}, "twice the resolution": {"image_size": 128}}


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_growth_by_share_is_the_same_in_all_units(units: dict[str, Any]) -> None:
    usual, other = grown("share"), grown("share", **units)
    # 20 % four times, less what is pruned.
    assert 1.5 < usual < 1.2**4 + 0.02
    assert other == pytest.approx(usual, rel=0.03)


def test_growth_by_threshold_is_everything_or_nothing() -> None:
    usual = grown("threshold")
    assert 1.1 < usual < 0.9 * CAP / START
    assert grown("threshold", loss=1e3) == CAP / START
    assert grown("threshold", loss=1e-3) <= 1.0
    # A mean over pixels keeps its unit at twice the side, a sum, as distillation codes have it, becomes four times it.
    assert grown("threshold", image_size=128) == pytest.approx(usual, rel=0.1)
    assert grown("threshold", loss=4.0, image_size=128) == CAP / START
