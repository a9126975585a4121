"""Kept targets that memory has no room for are refused before the run writes anything."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import CPU, config, start, whole_run

from sdi_gs.errors import UserError
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.runs.checkpoint import (
    config_in_force,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from sdi_gs.runs.finish import finish, read_summary
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.kept_targets import require_room
from sdi_gs.runs.launch import launch
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.request import RunRequest
from sdi_gs.settings.losses import LossSpace
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

VIEW_BYTES: dict[LossSpace, int] = {"latents": 4 * 3 * 32**2, "pixels": 4 * 3 * (32**2 + 64**2)}
"""The ideal prior's latents are its pictures of 64 pixels at half the size."""


def settings(space: LossSpace, views: int | None, **changes: object) -> RunConfig:
    base = config()
    values = {
        "losses": replace(base.losses, space=space),
        "replay": ReplayConfig(steps_per_target=2, views=views),
        "views_per_step": 2,
        "steps": 400,
    }
    return replace(base, **(values | changes))


def with_free_memory(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    monkeypatch.setattr("sdi_gs.runs.kept_targets.free_bytes", lambda device: size)


@pytest.mark.parametrize("space", ["latents", "pixels"])
def test_too_many_are_one_line_with_the_number_that_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, space: LossSpace
) -> None:
    # Half of it holds 100 views.
    with_free_memory(monkeypatch, 2 * 100 * VIEW_BYTES[space])
    with pytest.raises(UserError, match=r"replay.views 102 is too many .* the 102 targets .*give 100 or") as refused:
        prepare_run(settings(space, 102), device=CPU, folder=tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert ("losses.space latents" in str(refused.value)) == (space == "pixels")
    assert not (tmp_path / "run").exists()
    prior = IdealPrior(settings(space, 100).ideal_prior)
    # Whole rounds of two views: 101 keeps 100.
    for views in (100, 101):
        require_room(settings(space, views), prior, device=CPU)


def test_no_more_are_counted_than_the_run_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_memory(monkeypatch, 2 * 100 * VIEW_BYTES["pixels"])
    prior = IdealPrior(settings("pixels", None).ideal_prior)
    # 50 rounds of two views, the last of one step.
    require_room(settings("pixels", 1_000_000, steps=99), prior, device=CPU)
    with pytest.raises(UserError, match="the 102 targets"):
        require_room(settings("pixels", 1_000_000, steps=101), prior, device=CPU)


@pytest.mark.parametrize("views", [None, 1, 2])
def test_a_rounds_own_targets_need_no_check(monkeypatch: pytest.MonkeyPatch, views: int | None) -> None:
    class Silent(IdealPrior):
        def encode_images(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            raise AssertionError("an image was encoded")

    with_free_memory(monkeypatch, 1)
    kept, one_step = settings("pixels", views), ReplayConfig(steps_per_target=1, views=1_000_000)
    for run in (kept, replace(kept, replay=one_step)):
        require_room(run, Silent(run.ideal_prior), device=CPU)


def test_unknown_free_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_memory(monkeypatch, None)
    require_room(settings("pixels", 200), IdealPrior(settings("pixels", 200).ideal_prior), device=CPU)


def test_a_resumed_run_is_checked_before_its_targets_are_decoded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = settings("pixels", 102)
    run = replace(run, outputs=replace(run.outputs, checkpoint_every=3))
    trainer, folder = prepare_run(run, device=CPU, folder=tmp_path / "run")
    train(trainer, folder, should_stop=lambda: trainer.step >= 5)
    log = folder.steps.read_bytes()
    with_free_memory(monkeypatch, 2 * 100 * VIEW_BYTES["pixels"])
    with pytest.raises(UserError, match=r"start a new run with --replay.views 100 or fewer"):
        prepare_resume(folder.path, device=CPU)
    assert folder.steps.read_bytes() == log
    with_free_memory(monkeypatch, 2 * 102 * VIEW_BYTES["pixels"])
    assert prepare_resume(folder.path, device=CPU)[0].step == 3


def short(**changes: object) -> RunConfig:
    """Eight steps in rounds of three, with a checkpoint inside the second round."""
    run = settings("pixels", 4, steps=8, **changes)
    return replace(
        run,
        replay=replace(run.replay, steps_per_target=3),
        outputs=replace(run.outputs, checkpoint_every=5),
    )


@pytest.mark.parametrize("representation", ["gaussians", "ngp"])
def test_a_run_that_goes_on_within_a_round_ends_as_an_unbroken_one(tmp_path: Path, representation: str) -> None:
    run = short(representation=representation)
    whole = whole_run(tmp_path / "whole", run)
    trainer, folder = start(tmp_path / "broken", run)
    train(trainer, folder, should_stop=lambda: trainer.step >= 7)
    resumed, folder = prepare_resume(folder.path, device=CPU)
    assert resumed.step == 5
    assert train(resumed, folder)
    finish(resumed, folder, started=time.perf_counter())
    tensors, others = (pack_state(each.state())[0] for each in (resumed, prepare_whole(whole)))
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []
    assert [record["round"] for record in folder.read_steps()] == [1, 1, 1, 2, 2, 2, 3, 3]
    summary = read_summary(whole)
    assert summary is not None
    assert (summary["step"], summary["rounds"]) == (8, 3)
    fresh = [record["predictor_calls"] > 0 for record in whole.read_steps()]
    assert fresh == [True, False, False, True, False, False, True, False]


def prepare_whole(folder: RunFolder) -> Trainer:
    """Load the last state of a finished run."""
    checkpoint = load_checkpoint(list_checkpoints(folder.checkpoints)[-1])
    config = config_in_force(checkpoint)
    saved = unpack_state(checkpoint.tensors, checkpoint.meta["state"])
    return Trainer(config, IdealPrior(config.ideal_prior), device=CPU, saved=saved)


def test_a_checkpoint_without_its_kept_targets_is_one_line(tmp_path: Path) -> None:
    trainer, folder = start(tmp_path / "run", short())
    train(trainer, folder, should_stop=lambda: trainer.step >= 5)
    checkpoint = load_checkpoint(latest_checkpoint(folder.checkpoints))
    state = unpack_state(checkpoint.tensors, checkpoint.meta["state"])
    del state["replay"]
    tensors, packed = pack_state(state)
    save_checkpoint(folder.checkpoints, checkpoint.step, tensors, {**checkpoint.meta, "state": packed})
    with pytest.raises(UserError, match="the state after step 5 has no kept targets") as refused:
        prepare_resume(folder.path, device=CPU)
    assert "\n" not in str(refused.value)


def test_both_stages_of_a_run_replay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    request = RunRequest(config=short(), device="cpu", output_dir=tmp_path / "run", two_stage=True)
    result = launch(request)
    assert (result.summary["step"], result.summary["rounds"]) == (3, 1)
    assert [record["predictor_calls"] > 0 for record in result.folder.read_steps()] == [True, False, False]
    field = read_summary(RunFolder(tmp_path / "run-field"))
    assert field is not None
    assert (field["step"], field["rounds"]) == (5, 2)


def test_the_numbers_in_the_line_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 3 * 2**30
    with_free_memory(monkeypatch, free)
    run = settings("pixels", 200_000, steps=1_000_000)
    with pytest.raises(UserError) as refused:
        require_room(run, IdealPrior(run.ideal_prior), device=CPU)
    needed, room = map(float, re.findall(r"(\d+\.\d+)", str(refused.value)))
    assert needed == pytest.approx(200_000 * VIEW_BYTES["pixels"] / 2**30, abs=0.01)
    assert room == 1.5
