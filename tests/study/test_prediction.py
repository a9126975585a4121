"""Predicted seconds: one measurement for all that costs the same, kept for the next study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_studies import ARMS, BASE, COST, SCHEDULE

from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.cost import Cost
from sdi_gs.study.prediction import COSTS, Predictor


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    monkeypatch.setattr(Predictor, "schedule", lambda self, config: SCHEDULE)
    return []


def predictor(folder: Path, measured: list[RunConfig]) -> Predictor:
    def measure(config: RunConfig) -> Cost:
        measured.append(config)
        return COST

    return Predictor(folder, say=lambda text: None, measure=measure)


def config(arm: str, **changes: object) -> RunConfig:
    return preset("toybox-ideal", {**BASE, **ARMS[arm], **changes}, prompt="a red mushroom", seed=3)


def test_what_costs_the_same_is_measured_once_and_kept(tmp_path: Path, measured: list[RunConfig]) -> None:
    first = predictor(tmp_path, measured)
    for arm in ("sdi", "sds", "ism", "fixed-point"):
        assert first.seconds(config(arm)) == COST.seconds(config(arm), SCHEDULE)
    assert len(measured) == 1
    # Larger renders cost more, and so do the calls for objects with a style.
    first.seconds(config("sdi", **{"render.sizes": [128]}))
    first.seconds(replace(config("sdi"), prompt="a patchwork red mushroom"))
    assert len(measured) == 3
    # What is pushed away from costs the same whatever it is called.
    negatives = [config("ism", negative_prompt=f"a {colour} mushroom, front view") for colour in ("red", "blue")]
    assert first.seconds(negatives[0]) == first.seconds(negatives[1])
    assert len(measured) == 4
    assert not (tmp_path / COSTS).exists()
    first.save()
    again = predictor(tmp_path, measured)
    assert again.seconds(config("sds")) == first.seconds(config("sds"))
    assert len(measured) == 4 and len(list((tmp_path / COSTS).iterdir())) == 4


def test_a_cost_that_cannot_be_read_or_measured_is_refused(tmp_path: Path, measured: list[RunConfig]) -> None:
    known = predictor(tmp_path, measured)
    known.seconds(config("sdi"))
    known.save()
    next((tmp_path / COSTS).iterdir()).write_text("{")
    with pytest.raises(UserError, match="holds no measured cost: remove it"):
        predictor(tmp_path, measured).seconds(config("sdi"))
    with pytest.raises(UserError, match="measured for toybox alone, and not for sd21-base"):
        known.seconds(replace(config("sdi"), prior="sd21-base"))
