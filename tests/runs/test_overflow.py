"""Networks of half precision that overflow: the step is repeated in float32, and the run says so and goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.priors import tuning
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.runs import prepare
from sdi_gs.runs.checkpoint import pack_state
from sdi_gs.runs.events import Event, Notice
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.saving import save_state
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")


def config(vae: str, unet: str = "auto") -> RunConfig:
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
        compute=ComputeConfig(vae_precision=vae, precision=unet),  # pyright: ignore[reportArgumentType]
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


def test_a_unet_that_overflows_goes_on_in_float32(tmp_path: Path) -> None:
    trainer, run = prepare_run(config("auto", "float16"), device=CPU, folder=tmp_path / "run")
    assert isinstance(trainer.prior, LatentDiffusionPrior)
    with torch.no_grad():
        trainer.prior.unet.conv_in.weight.mul_(2e4)
    events = list[Event]()
    assert not train(trainer, run, observers=[events.append], should_stop=lambda: trainer.step == 2)
    (line,) = [event.text for event in events if isinstance(event, Notice)]
    assert line.startswith("step 1, t = ") and "non-finite target" in line
    assert line.endswith("the step is repeated with the U-Net in float32, in which the run goes on")
    assert trainer.prior.unet.dtype == torch.float32
    logged = [json.loads(text) for text in run.steps.read_text().splitlines()]
    assert [entry["changed"] for entry in logged if entry.get("event")] == [{"compute.precision": "float32"}]

    save_state(trainer, run)
    resumed, _ = prepare_resume(run.path, device=CPU)
    assert isinstance(resumed.prior, LatentDiffusionPrior)
    assert (resumed.step, resumed.prior.unet.dtype) == (2, torch.float32)
    with pytest.raises(
        UserError, match="compute.precision cannot change to auto while a run trains, but to float32 alone"
    ):
        prepare_resume(run.path, device=CPU, changes={"compute.precision": "auto"})


def test_a_run_with_graphs_resumes_without_a_card_if_it_does_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (prepare, tuning):
        monkeypatch.setattr(module, "require_graphs", lambda _: None)
    monkeypatch.setattr(tuning, "GraphedUnet", lambda unet, _: unet)
    monkeypatch.setattr(tuning, "cuda_recorder", lambda: None)
    graphed = replace(config("auto"), compute=ComputeConfig(cuda_graphs=True))
    trainer, run = prepare_run(graphed, device=CPU, folder=tmp_path / "run")
    train(trainer, run, should_stop=lambda: trainer.step == 1)
    save_state(trainer, run)
    monkeypatch.undo()
    with pytest.raises(UserError, match="needs a CUDA device, .* or add --compute.no-cuda-graphs to --resume$"):
        prepare_resume(run.path, device=CPU)
    resumed, _ = prepare_resume(run.path, device=CPU, changes={"compute.cuda_graphs": False})
    assert resumed.changes[-1]["changed"] == {"compute.cuda_graphs": [True, False]}
    assert resumed.train_step().step == 2


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
