"""Batches that other processes draw ahead are those that would be drawn here."""

from __future__ import annotations

import operator
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from toybox_training.autoencoder import RenderedBatches, VaeTask, VaeTrainingConfig
from toybox_training.examples import ExamplesConfig
from toybox_training.feed import Feed
from toybox_training.loop import LoopConfig, train
from toybox_training.workers import Workers

from sdi_gs.errors import UserError

pytestmark = pytest.mark.slow


def test_batches_come_in_order_from_other_processes_and_from_wherever_asked() -> None:
    feed = Feed(operator.neg, processes=2)
    assert [feed.batch(number) for number in (3, 4, 5, 6, 20, 21)] == [-3, -4, -5, -6, -20, -21]
    assert len(active_children()) >= 2


def test_without_processes_a_batch_is_drawn_here_when_it_is_asked_for() -> None:
    drawn: list[int] = []
    feed = Feed(lambda number: drawn.append(number) or -number)
    assert feed.batch(7) == -7
    assert drawn == [7]


def test_rendered_batches_are_the_same_from_another_process() -> None:
    draw = RenderedBatches(ExamplesConfig(image_size=16), 3, 0)
    fed = Feed(draw, processes=1)
    for number in (0, 1):
        for ours, theirs in zip(fed.batch(number), draw(number), strict=True):
            assert torch.equal(ours, theirs)


def test_a_card_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    task = VaeTask(VaeTrainingConfig(block_channels=(8, 8, 8)))
    with pytest.raises(UserError, match="no CUDA device"):
        train(LoopConfig(steps=1, learning_rate=1e-3, device="cuda"), task, tmp_path, resume=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="2 processes train together on CPUs only"):
        train(
            LoopConfig(steps=1, learning_rate=1e-3, device="cuda"),
            task,
            tmp_path,
            resume=False,
            workers=Workers(rank=0, count=2),
        )


@pytest.mark.parametrize(("name", "value"), [("device", "tpu"), ("feeders", -1)])
def test_nonsense_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        LoopConfig(steps=1, learning_rate=1e-3, **{name: value})  # pyright: ignore[reportArgumentType]
