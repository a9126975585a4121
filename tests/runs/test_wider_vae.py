"""A VAE of half precision that overflows: the step is repeated in float32, and the run says so and goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import NonFiniteError
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.runs.checkpoint import pack_state
from sdi_gs.runs.events import Event, Notice
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")


def config(precision: str) -> RunConfig:
    base = preset_named("smoke").config
    return replace(
        base,
        prior="toybox",
        prompt="a blue robot",
        steps=3,
        views_per_step=2,
        gaussians=replace(base.gaussians, num_initial=60),
        guidance=replace(base.guidance, noise="random"),
        outputs=replace(base.outputs, preview_every=0, checkpoint_every=0),
        compute=ComputeConfig(vae_precision=precision),  # pyright: ignore[reportArgumentType]
    )


def trainer_whose_encoder_overflows(monkeypatch: pytest.MonkeyPatch, settings: RunConfig, folder: Path):
    """A trainer whose encoder's numbers are too large for float16, and not for float32."""
    trainer, run = prepare_run(replace(settings, compute=ComputeConfig()), device=CPU, folder=folder)
    assert isinstance(trainer.prior, LatentDiffusionPrior)
    with torch.no_grad():
        trainer.prior.vae.encoder.conv_in.weight.mul_(1e7)
    trainer.change_settings(settings)
    trainer.changes.clear()
    return trainer, run


def test_the_run_ends_as_one_in_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    half, run = trainer_whose_encoder_overflows(monkeypatch, config("float16"), tmp_path / "half")
    events = list[Event]()
    assert train(half, run, observers=[events.append])
    (line,) = [event.text for event in events if isinstance(event, Notice)]
    assert line.startswith("step 1, t = ") and "repeated with the VAE in float32" in line
    logged = [json.loads(text) for text in run.steps.read_text().splitlines()]
    assert [entry["changed"] for entry in logged if entry.get("event")] == [{"compute.vae_precision": "float32"}]
    assert [entry["step"] for entry in logged if not entry.get("event")] == [1, 2, 3]

    wide, _ = trainer_whose_encoder_overflows(monkeypatch, config("float32"), tmp_path / "wide")
    while wide.step < 3:
        wide.train_step()
    (tensors, rest), (others, other_rest) = pack_state(half.state()), pack_state(wide.state())
    assert rest == other_rest
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []


def test_what_is_not_finite_in_float32_ends_the_run(tmp_path: Path) -> None:
    trainer, run = prepare_run(config("float32"), device=CPU, folder=tmp_path / "run")
    encode = trainer.prior.encode_images
    trainer.prior.encode_images = lambda images, generator: encode(images, generator) * torch.nan
    with pytest.raises(NonFiniteError, match="step 1"):
        train(trainer, run)


def test_both_make_pictures_of_the_same_object(tmp_path: Path) -> None:
    losses = []
    for precision in ("float16", "float32"):
        trainer: Trainer = prepare_run(config(precision), device=CPU, folder=tmp_path / precision)[0]
        losses.append(trainer.train_step().losses["distillation"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
