"""The probe's numbers on priors whose answers are known, its files and its refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from latents_only import LatentsOnlyPrior
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.errors import UserError
from sdi_gs.evaluation.probe import INVERSION_STEPS, SOURCES, Subject, probe
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.settings.probe import ProbeOptions


class BlindPrior(LatentsOnlyPrior):
    """Always predicts the same noise."""

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        return torch.full_like(noised_latents, 0.25)


def subject() -> Subject:
    latents = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Subject(
        prior=BlindPrior(),
        latents=latents,
        conditions=Conditions(
            prompt_embeddings=torch.zeros(2, 1, 1, dtype=torch.float64),
            negative_embeddings=torch.zeros(2, 1, 1, dtype=torch.float64),
        ),
    )


def run(**options: Any) -> dict[str, Any]:
    return probe(subject(), guidance_scale=3.0, timesteps=(300, 800), repeats=16, trajectory_steps=5, **options)


def test_residuals_are_those_of_the_closed_form() -> None:
    """eps = c whatever it is shown: kappa ~ N(0, 1) leaves sigma^2 (1 + c^2), the fixed point c leaves nothing."""
    report = run()
    for index, timestep in enumerate(report["timesteps"]):
        level = BlindPrior.schedule.alpha_cumprod(timestep)
        squared_sigma = (1.0 - level) / level
        assert report["residual_by_source"]["random"][index] == pytest.approx(squared_sigma * (1 + 0.25**2), rel=0.15)
        assert report["residual_by_source"]["fixed-point"][index] == pytest.approx(0.0, abs=1e-20)


def test_target_variance_is_that_of_the_noise() -> None:
    """target = z + sigma (kappa - c): SDS spreads it by sigma^2, SDI by the little that eta adds."""
    report = run()
    for index, timestep in enumerate(report["timesteps"]):
        level = BlindPrior.schedule.alpha_cumprod(timestep)
        drawn = report["target_variance"]["random"][index]
        assert drawn == pytest.approx((1.0 - level) / level, rel=0.1)
        assert 0.0 < report["target_variance"]["inversion"][index] < 0.12 * drawn


def test_scales_follow_the_forward_scale_and_every_series_is_complete() -> None:
    report = run()
    assert list(report["residual_by_inversion_scale"]) == ["-3", "0", "0.4", "3"]
    assert set(report["residual_by_source"]) == set(SOURCES)
    assert set(report["residual_by_inversion_steps"]) == {str(steps) for steps in INVERSION_STEPS}
    series = [values for name in report if name.startswith("residual_by") for values in report[name].values()]
    assert all(len(values) == 2 and all(map(math.isfinite, values)) for values in series)
    assert all(len(values) == 4 for values in report["target_change"].values())


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert run() == run()
    assert run() != run(seed=1)


def test_a_timestep_beyond_the_prior_is_refused() -> None:
    with pytest.raises(UserError, match="1000 is beyond"):
        probe(subject(), guidance_scale=3.0, timesteps=(1000,))


@pytest.mark.parametrize(
    "options",
    [
        {"timesteps": ()},
        {"timesteps": (0,)},
        {"views": 0},
        {"repeats": 1},
        {"trajectory_steps": 1},
        {"guidance_scale": 0.0},
        {"guidance_scale": math.nan},
    ],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must "):
        ProbeOptions(prompt="a blue robot", **options)


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    from sdi_gs.evaluation.probe import run_probe

    out = tmp_path / "probe"
    out.mkdir()
    options = ProbeOptions(prompt="a red ball", out=out, timesteps=(700, 300), views=1, repeats=2, trajectory_steps=2)
    written = run_probe(options, device=torch.device("cpu"))
    assert written == [out / "probe.json", out / "probe.png"]
    report = json.loads(written[0].read_text())
    assert (report["prompt"], report["prior"], report["views"]) == ("a red ball", "toybox-ideal", 1)
    assert report["timesteps"] == [300, 700]
    with Image.open(written[1]) as image:
        assert image.width > 1000
    with pytest.raises(UserError, match="never overwritten"):
        run_probe(options, device=torch.device("cpu"))


@pytest.mark.parametrize(("prompt", "message"), [("a robot", "colour open"), ("a castle", "castle")])
def test_a_prompt_without_one_truth_needs_a_source(prompt: str, message: str, tmp_path: Path) -> None:
    from sdi_gs.evaluation.probe import run_probe

    with pytest.raises(UserError, match=message):
        run_probe(ProbeOptions(prompt=prompt, out=tmp_path / "probe"), device=torch.device("cpu"))
    assert not (tmp_path / "probe").exists()
