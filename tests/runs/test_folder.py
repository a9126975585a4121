"""Run folders: names, files, results."""

from __future__ import annotations

import errno
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from run_log import read_events

from sdi_gs.errors import UserError
from sdi_gs.runs.folder import RunFolder, create_run_folder, create_run_folder_at, open_run_folder, slug


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create_run_folder(tmp_path, "a blue robot")


def test_runs_of_the_same_prompt_get_numbers(tmp_path: Path) -> None:
    names = [create_run_folder(tmp_path / "outputs", "A blue robot!").path.name for _ in range(3)]
    assert names == ["a-blue-robot-1", "a-blue-robot-2", "a-blue-robot-3"]


def test_a_number_taken_by_a_file_or_an_old_run_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a-chair-1").write_text("notes")
    (tmp_path / "a-chair-2").mkdir()
    assert create_run_folder(tmp_path, "a chair").path.name == "a-chair-3"
    assert (tmp_path / "a-chair-1").read_text() == "notes"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a blue robot", "a-blue-robot"),
        ("  Ünïcode -- Bär / 2 ", "unicode-bar-2"),
        ("../../etc/passwd", "etc-passwd"),
        ("日本", "run"),
        ("", "run"),
        ("a photo of a very long and winding sentence", "a-photo-of-a-very-long-and-winding"),
        ("a photo of a very long and twisted thing", "a-photo-of-a-very-long-and-twisted-thing"),
        ("x" * 100, "x" * 40),
    ],
)
def test_a_slug_is_short_safe_and_whole_words(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected
    assert re.fullmatch(r"[a-z0-9-]{1,40}", slug(prompt))


def test_a_chosen_folder_that_exists_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").touch()
    with pytest.raises(UserError, match="mine exists and is never overwritten"):
        create_run_folder_at(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]
    made = create_run_folder_at(tmp_path / "other" / "mine")
    assert made.previews.is_dir()
    assert made.checkpoints.is_dir()


def test_a_place_that_cannot_hold_runs_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file"):
        create_run_folder(tmp_path / "file", "a chair")


def test_a_run_may_have_a_folder_that_is_there_and_empty(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    made = create_run_folder_at(tmp_path / "volume")
    assert made.checkpoints.is_dir()
    with pytest.raises(UserError, match="never overwritten"):
        create_run_folder_at(tmp_path / "volume")


def test_the_config_comes_back_in_its_order_and_is_written_once(run: RunFolder) -> None:
    config = {"prompt": "ein Bär", "steps": 400, "guidance": {"scale": 7.5, "eta": None}, "seeds": [1, 2]}
    run.write_config(config)
    assert run.read_config() == config
    assert list(run.read_config()) == list(config)
    with pytest.raises(UserError, match="never overwritten"):
        run.write_config({})
    assert open_run_folder(run.path) == run


def test_what_is_no_run_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has no config\.yaml"):
        open_run_folder(run.path)
    with pytest.raises(UserError, match="no such folder"):
        open_run_folder(tmp_path / "absent")


@pytest.mark.parametrize(("text", "message"), [("a: [", "not YAML"), ("", "no settings"), ("- 1", "no settings")])
def test_a_spoilt_config_is_refused_in_one_line(run: RunFolder, text: str, message: str) -> None:
    run.config.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        run.read_config()
    assert "\n" not in str(caught.value)


def test_yaml_that_would_build_objects_is_refused(run: RunFolder) -> None:
    run.config.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not YAML"):
        run.read_config()


def record(step: int, loss: float = 0.5) -> dict[str, Any]:
    return {"step": step, "losses": {"distillation": loss}}


def test_every_step_is_a_line_at_once(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.append_step(record(step))
        assert len(run.steps.read_text().splitlines()) == step
    assert run.read_steps() == [record(1), record(2), record(3)]


def test_a_loss_that_is_not_finite_is_null_in_strict_json(run: RunFolder) -> None:
    run.append_step(record(1, math.nan))
    run.write_summary({"psnr": math.inf, "views": (1, 2)})

    def no_constants(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    log = json.loads(run.steps.read_text(), parse_constant=no_constants)
    assert log["losses"]["distillation"] is None
    assert json.loads(run.summary.read_text(), parse_constant=no_constants) == {"psnr": None, "views": [1, 2]}


def test_a_resumed_run_drops_the_steps_it_will_redo(run: RunFolder) -> None:
    for step in (1, 2, 3, 4):
        run.append_step(record(step))
    before = run.steps.read_bytes()
    run.rewind_log(2)
    assert run.steps.read_bytes() == b"".join(before.splitlines(keepends=True)[:2])
    run.append_step(record(3, 0.25))
    assert run.read_steps() == [record(1), record(2), record(3, 0.25)]


def test_a_torn_last_line_is_left_out_and_rewound_away(run: RunFolder) -> None:
    run.append_step(record(1))
    with run.steps.open("a") as log:
        log.write('{"step": 2, "los')
    assert run.read_steps() == [record(1)]
    run.rewind_log(5)
    run.append_step(record(2))
    assert run.read_steps() == [record(1), record(2)]


def test_events_stand_between_steps_and_are_rewound_with_them(run: RunFolder) -> None:
    events = [{"event": "other", "step": 1}, {"event": "other", "step": 2}]
    changes = [{"event": "settings", "step": step, "changed": {"seed": step}} for step in (1, 1, 2)]
    for line in (record(1), events[0], changes[0], changes[1], record(2), events[1], changes[2], record(3)):
        run.append_step(line)
    assert run.read_steps() == [record(1), record(2), record(3)]
    assert read_events(run) == [events[0], changes[0], changes[1], events[1], changes[2]]
    # The checkpoint of step 2 was saved before the last change.
    run.rewind_log(2, num_changes=2)
    assert run.read_steps() == [record(1), record(2)]
    assert read_events(run) == [events[0], changes[0], changes[1], events[1]]
    run.rewind_log(1, num_changes=0)
    assert read_events(run) == [events[0]]


@pytest.mark.parametrize("text", [r'"half a letter \ud800"', '"é"', "1e400", "NaN", "[" * 50 + "]" * 50])
def test_lines_that_are_kept_stay_as_they_are(run: RunFolder, text: str) -> None:
    lines = [f'{{"step": 1,  "event": "mine", "x": {text}}}\n', '{"step": 2}\n', '{"step": 3}\n']
    run.steps.write_text("".join(lines), encoding="utf-8")
    run.rewind_log(2)
    assert run.steps.read_text(encoding="utf-8") == "".join(lines[:2])


def test_a_run_that_logged_nothing_rewinds_to_an_empty_log(run: RunFolder) -> None:
    run.rewind_log(0)
    assert run.read_steps() == []


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"loss": 1}'])
def test_a_log_damaged_in_its_middle_is_refused(run: RunFolder, line: str) -> None:
    run.append_step(record(1))
    with run.steps.open("a") as log:
        log.write(line + "\n")
    run.append_step(record(2))
    with pytest.raises(UserError, match=r"steps\.jsonl is damaged"):
        run.rewind_log(1)


def test_a_disk_that_fills_up_within_a_line_leaves_the_whole_ones(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append_step(record(1))
    whole = run.steps.read_bytes()
    real_open = Path.open

    class FullDisk:
        """A log that takes five bytes and then has no room."""

        def __init__(self, log: Any) -> None:
            self.log, self.room = log, 5

        def __getattr__(self, name: str) -> Any:
            return getattr(self.log, name)

        def __enter__(self) -> FullDisk:
            return self

        def __exit__(self, *_: object) -> None:
            self.log.close()

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken, self.room = self.log.write(data[: self.room]), 0
            return taken

    monkeypatch.setattr(Path, "open", lambda *args, **kwargs: FullDisk(real_open(*args, **kwargs)))
    with pytest.raises(UserError, match=r"no space left on the disk while writing .*steps\.jsonl"):
        run.append_step(record(2))
    monkeypatch.undo()
    assert run.steps.read_bytes() == whole


def test_the_summary_may_be_brought_up_to_date(run: RunFolder) -> None:
    run.write_summary({"steps": 10})
    run.write_summary({"steps": 20, "prompt": "ein Bär"})
    assert json.loads(run.summary.read_text()) == {"steps": 20, "prompt": "ein Bär"}


def test_the_files_lie_where_the_readme_says(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    paths = [run.config, run.steps, run.previews, run.checkpoints, run.splats, run.turntable, run.contact_sheet]
    assert [path.relative_to(tmp_path).as_posix() for path in [*paths, run.summary, run.preview(300)]] == [
        "config.yaml",
        "steps.jsonl",
        "previews",
        "checkpoints",
        "splats.ply",
        "turntable.mp4",
        "contact_sheet.png",
        "summary.json",
        "previews/step_000300.png",
    ]
