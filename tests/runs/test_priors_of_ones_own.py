"""Runs of priors of one's own: half precision that overflows, a slow first step, notes; nothing but protocols."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts.prior_extras import Widened
from sdi_gs.errors import NonFiniteError
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.runs.events import Event, Notice
from sdi_gs.runs.launch import RunResult, launch
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.runs.request import RunRequest
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig

LARGE = 1e6
"""Beyond float16's largest number, 65 504."""


class Grey:
    """Images of one grey; computes in half precision, in numbers that are too large for it."""

    name = "grey"
    schedule = scaled_linear_schedule()
    image_size = 32
    knows_cameras = False
    dtype = torch.float16

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 1)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return avg_pool2d(2.0 * images.movedim(-1, 1) - 1.0, 4)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return interpolate(0.5 * latents + 0.5, scale_factor=4).movedim(1, -1).clamp(0.0, 1.0)

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        shown = noised_latents.to(self.dtype) * LARGE
        return (shown / LARGE).float() * (1.0 - self.schedule.alpha_cumprod(timestep)) ** 0.5


class WideGrey(Grey):
    """The same, which can compute in float32 as well."""

    notes = ("grey was mixed by hand",)
    slow_start = "grey is being mixed: the first step takes a while"

    def configure(self, compute: ComputeConfig) -> None:
        self.dtype = torch.float32 if compute.precision == "float32" else torch.float16

    def widened(self, compute: ComputeConfig) -> Widened | None:
        if self.dtype == torch.float32:
            return None
        return Widened(network="mixer", compute=replace(compute, precision="float32"))


class Stubborn(WideGrey):
    """Offers the options that have just failed, but not for ever."""

    calls = 0

    def widened(self, compute: ComputeConfig) -> Widened | None:
        self.calls += 1
        return Widened(network="mixer", compute=compute) if self.calls < 3 else None


def config(**compute: str) -> RunConfig:
    base = preset_named("smoke").config
    return replace(
        base,
        prompt="grey",
        steps=3,
        gaussians=replace(base.gaussians, num_initial=60),
        outputs=replace(base.outputs, preview_every=0, checkpoint_every=0, turntable_frames=0),
        compute=ComputeConfig(**compute),  # pyright: ignore[reportArgumentType]
    )


def launched(prior: Grey, folder: Path, **compute: str) -> tuple[RunResult, list[str]]:
    events = list[Event]()
    request = RunRequest(config=config(**compute), output_dir=folder, device="cpu")
    result = launch(request, observers=[events.append], prior_for=lambda _, device: prior)
    return result, [event.text for event in events if isinstance(event, Notice)]


def test_one_that_overflows_goes_on_in_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, (slow, overflow) = launched(WideGrey(), tmp_path / "half")
    assert slow == WideGrey.slow_start
    assert overflow.startswith("step 1, t = ")
    assert overflow.endswith("the step is repeated with the mixer in float32, in which the run goes on")
    assert WideGrey.notes[0] in capsys.readouterr().err
    assert result.is_complete
    logged = [json.loads(text) for text in result.folder.steps.read_text().splitlines()]
    assert [line["changed"] for line in logged if line.get("event")] == [{"compute.precision": "float32"}]

    wide, notices = launched(WideGrey(), tmp_path / "wide", precision="float32")
    assert notices == [WideGrey.slow_start]
    assert result.folder.splats.read_bytes() == wide.folder.splats.read_bytes()


def test_one_without_float32_ends_at_the_step_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="step 1, t = "):
        launched(Grey(), tmp_path / "run")


def test_one_that_offers_nothing_new_ends_there_too(tmp_path: Path) -> None:
    prior = Stubborn()
    with pytest.raises(NonFiniteError, match="step 1, t = "):
        launched(prior, tmp_path / "run")
    assert prior.calls == 1


def test_a_type_of_the_vae_changes_nothing_under_a_prior_without_one(tmp_path: Path) -> None:
    settings = replace(config(vae_precision="float16"), prompt="a blue robot")
    trainer, run = prepare_run(settings, device="cpu", folder=tmp_path / "run")
    encode, events = trainer.prior.encode_images, list[Event]()
    trainer.prior.encode_images = lambda images, generator: encode(images, generator) * torch.nan
    with pytest.raises(NonFiniteError, match="step 1, t = "):
        train(trainer, run, observers=[events.append])
    assert not any(isinstance(event, Notice) for event in events)
