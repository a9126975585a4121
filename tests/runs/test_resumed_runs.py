"""Runs that were stopped or crashed end as if they had never stopped."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from small_runs import (
    CPU,
    assert_same_results,
    config,
    crashed_run,
    start,
    stopped_run,
    timeless,
    whole_run,
)

from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from sdi_gs.runs.finish import finish, read_summary
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume
from sdi_gs.splats.ply import write_splat_ply


@pytest.mark.parametrize("steps", [3, 5])
def test_a_stopped_run_ends_as_if_it_had_never_stopped(whole: RunFolder, tmp_path: Path, steps: int) -> None:
    run = stopped_run(tmp_path / "stopped", steps)
    at_the_stop = run.splats.read_bytes()
    trainer, folder = prepare_resume(run.path, device=CPU)
    assert trainer.step == steps
    assert train(trainer, folder)
    finish(trainer, folder, started=time.perf_counter())
    assert_same_results(whole, folder)
    # What the stop had exported is still there.
    assert (folder.path / "splats_stop_1.ply").read_bytes() == at_the_stop
    assert json.loads((folder.path / "summary_stop_1.json").read_text())["step"] == steps


def test_a_crashed_run_goes_on_from_its_checkpoint_and_forgets_the_steps_behind_it(
    whole: RunFolder, tmp_path: Path
) -> None:
    run = crashed_run(tmp_path / "crashed", 5)
    assert [record["step"] for record in run.read_steps()] == [1, 2, 3, 4, 5]
    trainer, folder = prepare_resume(run.path, device=CPU)
    assert trainer.step == 3
    assert [record["step"] for record in folder.read_steps()] == [1, 2, 3]
    train(trainer, folder)
    finish(trainer, folder, started=time.perf_counter())
    assert_same_results(whole, folder)


def test_a_run_of_an_earlier_version_goes_on_with_defaults_for_what_it_did_not_know(
    whole: RunFolder, tmp_path: Path
) -> None:
    run = crashed_run(tmp_path / "old", 5)
    [checkpoint] = list_checkpoints(run.checkpoints)
    header = json.loads((checkpoint / "checkpoint.json").read_text())
    recorded = run.read_config()
    for saved in (recorded, header["meta"]["config"]):
        del saved["gaussians"]["axis_ratio_cap"]
        del saved["densify"]["prune_component"]
        del saved["compute"]
    loaded = load_checkpoint(checkpoint)
    # At first only the checkpoint lacks them, then the folder's settings too.
    save_checkpoint(run.checkpoints, loaded.step, loaded.tensors, header["meta"])
    trainer, folder = prepare_resume(run.path, device=CPU)
    assert trainer.config == config()
    run.config.write_text(yaml.safe_dump(recorded))
    trainer, folder = prepare_resume(run.path, device=CPU)
    assert trainer.config == config()
    assert train(trainer, folder)
    for left, right in zip(whole.read_steps(), folder.read_steps(), strict=True):
        assert timeless(left) == timeless(right)


def test_a_run_whose_settings_were_changed_is_refused(tmp_path: Path) -> None:
    run = crashed_run(tmp_path / "changed", 3)
    recorded = run.read_config()
    recorded["densify"]["prune_opacity"] = 0.3
    run.config.write_text(yaml.safe_dump(recorded))
    with pytest.raises(UserError, match="is not what the checkpoint of step 3 was trained with"):
        prepare_resume(run.path, device=CPU)


def test_a_run_can_go_on_after_the_file_it_started_from_has_gone(tmp_path: Path) -> None:
    source = tmp_path / "start.ply"
    splats = start(tmp_path / "first")[0].scene.representation.splats()
    assert splats is not None
    write_splat_ply(source, splats)
    settings = config()
    settings = replace(settings, gaussians=replace(settings.gaussians, init="splats", init_from=str(source)))
    straight = whole_run(tmp_path / "straight", settings)
    trainer, stopped = start(tmp_path / "stopped", settings)
    train(trainer, stopped, should_stop=lambda: trainer.step >= 4)
    finish(trainer, stopped, started=time.perf_counter())
    source.unlink()
    trainer, folder = prepare_resume(stopped.path, device=CPU)
    assert train(trainer, folder)
    finish(trainer, folder, started=time.perf_counter())
    assert_same_results(straight, folder)
    # A new run cannot do without it, and says so before anything is loaded.
    with pytest.raises(UserError, match="there is no such file or run; check --init-from"):
        start(tmp_path / "new", settings)
    assert not (tmp_path / "new").exists()


def test_a_run_that_ended_while_it_exported_can_still_be_finished(whole: RunFolder, tmp_path: Path) -> None:
    run = whole_run(tmp_path / "unfinished")
    run.summary.unlink()
    run.turntable.unlink()
    trainer, folder = prepare_resume(run.path, device=CPU)
    assert train(trainer, folder)
    finish(trainer, folder, started=time.perf_counter())
    assert_same_results(whole, folder)


def test_a_run_that_is_stopped_twice_keeps_both_exports(tmp_path: Path) -> None:
    run = stopped_run(tmp_path / "twice", 2)
    for stop in (4, 6):
        trainer, folder = prepare_resume(run.path, device=CPU)
        train(trainer, folder, should_stop=lambda: trainer.step >= stop)  # noqa: B023
        finish(trainer, folder, started=time.perf_counter())
    steps = [json.loads((run.path / f"summary_stop_{number}.json").read_text())["step"] for number in (1, 2)]
    assert steps == [2, 4]
    summary = read_summary(run)
    assert summary is not None
    assert summary["step"] == 6


def test_a_step_that_comes_to_nothing_leaves_a_checkpoint_of_the_state_before_it(
    whole: RunFolder, tmp_path: Path
) -> None:
    trainer, run = start(tmp_path / "broken")
    train(trainer, run, should_stop=lambda: trainer.step >= 5)
    encode = trainer.prior.encode_images
    trainer.prior.encode_images = lambda images, generator: encode(images, generator) * torch.nan
    with pytest.raises(NonFiniteError, match=r"step 6, t = \d+: non-finite latents"):
        train(trainer, run)
    resumed, folder = prepare_resume(run.path, device=CPU)
    assert resumed.step == 5
    assert train(resumed, folder)
    finish(resumed, folder, started=time.perf_counter())
    assert_same_results(whole, folder)
