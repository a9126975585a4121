"""A run from its settings to its files, stopped and resumed."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.runs.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from sdi_gs.runs.events import Event, StepDone
from sdi_gs.runs.finish import finish, read_summary
from sdi_gs.runs.folder import RunFolder, load_run_config
from sdi_gs.runs.loading import load_scene
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.provenance import peak_rss_mb, versions
from sdi_gs.runs.saving import change_settings
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
BYTES_THAT_REPEAT = ("splats.ply", "turntable.mp4", "contact_sheet.png", "config.yaml")


def config(**changes: Any) -> RunConfig:
    """Eight steps of the whole path, densification included."""
    base = preset_named("smoke").config
    small = replace(
        base,
        prompt="a blue robot",
        steps=8,
        gaussians=replace(base.gaussians, num_initial=150),
        densify=replace(base.densify, enabled=True, start=0.0, stop=1.0, every=3, max_gaussians=200, min_gaussians=50),
        ideal_prior=replace(base.ideal_prior, renders_per_view=8, unconditional_renders=16),
        outputs=OutputConfig(preview_every=4, checkpoint_every=3, turntable_frames=2, turntable_size=32),
    )
    return replace(small, **changes)


def start(folder: Path, settings: RunConfig | None = None) -> tuple[Trainer, RunFolder]:
    return prepare_run(settings or config(), device=CPU, folder=folder)


def whole_run(folder: Path, settings: RunConfig | None = None) -> RunFolder:
    trainer, run_folder = start(folder, settings)
    assert train(trainer, run_folder)
    finish(trainer, run_folder, started=time.perf_counter())
    return run_folder


def stopped_run(folder: Path, steps: int) -> RunFolder:
    """A run that was asked to stop, and saved and exported what it had."""
    trainer, run_folder = start(folder)
    assert not train(trainer, run_folder, should_stop=lambda: trainer.step >= steps)
    finish(trainer, run_folder, started=time.perf_counter())
    return run_folder


def crashed_run(folder: Path, steps: int) -> RunFolder:
    """A run that ended without a word."""
    trainer, run_folder = start(folder)
    train(trainer, run_folder, should_stop=lambda: trainer.step >= steps)
    return run_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return whole_run(tmp_path_factory.mktemp("run") / "whole")


def assert_same_results(left: RunFolder, right: RunFolder) -> None:
    for name in BYTES_THAT_REPEAT:
        assert (left.path / name).read_bytes() == (right.path / name).read_bytes(), name
    assert [timeless(record) for record in left.read_steps()] == [timeless(record) for record in right.read_steps()]
    tensors, others = (load_checkpoint(list_checkpoints(run.checkpoints)[-1]).tensors for run in (left, right))
    assert set(tensors) == set(others)
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seconds"}


def test_the_same_settings_give_the_same_bytes(whole: RunFolder, tmp_path: Path) -> None:
    again = whole_run(tmp_path / "again")
    assert_same_results(whole, again)
    for preview in whole.previews.iterdir():
        assert (again.previews / preview.name).read_bytes() == preview.read_bytes()


def test_another_seed_gives_another_object(whole: RunFolder, tmp_path: Path) -> None:
    other = whole_run(tmp_path / "other", config(seed=1))
    assert other.splats.read_bytes() != whole.splats.read_bytes()


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


def test_the_summary_counts_what_the_log_says(whole: RunFolder) -> None:
    summary, steps = read_summary(whole), whole.read_steps()
    assert summary is not None
    assert (summary["prompt"], summary["prior"], summary["seed"]) == ("a blue robot", "toybox-ideal", 0)
    assert summary["prior_is_an_instrument"] is True
    assert summary["step"] == summary["steps"] == len(steps) == 8
    assert summary["predictor_calls"] == sum(step["predictor_calls"] for step in steps)
    assert summary["train_seconds"] == pytest.approx(sum(step["seconds"] for step in steps))
    assert summary["n_gaussians"] == steps[-1]["n_gaussians"]
    assert summary["n_exported"] == len(read_splat_ply(whole.splats))
    assert summary["peak_rss_mb"] > 50
    assert summary["versions"]["torch"] == torch.__version__
    for step in steps:
        assert step["loss"] == pytest.approx(sum(step["losses"].values()))


def test_previews_and_checkpoints_come_as_often_as_asked(whole: RunFolder) -> None:
    assert sorted(path.name for path in whole.previews.iterdir()) == ["step_000004.png", "step_000008.png"]
    # The last two of those after steps 3, 6 and 8.
    assert [path.name for path in list_checkpoints(whole.checkpoints)] == ["step_000006", "step_000008"]


def test_outputs_can_be_left_out(tmp_path: Path) -> None:
    none = OutputConfig(preview_every=0, checkpoint_every=0, turntable_frames=0, turntable_size=32)
    run = whole_run(tmp_path / "bare", config(steps=2, outputs=none))
    assert list(run.previews.iterdir()) == []
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step_000002"]
    assert not run.turntable.exists()
    assert run.splats.exists()


def test_the_settings_of_a_run_can_be_read_back(whole: RunFolder) -> None:
    assert load_run_config(whole.path) == config()


def test_observers_see_every_step_after_it_was_logged(tmp_path: Path) -> None:
    seen: list[int] = []
    trainer, folder = start(tmp_path / "seen", config(steps=3))

    def observe(event: Event) -> None:
        if isinstance(event, StepDone):
            assert folder.read_steps()[-1]["step"] == event.report.step
            seen.append(event.report.step)

    train(trainer, folder, observers=[observe])
    assert seen == [1, 2, 3]


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "a blue dragon"}, '"dragon"'),
        ({"prior": "nix"}, "prior 'nix' is unknown"),
    ],
)
def test_what_cannot_be_run_leaves_no_folder(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        start(tmp_path / "none", config(**changes))
    assert says in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_the_next_free_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        _, folder = prepare_run(config(), device=CPU, folder=None)
        assert folder.path == Path(f"outputs/a-blue-robot-{number}")


def test_a_summary_that_is_missing_or_torn_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_summary(folder) is None
    folder.summary.write_text('{"step": 3')
    assert read_summary(folder) is None
    folder.summary.write_text("[]")
    assert read_summary(folder) is None


def test_peak_memory_is_in_mebibytes() -> None:
    # An interpreter with torch takes hundreds of MiB, neither one nor millions.
    assert 50 < peak_rss_mb() < 100_000


def test_a_film_that_cannot_be_made_is_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_ffmpeg_exe() -> str:
        raise RuntimeError("no ffmpeg")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", get_ffmpeg_exe)
    with pytest.raises(UserError, match=r"no ffmpeg on this machine; .*, or do without: --outputs.turntable-frames 0"):
        start(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    silent = config(outputs=replace(config().outputs, turntable_frames=0))
    start(tmp_path / "run", silent)


def test_versions_of_what_is_missing_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metadata.version

    def version(name: str) -> str:
        if name == "viser":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)
    assert versions()["viser"] == "missing"
    assert versions()["torch"] == torch.__version__


def test_versions_name_what_decides_a_result() -> None:
    assert versions()["torch"] == torch.__version__
    assert {"python", "sdi-gs", "gsplat", "numba", "numpy", "diffusers"} <= set(versions())


def test_a_run_is_loaded_from_its_latest_checkpoint_and_its_file_holds_the_same(whole: RunFolder) -> None:
    from_run, from_file = load_scene(whole.path), load_scene(whole.splats)
    assert from_run.run is not None
    assert from_run.run.step == 8
    assert from_run.prompt == "a blue robot"
    assert from_file.run is None
    assert from_file.prompt is None
    run_splats, file_splats = from_run.splats(), from_file.splats()
    assert len(run_splats) == len(file_splats)
    for name, atol in (("means", 1e-6), ("log_scales", 0.0), ("opacity_logit", 0.0), ("sh_dc", 0.0)):
        left, right = getattr(run_splats, name), getattr(file_splats, name)
        torch.testing.assert_close(left, right, rtol=0.0, atol=atol)


@pytest.mark.parametrize("file", ["", "tensors.safetensors", "checkpoint.json"])
def test_a_checkpoint_that_is_named_is_the_one_that_is_loaded(whole: RunFolder, file: str) -> None:
    named = load_scene(whole.checkpoints / "step_000006" / file)
    assert named.run is not None
    assert named.run.step == 6
    assert named.prompt == "a blue robot"
    assert named.run.folder.path.samefile(whole.path)
    last = load_scene(whole.path).splats()
    assert not torch.equal(named.splats().means, last.means)


def test_a_checkpoint_outside_its_run_is_refused(whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.checkpoints / "step_000006", tmp_path / "step_000006")
    with pytest.raises(UserError, match="is not a run: it has no config.yaml"):
        load_scene(tmp_path / "step_000006")


def test_what_is_no_source_of_splats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist: give a run folder, a checkpoint of one, a \.ply"):
        load_scene(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not a run"):
        load_scene(tmp_path)


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
    return [(event["step"], event["changed"]["guidance.guidance_scale"]) for event in run.read_events()]


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
    assert [event["changed"] for event in folder.read_events()] == [{"prompt": "a red car"}]
    assert load_scene(run.path).prompt == "a red car"
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
    assert run.read_events() == []


def test_a_config_file_that_was_edited_is_still_told_apart_in_a_steered_run(tmp_path: Path) -> None:
    run = steered_run(tmp_path / "steered", checkpoint_after=5, stop=5)
    run.config.write_text(run.config.read_text().replace("seed: 0", "seed: 4", 1))
    with pytest.raises(UserError, match="is not what the checkpoint of step 5 was trained with"):
        prepare_resume(run.path, device=CPU)
