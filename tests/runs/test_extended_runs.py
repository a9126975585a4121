"""More of the same run: extended, branched off at an earlier checkpoint, or with other settings from here on."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import files_in, refusal
from run_log import read_events
from small_runs import CPU, assert_same_results, config, start, stopped_run, timeless, whole_run

from sdi_gs.commands.main import main
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.runs.checkpoint import load_checkpoint
from sdi_gs.runs.events import Event, StepDone
from sdi_gs.runs.finish import finish, read_summary
from sdi_gs.runs.folder import RunFolder, load_run_config, resume_command
from sdi_gs.runs.launch import launch
from sdi_gs.runs.loop import run, train
from sdi_gs.runs.prepare import prepare_resume
from sdi_gs.runs.request import RunRequest
from sdi_gs.runs.saving import change_settings
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values
from sdi_gs.training.trainer import Trainer


def resumed(path: Path, **parts: Any) -> dict[str, Any]:
    return launch(RunRequest(resume=path, device="cpu", **parts)).summary


def scheduled(trainer: Trainer) -> dict[str, float]:
    """What the schedules set in the last step."""
    assert isinstance(trainer.scene, GaussianScene)
    rate = trainer.scene.optimizers["means"].param_groups[0]["lr"]
    return {"t": trainer.round_timestep, "rate": rate, "count": trainer.scene.representation.num_points}


def test_an_extended_run_repeats_its_steps_and_stays_as_its_schedules_ended(whole: RunFolder, tmp_path: Path) -> None:
    run_folder = whole_run(tmp_path / "run")
    before = (run_folder.path / "splats.ply").read_bytes()
    trainer, folder = prepare_resume(run_folder.path, device=CPU, changes={"extend": 5})
    assert (trainer.step, trainer.config.steps, trainer.config.total_steps) == (8, 8, 13)
    at_the_end, seen = whole.read_steps()[-1], []

    def watch(event: Event) -> None:
        if isinstance(event, StepDone):
            seen.append(scheduled(trainer))

    run(trainer, folder, observers=[watch])
    # Densification has ended, although 9 and 12 are steps at which it was due.
    rate, steps = trainer.config.gaussians.means_lr_final, whole.read_steps()
    assert seen == [{"t": at_the_end["t"], "rate": pytest.approx(rate), "count": at_the_end["n_gaussians"]}] * 5
    assert [timeless(record) for record in folder.read_steps()[:8]] == [timeless(record) for record in steps]
    summary = read_summary(folder)
    assert summary is not None
    assert (summary["step"], summary["steps"]) == (13, 13)
    assert summary["changes"] == [{"step": 8, "changed": {"extend": [0, 5]}}]
    # The result of the shorter run is kept, and so is what the run was started with.
    assert (run_folder.path / "splats_stop_1.ply").read_bytes() == before
    assert load_run_config(run_folder.path) == config()


def test_a_run_that_is_extended_while_it_is_stopped_ends_as_one_extended_at_its_end(tmp_path: Path) -> None:
    late = whole_run(tmp_path / "late").path
    resumed(late, given={"extend": 4})
    early = stopped_run(tmp_path / "early", 5).path
    resumed(early, given={"extend": 4})
    ours, theirs = (RunFolder(path) for path in (early, late))
    assert ours.splats.read_bytes() == theirs.splats.read_bytes()
    assert [timeless(each) for each in ours.read_steps()] == [timeless(each) for each in theirs.read_steps()]


def test_an_extension_holds_when_the_run_is_resumed_again_without_it(tmp_path: Path) -> None:
    whole_run(tmp_path / "run")
    trainer, folder = prepare_resume(tmp_path / "run", device=CPU, changes={"extend": 5})
    train(trainer, folder, should_stop=lambda: trainer.step >= 9)
    trainer, folder = prepare_resume(tmp_path / "run", device=CPU)
    assert trainer.config.total_steps == 13
    assert [event["changed"] for event in read_events(folder)] == [{"extend": 5}]
    run(trainer, folder)
    with pytest.raises(UserError, match=r"finished \(13 of 13 steps\); .* for 100 more steps give --extend 105"):
        prepare_resume(tmp_path / "run", device=CPU, changes={"extend": 5})
    with pytest.raises(UserError, match=r"has taken 13 steps, and 10 are asked for"):
        prepare_resume(tmp_path / "run", device=CPU, changes={"extend": 2})


@pytest.mark.parametrize("annealing", ["linear", "sqrt"])
@pytest.mark.parametrize("random_fraction", [0.0, 1.0])
def test_every_schedule_of_the_guidance_ends_where_it_was(annealing: str, random_fraction: float) -> None:
    settings = config(extend=4)
    guidance = replace(settings.guidance, annealing=annealing, random_fraction=random_fraction)
    generator = torch.Generator()
    plans = [
        plan_step(guidance, settings.scheduled(step), settings.steps, num_timesteps=1000, generator=generator)
        for step in range(settings.total_steps)
    ]
    assert {plan.timestep for plan in plans[7:]} == {plans[7].timestep}
    assert len({plan.timestep for plan in plans}) == settings.steps == 8
    assert {plan.warming_up for plan in plans} == {random_fraction == 1.0}


def test_a_run_branches_off_at_an_earlier_checkpoint_into_a_folder_of_its_own(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_in(whole.path)
    monkeypatch.chdir(tmp_path)
    summary = resumed(whole.path, at=6)
    assert summary["step"] == 8
    branch = RunFolder(Path("outputs/a-blue-robot-1"))
    assert_same_results(whole, branch)
    assert sorted(path.name for path in branch.previews.iterdir()) == ["step_000004.png", "step_000008.png"]
    # With other settings it is another run, up to that step the same.
    resumed(whole.path, at=6, output_dir=tmp_path / "other", given={"guidance.guidance_scale": 3.0, "extend": 1})
    other = RunFolder(tmp_path / "other")
    assert [timeless(record) for record in other.read_steps()[:6]] == [timeless(r) for r in whole.read_steps()[:6]]
    assert len(other.read_steps()) == 9
    assert [(event["step"], event["changed"]) for event in read_events(other)] == [
        (6, {"guidance.guidance_scale": 3.0, "extend": 1})
    ]
    assert files_in(whole.path) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "7"], "no checkpoint of step 7 in {checkpoints}: there are 6, 8"),
        (["--at", "8"], "is finished (8 of 8 steps); there is nothing to resume: for 100 more steps give --extend 100"),
        (["--at", "-1"], "at must be 0 to 20000000, got -1"),
        (["--at", "6", "--prompt", "a blue dragon"], "dragon"),
        (["--at", "6", "--output-dir", "{run}"], "exists and is never overwritten"),
        (["--at", "6", "--steps", "9"], "for more steps of the same run leave --steps out and give --extend 1"),
        (["--extend", "-1"], "extend must be 0 to 10000000, got -1"),
        (["--two-stage"], "--two-stage does not go with --resume"),
        (["--extend", "9", "--stages.field-share", "0.3"], "--stages.* options are for two stages: add --two-stage"),
        (["--extend", "9", "--viewer-port", "9000"], "--viewer-port is for the viewer: add --viewer"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value).replace("{run}", "RUN"),
)
def test_what_cannot_be_done_leaves_nothing_behind(
    whole: RunFolder,
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files_in(whole.path)
    words = [word.format(run=whole.path) for word in words]
    line = refusal(["train", "--device", "cpu", "--resume", str(whole.path), *words], capsys)
    assert says.format(checkpoints=whole.checkpoints) in line
    assert files_in(whole.path) == before
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_given_as_the_run_is_answered_with_the_options_for_it(
    whole: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = whole.checkpoints / "step_000006"
    line = refusal(["train", "--resume", str(path)], capsys)
    assert line.endswith(f"give the run and the step, --resume {whole.path} --at 6")


def steered_to_nothing(folder: Path) -> None:
    """A run whose steps are steered to be far too large, which ends it."""
    trainer, run_folder = start(folder, config(steps=12))

    def steer(event: Event) -> None:
        if isinstance(event, StepDone) and event.report.step == 4:
            change_settings(trainer, run_folder, with_values(trainer.config, {"learning_rate_scale": 1000.0}))

    run(trainer, run_folder, observers=[steer])


def test_a_run_that_was_steered_to_nothing_has_a_way_out_and_its_messages_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(NonFiniteError) as stopped:
        steered_to_nothing(folder)
    resume = f"sdi-gs train --resume {folder}"
    assert f"go on with smaller steps, {resume} --learning-rate-scale 1, or " in str(stopped.value)
    assert str(stopped.value).endswith("by adding --at 6 (or 3)")
    # Resumed as it is it fails at the same step, and no attempt pushes the good checkpoint out.
    for _ in range(3):
        line = refusal_after_work(["train", "--resume", str(folder)], capsys)
        assert line.endswith(f"go on from an earlier checkpoint, {resume} --learning-rate-scale 1 --at 6 (or 3)")
    branch = tmp_path / "branch"
    words = ["--at", "3", "--learning-rate-scale", "1", "--output-dir", str(branch)]
    assert main(["train", "--resume", str(folder), *words]) == 0
    assert json.loads((branch / "summary.json").read_text())["step"] == 12


def refusal_after_work(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_steered_setting_given_on_resume_wins_over_what_was_in_force_and_is_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, run_folder = start(tmp_path / "run")
    train(trainer, run_folder, should_stop=lambda: trainer.step >= 2)
    change_settings(trainer, run_folder, with_values(trainer.config, {"learning_rate_scale": 8.0}))
    finish(trainer, run_folder, started=time.perf_counter())
    # 1 is what the run was started with, which is not what holds.
    assert main(["train", "--resume", str(run_folder.path), "--learning-rate-scale", "1", "--prompt", "a red car"]) == 0
    said = capsys.readouterr().err
    assert "from step 3 on: learning_rate_scale 1.0 instead of 8.0\n" in said
    assert "from step 3 on: prompt 'a red car' instead of 'a blue robot'\n" in said
    logged = [(event["step"], event["changed"]) for event in read_events(run_folder)]
    assert logged == [(2, {"learning_rate_scale": 8.0}), (2, {"prompt": "a red car", "learning_rate_scale": 1.0})]
    summary = read_summary(run_folder)
    assert summary is not None
    assert summary["prompt"] == "a red car"
    assert len(summary["changes"]) == 2


def test_what_was_asked_for_on_resume_holds_if_that_process_is_killed_before_its_first_checkpoint(
    tmp_path: Path,
) -> None:
    folder = stopped_run(tmp_path / "run", 4).path
    trainer, _ = prepare_resume(folder, device=CPU, changes={"learning_rate_scale": 0.5})
    assert trainer.config.learning_rate_scale == 0.5
    again, run_folder = prepare_resume(folder, device=CPU)
    assert again.config.learning_rate_scale == 0.5
    assert again.started_with == config()
    assert len(read_events(run_folder)) == 1


def test_a_setting_that_a_preset_brings_is_refused_where_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped_run(tmp_path / "run", 4).path
    settings = replace(config(), learning_rate_scale=2.0)
    with pytest.raises(UserError, match="its learning_rate_scale is 1.0, not 2.0; leave that option"):
        resumed(folder, config=settings)


def test_the_densification_of_a_longer_run_does_not_reset_opacities_at_its_end(tmp_path: Path) -> None:
    def opacities(settings: RunConfig) -> torch.Tensor:
        trainer, run_folder = start(tmp_path / str(settings.densify.reset_opacity_at), settings)
        train(trainer, run_folder)
        return load_checkpoint(run_folder.checkpoints / "step_000009").tensors["gaussians/opacities"]

    plain = config(extend=1)
    reset = replace(plain, densify=replace(plain.densify, reset_opacity_at=1.0, reset_min_timestep=0.0))
    assert torch.equal(opacities(plain), opacities(reset))


@pytest.mark.parametrize("name", ["my run", "it's"])
def test_the_command_that_goes_on_can_be_pasted(name: str, tmp_path: Path) -> None:
    assert shlex.split(resume_command(tmp_path / name)) == ["sdi-gs", "train", "--resume", str(tmp_path / name)]
