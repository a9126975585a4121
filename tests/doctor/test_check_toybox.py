"""The check of the toybox priors passes equal steps and names what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.check_toybox import check_toybox
from sdi_gs.priors.catalog import load_prior

pytestmark = pytest.mark.slow


def test_a_prior_passes_beside_itself(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    rows = list(check_toybox(setup))
    assert failures(rows) == []
    assert [row.what for row in rows if row.what.startswith("toybox-ideal")] == [
        "toybox-ideal: cosine of the target",
        "toybox-ideal: target off",
        "toybox-ideal: cosine of the noise",
        "toybox-ideal: noise off",
    ]


def test_weights_that_are_not_here_are_no_failure(
    setup: CheckSetup, failures: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdi_gs.doctor.check_toybox.missing_part", lambda folder: "weights")
    rows = list(check_toybox(setup))
    assert failures(rows) == []
    assert [(row.what, row.note) for row in rows if row.verdict == "skipped"] == [
        ("toybox", "its weights did not come with this installation")
    ]


def test_a_prediction_that_is_off_is_named(
    setup: CheckSetup, failures: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdi_gs.doctor.check_toybox.missing_part", lambda folder: "weights")

    def load(name: str, device: torch.device) -> DiffusionPrior:
        prior: Any = load_prior(replace(setup.toybox, prior=name), device=device)
        plain = prior.predict_noise

        def tilted(*given: Any) -> Tensor:
            predicted = plain(*given)
            return predicted + 0.05 * predicted.flip(-1)

        prior.predict_noise = tilted
        return prior

    assert "toybox-ideal: cosine of the target" in failures(check_toybox(setup, load=load))
