"""The check of densification passes equal clouds and names what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch

from sdi_gs.contracts import Representation
from sdi_gs.doctor.check_growth import check_growth, fitted_robot
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.settings.densify import Strategy
from sdi_gs.settings.run import RunConfig

pytestmark = pytest.mark.slow


def test_every_strategy_grows_learns_and_repeats_itself(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    rows = list(check_growth(setup))
    assert failures(rows) == []
    assert len(rows) == 4 * len(get_args(Strategy))
    for row in rows:
        if row.what.endswith("final count off"):
            before, after, _ = (int(word) for word in row.note.split() if word.isdigit())
            assert row.figure == 0.0 and after > before


def changed(cloud: Gaussians, **values: torch.Tensor) -> Gaussians:
    return Gaussians({name: value.detach() for name, value in cloud.params.items()} | values)


def without_a_tenth(cloud: Gaussians) -> Gaussians:
    return Gaussians({name: value.detach()[: -len(cloud) // 10] for name, value in cloud.params.items()})


def with_a_hole(cloud: Gaussians) -> Gaussians:
    opacities = cloud.params["opacities"].detach().clone()
    opacities[0] = float("inf")
    return changed(cloud, opacities=opacities)


def grey(cloud: Gaussians) -> Gaussians:
    return changed(cloud, sh0=torch.zeros_like(cloud.params["sh0"]))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (without_a_tenth, "share: final count off"),
        (with_a_hole, "share: finite parameters"),
        (grey, "share: final losses apart"),
    ],
)
def test_a_wrong_cloud_is_named(
    wrong: Callable[[Gaussians], Gaussians], named: str, setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    def fit(config: RunConfig, device: torch.device) -> Gaussians:
        fitted = fitted_robot(config, device, image_size=setup.size.growth_image_size)
        assert isinstance(fitted, Gaussians)
        return wrong(fitted)

    rows = check_growth(setup, fit=fit, strategies=("share",))
    assert named in failures(rows)


def test_a_run_that_learns_nothing_is_named(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    def start_again(config: RunConfig, device: torch.device) -> Representation:
        slow = replace(config, learning_rate_scale=1e-3)
        return fitted_robot(slow, device, image_size=setup.size.growth_image_size)

    rows = check_growth(setup, fit=start_again, strategies=("share",))
    assert "share: loss over that at the start" in failures(rows)
