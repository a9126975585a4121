"""A worker: rows one after the other in one process, with the prior kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from small_batches import PROMPTS, job_of, rows_of
from small_runs import BYTES_THAT_REPEAT, config, crashed_run, start, whole_run

from sdi_gs.batch import worker as worker_module
from sdi_gs.batch.engine import RowProgress
from sdi_gs.batch.journal import RowEvent
from sdi_gs.batch.kept_prior import KeptPrior
from sdi_gs.batch.worker import Worker
from sdi_gs.configs.presets import preset
from sdi_gs.priors import catalog
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.writer_lock import only_writer
from sdi_gs.settings.run import RunConfig

CPU = torch.device("cpu")


def new_worker() -> Worker:
    return Worker(name="cpu-0", machine="host", device=CPU)


def made(worker: Worker, job: Any, should_stop: Callable[[], bool] = lambda: False) -> list[RowEvent]:
    """The events of one attempt, without progress."""
    events: list[RowEvent | RowProgress] = []
    worker.make(job, events.append, should_stop)
    return [event for event in events if isinstance(event, RowEvent)]


def assert_same_bytes(left: Path, right: Path) -> None:
    for name in BYTES_THAT_REPEAT:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


def test_rows_of_one_worker_have_the_bytes_of_runs_of_their_own(tmp_path: Path) -> None:
    worker = new_worker()
    for row in rows_of(*PROMPTS):
        events = made(worker, job_of(row, tmp_path))
        assert [event.event for event in events] == ["started", *["checkpoint"] * 3, "finished"]
        assert (events[-1].step, events[-1].steps, events[-1].worker, events[-1].device) == (8, 8, "cpu-0", "cpu")
        single = whole_run(tmp_path / "single" / row.key, config(prompt=row.prompt))
        assert_same_bytes(row.folder(tmp_path), single.path)
    assert worker.prior.loads == 1


def test_a_row_that_is_stopped_is_saved_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    [row] = rows_of(PROMPTS[0])
    looks = chain([False], repeat(True))
    worker = new_worker()
    events = made(worker, job_of(row, tmp_path), lambda: next(looks))
    assert [event.event for event in events] == ["started", "stopped"]
    assert events[-1].step == 2
    assert not RunFolder(row.folder(tmp_path)).splats.exists()
    events = made(worker, job_of(row, tmp_path, attempt=2))
    assert (events[0].event, events[0].step, events[0].attempt) == ("started", 2, 2)
    assert events[-1].event == "finished"
    assert_same_bytes(row.folder(tmp_path), whole_run(tmp_path / "single").path)
    # What a stop leaves is a checkpoint, not results to be set aside.
    assert not list(row.folder(tmp_path).glob("*_stop_*"))


def test_a_row_whose_worker_died_goes_on_from_its_checkpoint_or_starts_anew(tmp_path: Path) -> None:
    rows = rows_of(*PROMPTS[:2])
    crashed_run(rows[0].folder(tmp_path), 5)
    trainer, _ = start(rows[1].folder(tmp_path), config(prompt=PROMPTS[1]))
    del trainer
    starts = [made(new_worker(), job_of(row, tmp_path))[0].step for row in rows]
    assert starts == [3, 0]
    for row in rows:
        single = whole_run(tmp_path / "single" / row.key, config(prompt=row.prompt))
        assert_same_bytes(row.folder(tmp_path), single.path)


def test_a_row_that_was_finished_before_its_end_was_noted_is_not_made_again(tmp_path: Path) -> None:
    [row] = rows_of(PROMPTS[0])
    folder = whole_run(row.folder(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    [event] = made(new_worker(), job_of(row, tmp_path))
    assert (event.event, event.step) == ("finished", 8)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_a_row_that_cannot_be_made_fails_in_one_line(tmp_path: Path) -> None:
    [row] = rows_of("a violin")
    [event] = made(new_worker(), job_of(row, tmp_path))
    assert event.event == "failed"
    assert event.reason is not None
    assert "violin" in event.reason
    assert "\n" not in event.reason
    assert not row.folder(tmp_path).exists()


def test_a_worker_waits_for_another_one_to_let_go_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [row] = rows_of(PROMPTS[0])
    crashed_run(row.folder(tmp_path), 5)
    with only_writer(row.folder(tmp_path)):
        monkeypatch.setattr(worker_module, "LOCK_SECONDS", 0.6)
        [event] = made(new_worker(), job_of(row, tmp_path))
    assert event.event == "failed"
    assert "is being written by another process" in str(event.reason)
    monkeypatch.undo()
    lock = only_writer(row.folder(tmp_path))
    lock.__enter__()
    timer = threading.Timer(0.7, lambda: lock.__exit__(None, None, None))
    timer.start()
    assert made(new_worker(), job_of(row, tmp_path))[-1].event == "finished"
    timer.join()


def test_scores_come_with_the_end_of_a_row(tmp_path: Path) -> None:
    [row] = rows_of(PROMPTS[0])
    job = job_of(row, tmp_path)
    job = type(job)(**{**vars(job), "scores": ("judge", "size")})
    scores = made(new_worker(), job)[-1].scores
    assert scores is not None
    assert {"judge_class", "n_gaussians"} <= set(scores)


@pytest.mark.parametrize(
    ("change", "loads"),
    [
        ({"prompt": "a red mushroom", "seed": 3, "steps": 9}, 1),
        ({"prompt": "a striped blue robot"}, 2),
        ({"prior": "toybox"}, 2),
    ],
    ids=str,
)
def test_a_prior_is_loaded_again_only_where_it_differs(change: dict[str, Any], loads: int) -> None:
    kept = KeptPrior()
    first = kept(config(), CPU)
    second = kept(config(**change), CPU)
    assert (kept.loads, second is first) == (loads, loads == 1)


def test_renders_of_a_prompt_are_dropped_for_the_next_and_those_of_all_prompts_stay() -> None:
    kept = KeptPrior()
    prior: Any = kept(config(), CPU)
    embeddings = prior.embed_prompts(["a blue robot, front view", ""])
    latents = torch.zeros(2, 3, 32, 32)
    prior.predict_noise(latents, 500, embeddings)
    assert len(prior._mixtures) == len(prior._renders) == 2
    kept(config(seed=1), CPU)
    assert len(prior._mixtures) == 2
    kept(config(prompt="a red mushroom"), CPU)
    assert set(prior._renders) == {(None, None, None)}
    assert len(prior._mixtures) == 1


def test_texts_of_the_same_prompt_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptPrior()
    prior: Any = kept(config(prior="toybox"), CPU)
    encoded: list[Any] = []
    encoder = prior.text_encoder.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        encoded.append(arguments)
        return encoder(*arguments, **named)

    monkeypatch.setattr(prior.text_encoder, "forward", counted)
    texts = ["a blue robot, front view", ""]
    first = prior.embed_prompts(texts)
    assert kept(config(prior="toybox", seed=1), CPU) is prior
    assert torch.equal(prior.embed_prompts(texts), first)
    assert len(encoded) == 1
    kept(config(prior="toybox", prompt="a red mushroom"), CPU)
    assert torch.equal(prior.embed_prompts(texts), first)
    assert len(encoded) == 2


class Watched:
    """A config whose leaves are noted as they are read."""

    def __init__(self, values: Any, read: set[str], path: str = "") -> None:
        self._values, self._read, self._path = values, read, path

    def __getattr__(self, name: str) -> Any:
        self._read.add(f"{self._path}{name}")
        value = getattr(self._values, name)
        return Watched(value, self._read, f"{name}.") if name in ("compute", "guidance") else value


@pytest.mark.parametrize("prior", ["toybox-ideal", "toybox"])
def test_everything_that_the_loading_of_a_prior_reads_is_compared(prior: str) -> None:
    read: set[str] = set()
    settings: RunConfig = config(prior=prior)
    watched: Any = Watched(settings, read)
    catalog.load_prior(watched, device=CPU)
    compared: set[str] = set()
    catalog.loader_settings(Watched(settings, compared))  # pyright: ignore[reportArgumentType]
    assert read <= compared


@pytest.mark.parametrize(("free", "choice", "tier"), [(22, "auto", "40"), (8, "auto", "16"), (22, "8", "8")])
def test_a_worker_takes_the_tier_that_fits_its_share_of_the_card(free: int, choice: str, tier: str) -> None:
    worker = new_worker()
    worker._memory = free * 2**30
    config = preset("sd21-base", prompt="a corgi")
    assert worker.tier(choice, config) == tier  # pyright: ignore[reportArgumentType]
