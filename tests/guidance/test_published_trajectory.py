"""Eight consecutive steps of the trainer, against those of the published class in float64.

``golden/trajectories.json`` holds numbers that the published ``StableDiffusionSDIGuidance`` gave on the tiny U-Net: the
loss, the norm of the gradient, and every 24th of the 192 numbers of a picture after each step of Adam. Both arms were
given the same azimuths, overshoots and noise; everything else is theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.contracts import RenderOutput
from sdi_gs.guidance import inversion
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.representations.parameter_scene import ParameterScene
from sdi_gs.settings.run import RunConfig
from sdi_gs.training import trainer as trainer_module
from sdi_gs.training.trainer import Trainer

if TYPE_CHECKING:
    from conftest import GoldenCase

SIDE, STEPS = 8, 8
RECORD: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "trajectories.json").read_text())
EXACT: dict[str, Any] = {"rel": 1e-9, "abs": 1e-9}


class Picture(ParameterScene):
    """A scene that looks the same from everywhere: the picture itself."""

    def __init__(self) -> None:
        numbers = torch.arange(3 * SIDE * SIDE, dtype=torch.float64)
        start = 0.5 + 0.3 * torch.sin(1.7 * numbers)
        super().__init__({"picture": start.reshape(1, SIDE, SIDE, 3)}, learning_rates=0.01)

    def render(self, cameras: CameraBatch, background: Tensor, **_: Any) -> RenderOutput:
        picture = self.params["picture"]
        return RenderOutput(rgb=picture, alpha=torch.ones_like(picture[..., :1]))


class TinyPrior:
    """The recorded U-Net on latents that are the picture's channels and their mean."""

    name = "tiny"
    image_size = SIDE
    knows_cameras = False

    def __init__(self, case: GoldenCase) -> None:
        self.schedule, self.predict_noise, given = case.prior.schedule, case.prior.predict_noise, case.tensors
        self._embeddings = {
            "front view": given["cond"][0],
            "side view": given["negatives"][0],
            "back view": given["negatives"][1],
            "overhead view": given["cond"][0],
            "": given["uncond"][0],
        }

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([self._embeddings[prompt.partition(", ")[2]] for prompt in prompts])

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        channels = 2.0 * images.permute(0, 3, 1, 2) - 1.0
        return torch.cat([channels, channels.mean(dim=1, keepdim=True)], dim=1)

    def decode_latents(self, latents: Tensor) -> Tensor:
        raise NotImplementedError


def published_run(case: dict[str, Any]) -> RunConfig:
    """The preset with the record's length; without Perp-Neg the published scales mean one more than they say."""
    base = preset("sdi-paper-ngp", prompt="anything", steps=STEPS)
    more = 0.0 if case["perp_neg"] else 1.0
    guidance = replace(
        base.guidance,
        guidance_scale=7.5 + more,
        inversion_guidance_scale=-7.5 + more,
        perp_neg=case["perp_neg"],
    )
    return replace(base, guidance=guidance)


def use_recorded_draws(monkeypatch: pytest.MonkeyPatch, record: dict[str, Any]) -> None:
    """Give the trainer the record's azimuths, overshoots and noise."""
    azimuths, draws, noises = iter(record["azimuths"]), iter(record["draws"]), iter(range(10_000))

    def cameras(*_: Any, **__: Any) -> CameraBatch:
        one = torch.ones(1, dtype=torch.float64)
        return orbit_cameras(next(azimuths) * one, 0.0 * one, one, 40.0 * one, width=SIDE, height=SIDE)

    def plan(*arguments: Any, **named: Any) -> Any:
        return replace(plan_step(*arguments, **named), overshoot=int(next(draws) * 1000 // 10))

    def noise(like: Tensor, _: torch.Generator) -> Tensor:
        numbers = torch.arange(1, like.numel() + 1, dtype=torch.float64)
        phase = 78.233 * (next(noises) + 1)
        return (math.sqrt(2.0) * torch.sin(12.9898 * numbers + phase)).reshape(like.shape)

    monkeypatch.setattr(trainer_module, "sample_cameras", cameras)
    monkeypatch.setattr(trainer_module, "plan_step", plan)
    monkeypatch.setattr(inversion, "random_noise", noise)


@pytest.mark.parametrize("perp_neg_golden", ["epsilon", "v_prediction"], indirect=True)
@pytest.mark.parametrize("perp_neg", [True, False])
def test_the_trainer_takes_the_published_steps(
    perp_neg_golden: GoldenCase, perp_neg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = (perp_neg_golden.prior.prediction_type, perp_neg)
    case = next(case for case in RECORD["cases"] if (case["prediction_type"], case["perp_neg"]) == kind)
    use_recorded_draws(monkeypatch, RECORD)
    prior: Any = TinyPrior(perp_neg_golden)
    scene = Picture()
    trainer = Trainer(published_run(case), prior, scene=scene)
    norms: list[float] = []
    update = scene.update

    def watched(*arguments: Any, **named: Any) -> None:
        norms.append(scene.gradients()["picture"].norm().item())
        update(*arguments, **named)

    monkeypatch.setattr(scene, "update", watched)
    for row in case["steps"]:
        report = trainer.train_step()
        assert report.timestep == row["t"]
        assert report.losses["distillation"] == pytest.approx(row["loss"], **EXACT)
        assert norms[-1] == pytest.approx(row["gradient_norm"], **EXACT)
        found = scene.params["picture"].detach().flatten()[::24].tolist()
        assert found == pytest.approx(row["parameters"], **EXACT)


def test_the_record_tells_its_cases_apart() -> None:
    last = [case["steps"][-1]["parameters"] for case in RECORD["cases"]]
    kinds = {(case["prediction_type"], case["perp_neg"]) for case in RECORD["cases"]}
    assert len(kinds) == 4
    # A hundred million times what the comparison allows, and more.
    assert all(max(abs(a - b) for a, b in zip(last[0], other, strict=True)) > 1e-2 for other in last[1:])
