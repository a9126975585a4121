"""A run whose descriptors are used up, or whose log fails, saves its work before it gives up."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import config, start

from sdi_gs.errors import UserError
from sdi_gs.runs.checkpoint import list_checkpoints
from sdi_gs.runs.checkpoint_folders import step_of
from sdi_gs.runs.events import Event, StepDone
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import train
from sdi_gs.runs.spare_descriptors import spare_descriptors
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.run import RunConfig


class Hoarder:
    """Takes all descriptors of the process when told to."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def take_all(self) -> None:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                self.held.append(os.open(os.devnull, os.O_RDONLY))


@pytest.fixture
def hoarder() -> Iterator[Hoarder]:
    """Descriptors are few, so that all of them can be taken at once."""
    found, limits = Hoarder(), resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 60, limits[1]))
    yield found
    for descriptor in found.held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def settings(**outputs: int) -> RunConfig:
    return replace(config(steps=6), outputs=OutputConfig(**{"preview_every": 0, "checkpoint_every": 0, **outputs}))


def saved_steps(folder: RunFolder) -> list[int]:
    return [step for path in list_checkpoints(folder.checkpoints) if (step := step_of(path)) is not None]


def given_up(path: Path, run: RunConfig, taking: Hoarder, *, after: int) -> RunFolder:
    """Train until nothing can be opened any more."""
    trainer, folder = start(path, run)

    def observe(event: Event) -> None:
        if isinstance(event, StepDone) and event.report.step == after:
            taking.take_all()

    with pytest.raises(UserError, match="Too many open files"):
        train(trainer, folder, observers=[observe])
    assert trainer.step == after + 1
    return folder


def test_the_step_whose_log_line_finds_no_descriptor_is_saved_and_logged(tmp_path: Path, hoarder: Hoarder) -> None:
    folder = given_up(tmp_path / "run", settings(), hoarder, after=2)
    assert saved_steps(folder) == [3]
    assert [line["step"] for line in folder.read_steps()] == [1, 2, 3]


def test_an_earlier_checkpoint_is_kept(tmp_path: Path, hoarder: Hoarder) -> None:
    folder = given_up(tmp_path / "run", settings(checkpoint_every=1), hoarder, after=3)
    assert saved_steps(folder)[-1] == 4
    assert len(saved_steps(folder)) >= 2


def test_a_log_that_cannot_be_written_does_not_cost_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, folder = start(tmp_path / "run", settings())
    append = RunFolder.append_step

    def failing(self: RunFolder, record: dict[str, object]) -> None:
        if record["step"] == 3:
            raise UserError("cannot write steps.jsonl: Input/output error")
        append(self, record)

    monkeypatch.setattr(RunFolder, "append_step", failing)
    with pytest.raises(UserError, match="steps.jsonl: Input/output error"):
        train(trainer, folder)
    assert saved_steps(folder) == [3]
    assert [line["step"] for line in folder.read_steps()] == [1, 2]


def test_spare_descriptors_are_given_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with spare_descriptors(5) as release:
        assert len(os.listdir("/proc/self/fd")) == before + 5
        release()
        assert len(os.listdir("/proc/self/fd")) == before
    with spare_descriptors(5):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_run_starts_with_fewer_descriptors_than_it_would_keep(hoarder: Hoarder) -> None:
    with spare_descriptors(1000) as release:
        release()
        os.close(os.open(os.devnull, os.O_RDONLY))
