"""The exact prior's pictures, kept between runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdi_gs.priors import ideal
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.kept_renders import SMALLEST_KEPT
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.toybox.renderer import render_scenes

CONFIG = IdealPriorConfig(image_size=16, renders_per_view=SMALLEST_KEPT)
PROMPTS = ["a blue robot, front view, white background"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDI_GS_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(ideal, "render_scenes", lambda *args, **named: calls.append(1) or render_scenes(*args, **named))
    return calls


def predicted(config: IdealPriorConfig, prompts: list[str] = PROMPTS) -> torch.Tensor:
    prior = IdealPrior(config)
    noised = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return prior.predict_noise(noised, 400, prior.embed_prompts(prompts))


def test_a_second_prior_renders_nothing_and_predicts_the_same_bits(
    renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [predicted(CONFIG) for _ in range(2)]
    assert len(renders) == 1
    monkeypatch.setenv("SDI_GS_CACHE", "")
    assert all(torch.equal(predicted(CONFIG), noise) for noise in kept)
    assert len(renders) == 3


def test_other_pictures_have_other_files(renders: list[int]) -> None:
    predicted(CONFIG)
    # Widths are no part of the pictures.
    predicted(replace(CONFIG, component_std=0.2))
    assert len(renders) == 1
    for changes in ({"seed": 1}, {"distance": 3.0}, {"pool": 1}, {"renders_per_view": SMALLEST_KEPT + 1}):
        config = replace(CONFIG, **changes)
        noised = torch.zeros(1, 3, 16 // config.pool, 16 // config.pool)
        prior = IdealPrior(config)
        prior.predict_noise(noised, 400, prior.embed_prompts(PROMPTS))
    predicted(CONFIG, ["a red robot, front view, white background"])
    predicted(CONFIG, ["a blue robot, back view, white background"])
    assert len(renders) == 7


def test_few_pictures_are_not_kept(renders: list[int], folder: Path) -> None:
    few = replace(CONFIG, renders_per_view=SMALLEST_KEPT - 1)
    predicted(few)
    predicted(few)
    assert len(renders) == 2
    assert not list(folder.iterdir())
