"""The check of half precision on a narrow copy of Stable Diffusion 2.1's networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.doctor.check_precision import check_precision
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.sd21_models import load_sd21, weights_at_hand

pytestmark = pytest.mark.slow


def test_half_precision_passes_and_says_which_weights(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    rows = list(check_precision(setup))
    assert failures(rows) == []
    cosines = [row for row in rows if "cosine" in row.what]
    assert [row.what for row in cosines] == ["float16: cosine of the target", "bfloat16: cosine of the target"]
    for row in cosines:
        assert row.figure is not None and row.figure < 1.0, "half precision is not float32"
        assert "random weights" in row.note


def spoilt(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """``load_sd21`` with a U-Net that goes wrong in float16 alone."""

    def load(*arguments: Any, dtype: torch.dtype, **options: Any) -> Any:
        prior: Any = load_sd21(*arguments, dtype=dtype, **options)
        if dtype == torch.float16:
            plain = prior.predict_noise
            prior.predict_noise = lambda *given: change(plain(*given))
        return prior

    return load


def test_a_prediction_that_overflows_is_named(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    def overflown(predicted: Tensor) -> Tensor:
        predicted[..., 0, 0] = float("inf")
        return predicted

    assert failures(check_precision(setup, load=spoilt(overflown))) == [
        "float16: finite share of the target",
        "float16: cosine of the target",
    ]


def test_the_published_networks_are_held_to_more_than_a_dry_run(
    setup: CheckSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = weights_at_hand(miniature=True)
    told = replace(narrow, miniature=False)
    monkeypatch.setattr("sdi_gs.doctor.check_precision.weights_at_hand", lambda *, miniature: told)
    rows = check_precision(setup, load=lambda weights, **options: load_sd21(narrow, **options))
    assert {row.limit for row in rows if "cosine" in row.what} == {0.999}


def test_a_prediction_that_loses_digits_is_named(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    def coarse(predicted: Tensor) -> Tensor:
        return predicted + 0.2 * predicted.std() * torch.randn_like(predicted)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert failures(check_precision(setup, load=spoilt(coarse))) == ["float16: cosine of the target"]
