"""What is done before a measured run leaves the run as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdi_gs.configs.presets import preset
from sdi_gs.priors.catalog import load_prior
from sdi_gs.study.warm_up import warm_up
from sdi_gs.training.trainer import Trainer


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("toybox-ideal", {"guidance.views": "words"}),
        ("toybox-ideal", {"views_per_step": 1}),
        ("toybox-ideal-4view", {}),
        ("toybox-ideal-4view", {"views_per_step": 8}),
    ],
)
def test_a_warm_trainer_takes_the_same_steps(name: str, changes: dict[str, Any]) -> None:
    small = {
        "ideal_prior.renders_per_view": 8,
        "ideal_prior.unconditional_renders": 16,
        "ideal_prior.renders_per_window": 8,
        "gaussians.num_initial": 60,
        "steps": 4,
    }
    config = preset(name, small | changes, prompt="a blue robot")
    prior = load_prior(config)
    cold, warm = (Trainer(config, prior) for _ in range(2))
    warm_up(warm)
    assert warm.step == 0
    for one, other in ((cold.host_generator, warm.host_generator), (cold.device_generator, warm.device_generator)):
        assert torch.equal(one.get_state(), other.get_state())
    assert cold.train_step().losses == warm.train_step().losses
