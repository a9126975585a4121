"""The metric of fronts, on splats that are fitted to forged pictures."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, joined_cameras
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import Representation
from sdi_gs.evaluation.evaluate import evaluate
from sdi_gs.evaluation.metrics.fronts import FRONTS
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.toybox.fronts import Fronts
from sdi_gs.toybox.objects import sample_object
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.truth import render_truth
from sdi_gs.toybox.truth_yaw import turned
from sdi_gs.training.fitting import fit_to_images

KEYS = {field.name for field in fields(Fronts)}


def fitted(*, two_faced: bool) -> Representation:
    """A robot, as it is or as two front halves, back to back."""
    robot = sample_object("robot", "blue", split_seed("val", 5))

    def seen(cameras: CameraBatch, background: Tensor) -> Tensor:
        parts = []
        for row, azimuth in enumerate(cameras.azimuth_deg.tolist()):
            behind = two_faced and 90.0 < azimuth % 360.0 < 270.0
            parts.append(turned(cameras.rows(slice(row, row + 1)), 180.0 if behind else 0.0))
        return render_truth([robot], joined_cameras(parts), background).rgb

    config = replace(
        preset_named("toybox-ideal").config,
        steps=80,
        backgrounds=("white",),
        gaussians=GaussiansConfig(num_initial=1200, initial_opacity=0.3, means_lr=1e-2),
    )
    return fit_to_images(config, seen, image_size=64, device=torch.device("cpu")).representation


@pytest.mark.parametrize(("two_faced", "fronts"), [(False, 1), (True, 2)])
def test_splats_of_two_faces_have_two_fronts(two_faced: bool, fronts: int) -> None:
    scene = fitted(two_faced=two_faced)
    scores = evaluate(scene, "a blue robot", metrics=[FRONTS]).scores
    assert set(scores) == KEYS
    assert (scores["fronts"], scores["two_fronts"]) == (fronts, two_faced)
    assert (scores["sides_agree"] > 0.9) == (not two_faced)
    assert scores["hollow"] is not None
    for prompt in ("a robot", "a green mushroom", "a blue robot on a red cube", "a patchwork blue robot"):
        nothing = evaluate(scene, prompt, metrics=[FRONTS]).scores
        assert nothing == dict.fromkeys(KEYS)
