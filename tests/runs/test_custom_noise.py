"""A noise source of one's own in a run: folder, resume, and the refusal to resume without it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import GuidanceOutput
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest
from sdi_gs.runs.checkpoint import latest_checkpoint, load_checkpoint
from sdi_gs.runs.finish import finish
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.settings.run import OutputConfig, RunConfig

CPU = torch.device("cpu")


class Walk:
    """Noise that takes a random step of the variance-preserving kind at every training step."""

    def infer(self, request: NoiseRequest) -> Tensor:
        drawn = torch.randn(request.latents.shape, generator=request.generator)
        return drawn if request.carried is None else 0.8 * request.carried + 0.6 * drawn

    def carry(self, output: GuidanceOutput) -> Tensor:
        return output.noise


def config() -> RunConfig:
    base = preset_named("smoke").config
    return replace(
        base,
        prompt="a blue robot",
        steps=4,
        guidance=replace(base.guidance, random_fraction=0.0),
        gaussians=replace(base.gaussians, num_initial=50),
        ideal_prior=replace(base.ideal_prior, renders_per_view=2, unconditional_renders=4),
        outputs=OutputConfig(preview_every=0, checkpoint_every=2, turntable_frames=0),
    )


def stopped_run(path: Path, *, stop: int) -> RunFolder:
    trainer, folder = prepare_run(config(), device=CPU, folder=path, noise_source=Walk())
    train(trainer, folder, should_stop=lambda: trainer.step == stop)
    finish(trainer, folder, started=0.0)
    return folder


def test_a_run_with_a_noise_source_of_ones_own_is_resumed_bit_equal(tmp_path: Path) -> None:
    straight = stopped_run(tmp_path / "straight", stop=4)
    assert json.loads(straight.summary.read_text())["noise_source"] == "Walk"
    stopped_run(tmp_path / "stopped", stop=2)
    trainer, folder = prepare_resume(tmp_path / "stopped", device=CPU, noise_source=Walk())
    assert trainer.step == 2
    assert train(trainer, folder)
    finish(trainer, folder, started=0.0)
    ours, theirs = (load_checkpoint(latest_checkpoint(each.checkpoints)) for each in (folder, straight))
    assert "carried_noise" in ours.tensors
    assert set(ours.tensors) == set(theirs.tensors)
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())


def test_the_program_does_not_resume_it_with_another_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stopped_run(tmp_path / "stopped", stop=2)
    assert main(["train", "--resume", str(folder.path), "--device", "cpu"]) == 2
    assert "noise source is Walk, not the configured one: pass noise_source=Walk(...)" in capsys.readouterr().err
