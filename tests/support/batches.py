"""Batches in every state, made without making any run."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sdi_gs.batch.journal import BatchHeader, RowEvent
from sdi_gs.batch.rows import new_row
from sdi_gs.batch.state import BatchState

STRANGE = "</script><script>window.harmed=1</script><img src=x onerror='window.harmed=2'> /*DATA*/ & <b>bold</b>"
"""A prompt that would change a page which takes it for markup."""


def batch_of(*prompts: str, seeds: int = 1) -> BatchState:
    """Return a batch of these prompts, each with ``seeds`` seeds, of which nothing is made."""
    rows = [
        new_row(index=number * seeds + seed, line=number + 1, prompt=prompt, seed=seed)
        for number, prompt in enumerate(prompts)
        for seed in range(seeds)
    ]
    header = BatchHeader(version="0.2.0", source="prompts.txt", settings={"steps": 100}, rows=len(rows))
    return BatchState(header, rows)


def start(state: BatchState, index: int, *, step: int = 0, worker: str = "w0") -> None:
    """Let a worker begin with a row."""
    key = state.rows[index].row.key
    state.apply(
        RowEvent(event="started", key=key, worker=worker, machine="box", device="cpu", attempt=1, step=step, steps=100)
    )


def finish(state: BatchState, index: int, *, seconds: float = 10.0, **scores: float) -> None:
    """Let a row be finished with these scores."""
    start(state, index)
    key = state.rows[index].row.key
    state.apply(RowEvent(event="finished", key=key, step=100, steps=100, seconds=seconds, scores=scores or None))


def fail(state: BatchState, index: int, reason: str) -> None:
    """Let a row fail."""
    state.apply(RowEvent(event="failed", key=state.rows[index].row.key, reason=reason))


def leave_pictures(out: Path, state: BatchState, index: int) -> Path:
    """Write what a finished run of this row would leave for the page, and return its folder."""
    folder = state.rows[index].row.folder(out)
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 32), (200, 30, 30)).save(folder / "contact_sheet.png")
    (folder / "splats.ply").write_bytes(b"ply\n")
    return folder
