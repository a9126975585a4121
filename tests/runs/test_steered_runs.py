"""Settings that change while a run trains: logged, saved, and in force when it goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from run_log import read_events
from small_runs import (
    CPU,
    assert_same_results,
    config,
    start,
)

from sdi_gs.errors import UserError
from sdi_gs.runs.events import Event, StepDone
from sdi_gs.runs.finish import finish, read_summary
from sdi_gs.runs.folder import RunFolder, load_run_config
from sdi_gs.runs.loading import load
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume
from sdi_gs.runs.saving import change_settings
from sdi_gs.settings.tree import with_values
from sdi_gs.training.trainer import Trainer


def steered_run(folder: Path, *, checkpoint_after: int, stop: int) -> RunFolder:
    """A run whose guidance was changed after steps 2 and 4, and that was stopped with its last checkpoint earlier."""
    trainer, run_folder = start(folder, config(outputs=replace(config().outputs, checkpoint_every=checkpoint_after)))

    def steer(event: Event) -> None:
        if isinstance(event, StepDone) and event.report.step in (2, 4):
            scale = {2: 3.0, 4: 5.0}[event.report.step]
            change_settings(trainer, run_folder, with_values(trainer.config, {"guidance.guidance_scale": scale}))

    train(trainer, run_folder, observers=[steer], should_stop=lambda: trainer.step >= stop)
    return run_folder


def scales_logged(run: RunFolder) -> list[tuple[int, float]]:
    return [(event["step"], event["changed"]["guidance.guidance_scale"]) for event in read_events(run)]


@pytest.mark.parametrize(("checkpoint_after", "in_force", "kept"), [(5, 5.0, 2), (4, 3.0, 1), (3, 3.0, 1)])
def test_a_steered_run_goes_on_with_what_was_in_force_at_its_checkpoint(
    tmp_path: Path, checkpoint_after: int, in_force: float, kept: int
) -> None:
    run = steered_run(tmp_path / "steered", checkpoint_after=checkpoint_after, stop=5)
    trainer, folder = prepare_resume(run.path, device=CPU)
    assert trainer.step == checkpoint_after
    assert trainer.config.guidance.guidance_scale == in_force
    # The change after step 4 came too late for the checkpoint of step 4.
    assert scales_logged(folder) == [(2, 3.0), (4, 5.0)][:kept]
    # The file still says what the run was started with, and so does the trainer.
    assert load_run_config(run.path).guidance.guidance_scale == 1.0
    assert trainer.started_with == load_run_config(run.path)


def test_a_steered_run_that_was_stopped_and_saved_says_so(tmp_path: Path) -> None:
    trainer, run = start(tmp_path / "steered")
    train(trainer, run, should_stop=lambda: trainer.step >= 2)
    # Changed, and stopped before another step: in force nevertheless.
    change_settings(trainer, run, with_values(trainer.config, {"prompt": "a red car"}))
    finish(trainer, run, started=time.perf_counter())
    summary = read_summary(run)
    assert summary is not None
    assert summary["prompt"] == "a red car"
    assert summary["changes"] == [{"step": 2, "changed": {"prompt": ["a blue robot", "a red car"]}}]
    resumed, folder = prepare_resume(run.path, device=CPU)
    assert resumed.config.prompt == "a red car"
    assert [event["changed"] for event in read_events(folder)] == [{"prompt": "a red car"}]
    assert load(run.path).prompt == "a red car"
    assert load_run_config(run.path).prompt == "a blue robot"


def test_a_steered_and_resumed_run_ends_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    values = {"guidance.guidance_scale": 3.0, "learning_rate_scale": 0.5, "views_per_step": 3}

    def steered(name: str) -> tuple[Trainer, RunFolder]:
        trainer, run = start(tmp_path / name)
        train(trainer, run, should_stop=lambda: trainer.step >= 2)
        change_settings(trainer, run, with_values(trainer.config, values))
        return trainer, run

    straight, straight_run = steered("straight")
    assert train(straight, straight_run)
    finish(straight, straight_run, started=time.perf_counter())
    stopped, halfway = steered("stopped")
    train(stopped, halfway, should_stop=lambda: stopped.step >= 5)
    finish(stopped, halfway, started=time.perf_counter())
    resumed, resumed_run = prepare_resume(halfway.path, device=CPU)
    assert train(resumed, resumed_run)
    finish(resumed, resumed_run, started=time.perf_counter())
    assert_same_results(straight_run, resumed_run)


def test_a_rejected_change_is_not_logged(tmp_path: Path) -> None:
    trainer, run = start(tmp_path / "run")
    with pytest.raises(UserError, match="dragon"):
        change_settings(trainer, run, with_values(trainer.config, {"prompt": "a red dragon"}))
    assert change_settings(trainer, run, trainer.config) == {}
    assert read_events(run) == []


def test_a_config_file_that_was_edited_is_still_told_apart_in_a_steered_run(tmp_path: Path) -> None:
    run = steered_run(tmp_path / "steered", checkpoint_after=5, stop=5)
    run.config.write_text(run.config.read_text().replace("seed: 0", "seed: 4", 1))
    with pytest.raises(UserError, match="is not what the checkpoint of step 5 was trained with"):
        prepare_resume(run.path, device=CPU)
