"""The page of a batch as a file: whole, escaped, small, and made from the batch's state. See also tests/browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from batches import STRANGE, batch_of, fail, finish, leave_pictures, start

from sdi_gs.batch.page import PAGE, PageWriter, write_page
from sdi_gs.batch.ranking import ranking_named
from sdi_gs.batch.state import BatchState
from sdi_gs.errors import UserError


def data_of(page: Path) -> dict[str, Any]:
    """Return the facts inside a page, read as a browser does: up to the first end of a script element."""
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL | re.IGNORECASE)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_every_row_and_what_became_of_it(tmp_path: Path) -> None:
    state = batch_of("a blue robot", "a red mug", STRANGE, "a green tree", "a ball")
    finish(state, 0, seconds=31.46, judge_class=0.75, broken=float("inf"))
    leave_pictures(tmp_path, state, 0)
    start(state, 1, step=40)
    preview = state.rows[1].row.folder(tmp_path) / "previews"
    preview.mkdir(parents=True)
    for step in (20, 40):
        (preview / f"step_{step:06d}.png").write_bytes(b"")
    fail(state, 2, "no such </script> word")
    finish(state, 3)
    data = data_of(write_page(tmp_path, state, running=True))
    robot, mug, strange, tree, ball = data["rows"]
    assert (robot["status"], robot["seconds"], robot["scores"]) == ("finished", 31.5, {"judge_class": 0.75})
    assert (robot["folder"], robot["sheet"], robot["ply"], robot.get("film")) == (True, True, True, None)
    assert (mug["status"], mug["step"], mug["steps"]) == ("running", 40, 100)
    assert mug["preview"] == "previews/step_000040.png"
    assert (strange["prompt"], strange["reason"]) == (STRANGE, "no such </script> word")
    # Its folder holds nothing: no link leads nowhere.
    assert not {"sheet", "film", "ply", "preview", "folder"} & set(tree)
    assert ball["status"] == "waiting"
    assert (data["running"], data["source"]) == (True, "prompts.txt")


def test_the_page_needs_no_network_and_holds_no_markup_of_strangers(tmp_path: Path) -> None:
    state = batch_of(STRANGE)
    fail(state, 0, STRANGE)
    text = write_page(tmp_path, state).read_text()
    assert STRANGE not in text
    assert "<script>window" not in text
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import|url\(""", text)
    assert text.count("<script") == text.count("</script") == 2


def test_the_page_is_replaced_whole_and_a_row_is_looked_up_again_only_after_an_event(tmp_path: Path) -> None:
    state, writer = batch_of("a blue robot", "a red mug"), PageWriter(tmp_path)
    finish(state, 0)
    writer.write(state, running=True)
    leave_pictures(tmp_path, state, 0)
    finish(state, 1)
    writer.write(state, running=False)
    first, second = data_of(tmp_path / PAGE)["rows"]
    # Files that came later without an event are not looked for: 10 000 rows are not read from the disk again and again.
    assert "sheet" not in first
    assert second["status"] == "finished"
    # Nothing half-written is left beside it.
    assert {path.name for path in tmp_path.iterdir()} == {PAGE, "runs"}


def test_the_best_of_a_prompts_seeds_are_marked(tmp_path: Path) -> None:
    state = batch_of("a blue robot", seeds=3)
    for index, value in enumerate((0.5, 1.0, 0.25)):
        finish(state, index, judge_class=value)
    data = data_of(write_page(tmp_path, state, keep=2, ranking=ranking_named("judge")))
    assert [row.get("best", False) for row in data["rows"]] == [True, True, False]
    assert (data["keep"], data["score"]) == (2, "judge")


def test_an_observer_writes_now_and_then_and_a_full_disk_costs_the_batch_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, writer = batch_of("a blue robot"), PageWriter(tmp_path)
    written: list[bool] = []

    def write(state: BatchState, *, running: bool) -> None:
        written.append(running)
        raise UserError("no space left")

    monkeypatch.setattr(writer, "write", write)
    for _ in range(3):
        writer.observe(None, state)
    assert written == [True]
    assert "the page could not be written: no space left" in capsys.readouterr().err
