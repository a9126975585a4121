"""A run started from Python as the command line starts it, and the events that it emits."""

from __future__ import annotations

import dataclasses
import json
import threading
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import RenderOutput, StepReport
from sdi_gs.errors import UserError
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest
from sdi_gs.representations.parameter_scene import ParameterScene
from sdi_gs.runs import events as all_events
from sdi_gs.runs.checkpoint import list_checkpoints, load_checkpoint
from sdi_gs.runs.events import Event, Finished, Planned, Resumed, SettingsChanged, StageStarted, StepDone
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.launch import RunResult, launch
from sdi_gs.runs.loop import run
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.runs.request import RunRequest
from sdi_gs.runs.saving import change_settings
from sdi_gs.settings.run import OutputConfig, RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.settings.tree import with_values
from sdi_gs.training.trainer import Trainer

GIVEN = {
    "prompt": "a blue robot",
    "steps": 4,
    "gaussians.num_initial": 100,
    "ideal_prior.renders_per_view": 4,
    "ideal_prior.unconditional_renders": 8,
    "outputs.preview_every": 2,
    "outputs.checkpoint_every": 2,
    "outputs.turntable_frames": 2,
    "outputs.turntable_size": 32,
}


def request(**parts: Any) -> RunRequest:
    given = GIVEN | parts.pop("given", {})
    return RunRequest(**{"config": preset_named("smoke").config, "device": "cpu", "given": given} | parts)


def words_of(given: dict[str, Any]) -> list[str]:
    return [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def names_of(events: list[Event]) -> list[str]:
    """Kinds of events in their order, with the step where there is one."""
    names = []
    for event in events:
        step = event.report.step if isinstance(event, StepDone) else getattr(event, "step", None)
        names.append(type(event).__name__ + ("" if step is None else f" {step}"))
    return names


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in RunFolder(folder).read_steps()]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, list[Event]]:
    """A finished run and all that it emitted; nobody writes to it."""
    events = list[Event]()
    folder = tmp_path_factory.mktemp("launch") / "robot"
    return launch(request(output_dir=folder), observers=[events.append]), events


def test_python_and_the_command_line_leave_the_same_run(
    launched: tuple[RunResult, list[Event]], tmp_path: Path
) -> None:
    ours, theirs = launched[0].folder.path, tmp_path / "robot"
    words = ["train", "--preset", "smoke", "--device", "cpu", *words_of(GIVEN), "--output-dir", str(theirs)]
    assert main(words) == 0
    files = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (ours, theirs)]
    assert files[0] == files[1]
    for name in ("config.yaml", "splats.ply", "turntable.mp4", "contact_sheet.png", "previews/step_000002.png"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert log_of(ours) == log_of(theirs)
    tensors, others = (load_checkpoint(list_checkpoints(run / "checkpoints")[-1]).tensors for run in (ours, theirs))
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []
    summaries = [json.loads((run / "summary.json").read_text()) for run in (ours, theirs)]
    for summary in summaries:
        for key in ("train_seconds", "wall_seconds", "peak_rss_mb"):
            assert summary.pop(key) > 0
    assert summaries[0] == summaries[1]


def test_events_come_in_the_order_in_which_things_happen(launched: tuple[RunResult, list[Event]]) -> None:
    result, events = launched
    assert names_of(events) == [
        "Planned",
        "TrainingStarted 0",
        "StepDone 1",
        "PreviewSaved 2",
        "CheckpointSaved 2",
        "StepDone 2",
        "StepDone 3",
        "PreviewSaved 4",
        "CheckpointSaved 4",
        "StepDone 4",
        "Saving 4",
        "CheckpointSaved 4",
        "Finished",
    ]
    planned, finished = events[0], events[-1]
    assert isinstance(planned, Planned)
    assert isinstance(finished, Finished)
    assert (planned.device, planned.config.steps, planned.config.prompt) == ("cpu", 4, "a blue robot")
    assert finished.complete
    assert result.is_complete
    assert finished.summary == result.summary == json.loads(result.folder.summary.read_text())
    assert [path.name for path in finished.files] == [
        "splats.ply",
        "turntable.mp4",
        "contact_sheet.png",
        "summary.json",
    ]
    assert all(path.is_file() for path in finished.files)


def test_events_are_data_and_cannot_be_changed() -> None:
    kinds = typing.get_args(all_events.Event)
    assert len(kinds) > 10
    for kind in kinds:
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
        assert Trainer not in typing.get_type_hints(kind, vars(all_events) | {"StepReport": StepReport}).values()


def test_a_run_of_ones_own_trainer_is_trained_saved_and_exported(
    launched: tuple[RunResult, list[Event]], tmp_path: Path
) -> None:
    settings = with_values(preset_named("smoke").config, GIVEN)
    trainer, folder = prepare_run(settings, device=torch.device("cpu"), folder=tmp_path / "own")
    events = list[Event]()
    summary = run(trainer, folder, observers=[events.append])
    assert names_of(events) == names_of(launched[1])[1:]
    assert summary == json.loads(folder.summary.read_text())
    assert summary["wall_seconds"] >= summary["train_seconds"] > 0
    assert folder.splats.read_bytes() == launched[0].folder.splats.read_bytes()


def test_settings_that_an_observer_changes_are_reported(tmp_path: Path) -> None:
    settings = with_values(preset_named("smoke").config, GIVEN | {"steps": 3})
    trainer, folder = prepare_run(settings, device=torch.device("cpu"), folder=tmp_path / "steered")
    events = list[Event]()

    def steer(event: Event) -> None:
        if isinstance(event, StepDone) and event.report.step == 2:
            change_settings(trainer, folder, with_values(trainer.config, {"guidance.guidance_scale": 3.0}))

    run(trainer, folder, observers=[steer, events.append])
    [changed] = [event for event in events if isinstance(event, SettingsChanged)]
    assert (changed.step, changed.changed) == (2, {"guidance.guidance_scale": [1.0, 3.0]})
    names = names_of(events)
    assert names.index("StepDone 2") + 1 == names.index("SettingsChanged 2") < names.index("StepDone 3")


# Somebody who watches.


class Impatient:
    """Asks for a stop after a step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.events: list[Event] = []
        self.stop_requested = False

    def observe(self, event: Event) -> None:
        self.events.append(event)
        self.stop_requested |= isinstance(event, StepDone) and event.report.step == self.steps


def watch_by(watcher: Impatient, opened: list[str]) -> Any:
    @contextmanager
    def watch(trainer: Trainer, folder: RunFolder, *, interrupted: Callable[[], bool]) -> Iterator[Impatient]:
        assert not interrupted()
        assert trainer.step < trainer.config.steps
        opened.append(folder.path.name)
        yield watcher
        opened.append("closed")

    return watch


def test_a_watcher_follows_the_run_and_may_stop_it(tmp_path: Path) -> None:
    watcher, opened = Impatient(3), list[str]()
    events = list[Event]()
    folder = tmp_path / "watched"
    result = launch(request(output_dir=folder), observers=[events.append], watch=watch_by(watcher, opened))
    assert opened == ["watched", "closed"]
    assert not result.is_complete
    assert result.summary["step"] == 3
    # Whoever watches sees what all see, from the loop on.
    assert watcher.events == events[1:]
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert not finished.complete
    # And what was saved goes on.
    events.clear()
    resumed = launch(RunRequest(resume=folder, device="cpu"), observers=[events.append])
    assert resumed.is_complete
    assert names_of(events)[:3] == ["Planned", "Resumed 3", "TrainingStarted 3"]
    assert isinstance(events[1], Resumed)
    assert (events[1].folder, events[1].num_steps) == (folder, 4)


def test_a_run_may_be_launched_in_a_thread(tmp_path: Path) -> None:
    results = list[RunResult]()
    small = request(output_dir=tmp_path / "run", given={"steps": 1})
    thread = threading.Thread(target=lambda: results.append(launch(small)))
    thread.start()
    thread.join()
    assert [result.is_complete for result in results] == [True]


# Requests.


def test_what_is_given_wins_over_the_tier_and_the_tier_over_the_config(tmp_path: Path) -> None:
    base = preset_named("smoke").config
    slow = replace(base, compute=replace(base.compute, views_at_once=2, attention="plain"))
    events = list[Event]()
    given = {"steps": 1, "compute.branches_at_once": 3, "outputs.turntable_frames": 0}
    launch(request(config=slow, tier="8", given=given, output_dir=tmp_path / "run"), observers=[events.append])
    assert names_of(events)[:2] == ["TierChosen", "Planned"]
    assert isinstance(events[1], Planned)
    compute = events[1].config.compute
    assert (compute.views_at_once, compute.branches_at_once, compute.vae) == (1, 3, "checkpoint")
    # A tier is a whole way of computing.
    assert compute.attention == "sdpa"


def test_two_stages_are_told_apart_by_their_events(tmp_path: Path) -> None:
    tiny_field = {
        **{"ngp.grid.num_levels": 2, "ngp.grid.initial_levels": 2, "ngp.grid.log2_table_size": 8},
        **{"ngp.hidden_width": 8, "ngp.samples_per_ray": 32, "ngp.occupancy_resolution": 16},
    }
    events = list[Event]()
    out = tmp_path / "robot"
    result = launch(
        request(output_dir=out, two_stage=True, stages=StagesConfig(field_share=0.5), given=tiny_field),
        observers=[events.append],
    )
    stages = [event for event in events if isinstance(event, StageStarted)]
    assert [(stage.number, stage.config.representation, stage.config.steps) for stage in stages] == [
        (1, "ngp", 2),
        (2, "gaussians", 2),
    ]
    assert [event.folder.name for event in events if isinstance(event, Finished)] == ["robot-field", "robot"]
    assert result.folder.path == out


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"config": None}, "nothing to run"),
        ({"given": {"steps": 0}}, "^steps must be 1 to 10000000, got 0$"),
        ({"given": {"guidance.t_min": 2.0}}, "^guidance: t_min must be 0.001 to 1, got 2.0$"),
        ({"given": {"colour": "blue"}}, "unknown key colour"),
        ({"given": {"gaussians.init": "shell"}, "two_stage": True}, "leave --init and --init-from out"),
        ({"resume": Path("a-run"), "two_stage": True}, "--two-stage does not go with --resume"),
        ({"resume": Path("a-run"), "output_dir": Path("b")}, "the run goes on in a-run"),
    ],
)
def test_requests_that_make_no_sense_are_refused_before_anything_is_loaded(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        request(**parts)


def test_a_request_that_cannot_be_run_leaves_nothing(tmp_path: Path) -> None:
    events = list[Event]()
    with pytest.raises(UserError, match="dragon"):
        launch(request(output_dir=tmp_path / "run", given={"prompt": "a blue dragon"}), observers=[events.append])
    assert names_of(events) == ["Planned"]
    assert list(tmp_path.iterdir()) == []


def test_a_config_alone_is_a_request(tmp_path: Path) -> None:
    none = OutputConfig(preview_every=0, checkpoint_every=0, turntable_frames=0, turntable_size=32)
    settings: RunConfig = replace(with_values(preset_named("smoke").config, GIVEN), steps=1, outputs=none)
    result = launch(RunRequest(config=settings, device=torch.device("cpu"), output_dir=tmp_path / "run"))
    assert RunFolder(tmp_path / "run").read_config()["steps"] == 1
    assert result.summary["device"] == "cpu"


# A scene and a noise source of one's own.


class FixedNoise:
    """The same draw at every step."""

    def infer(self, request: NoiseRequest) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(request.latents.shape, generator=generator)


class Disc(ParameterScene):
    """A disc of one colour, the same from all sides."""

    def __init__(self) -> None:
        super().__init__({"colour": torch.zeros(3)}, learning_rates={"colour": 0.1})

    def render(self, cameras: CameraBatch, background: Tensor, **_: Any) -> RenderOutput:
        alpha = torch.zeros(len(cameras), cameras.height, cameras.width, 1)
        alpha[:, 16:48, 16:48] = 1.0
        rgb = alpha * torch.sigmoid(self.params["colour"]) + (1.0 - alpha) * background[:, None, None]
        return RenderOutput(rgb=rgb, alpha=alpha)


def test_a_scene_and_a_noise_source_of_ones_own_are_launched_stopped_and_resumed(tmp_path: Path) -> None:
    watcher, folder, events = Impatient(2), tmp_path / "own", list[Event]()
    stopped = launch(request(output_dir=folder), scene=Disc(), noise_source=FixedNoise(), watch=watch_by(watcher, []))
    assert not stopped.is_complete
    again = RunRequest(resume=folder, device="cpu")
    with pytest.raises(UserError, match="a scene of one's own, Disc"):
        launch(again)
    result = launch(again, scene=Disc(), noise_source=FixedNoise(), observers=[events.append])
    assert result.is_complete
    assert isinstance(events[-1], Finished)
    assert [path.name for path in events[-1].files] == ["turntable.mp4", "contact_sheet.png", "summary.json"]


def test_two_stages_take_no_scene_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two stages make their own scenes"):
        launch(request(two_stage=True, output_dir=tmp_path / "run"), scene=Disc())
    assert list(tmp_path.iterdir()) == []
