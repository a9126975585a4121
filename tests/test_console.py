"""What strangers' files and options contain reaches the terminal escaped."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest

from sdi_gs.commands.main import main
from sdi_gs.console import print_lines, print_path, printable, say
from sdi_gs.evaluation.evaluate import Evaluation

CLEAR = "\x1b[2J\x1b[31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a blue robot", "a blue robot"),
        ("кот, 猫, café, \u06a9\u062a\u0627\u0628\u200c\u0647\u0627, 👩\u200d🚀", None),
        (CLEAR, r"\x1b[2J\x1b[31m"),
        ("a\rb\nc\td\x07\x7f\x9b", r"a\rb\nc\td\x07\x7f\x9b"),
        ("a\u2028b", r"a\u2028b"),
        ("gpj.\u202efdp", r"gpj.\u202efdp"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_control_characters_are_escaped_and_letters_are_not(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


def test_all_ways_to_print_escape(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    say(CLEAR)
    print_lines(CLEAR, "second")
    # A program that reads the names needs them as they are.
    print_path(Path(f"a{CLEAR}"))
    seen = capsys.readouterr()
    assert seen.err == "\\x1b[2J\\x1b[31m\n"
    assert seen.out == f"\\x1b[2J\\x1b[31m\nsecond\na{CLEAR}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_path(Path(f"a{CLEAR}"))
    assert capsys.readouterr().out == "a\\x1b[2J\\x1b[31m\n"


def test_a_table_of_scores_shows_the_prompt_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Evaluation(source=f"{CLEAR}.ply", prompt="a [red]blue[/red] robot", scores={}, rows=(), instrument=None).print()
    seen = capsys.readouterr().out
    assert "\x1b" not in seen
    assert "a [red]blue[/red] robot" in seen


@pytest.mark.parametrize(
    "arguments",
    [
        ["view", f"nowhere{CLEAR}"],
        ["train", "--prompt", f"a blue {CLEAR}"],
        ["train", "--prompt", "a blue robot", "--device", CLEAR],
        ["train", "--prompt", "a blue robot", f"--{CLEAR}"],
        ["train", "--prompt", "a blue robot", "--noise", CLEAR],
        ["train", "--prompt", "a blue robot", "--preset", CLEAR],
        [CLEAR],
        ["priors", "list", CLEAR],
        ["export", f"nowhere{CLEAR}.ply"],
        ["probe", "--prompt", CLEAR],
    ],
    ids=lambda value: str(value).replace("\x1b", ""),
)
def test_options_are_refused_without_a_control_character(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    seen = capsys.readouterr()
    assert "\x1b" not in seen.err + seen.out
    assert r"\x1b[" in seen.err


def test_files_of_strangers_are_refused_without_a_control_character(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty {CLEAR} x\nend_header\n"
    (tmp_path / "a.ply").write_text(header)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"{json.dumps(CLEAR)}: 1\n")
    model = tmp_path / "model"
    for component in ("tokenizer", "text_encoder", "unet", "vae", "scheduler"):
        (model / component).mkdir(parents=True)
        (model / component / "model.safetensors").touch()
        (model / component / ("vocab.json" if component == "tokenizer" else "config.json")).write_text("{}")
    (model / "scheduler/scheduler_config.json").write_text(json.dumps({"prediction_type": CLEAR}))
    for arguments in (["export", "a.ply"], ["train", "--resume", "run"], ["priors", "list", "model"]):
        main([*arguments[:-1], str(tmp_path / arguments[-1])])
        seen = capsys.readouterr()
        assert "\x1b" not in seen.err + seen.out
        assert seen.err + seen.out


def test_warnings_of_libraries_are_one_line_and_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(_: object) -> int:
        warnings.simplefilter("always")
        warnings.warn(f"mine {CLEAR}", UserWarning, stacklevel=1)
        warnings.warn(f"theirs {CLEAR}", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("sdi_gs.commands.main._run", warn)
    assert main([]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == r"sdi-gs: warning: mine \x1b[2J\x1b[31m"
    assert lines[1].endswith(r"RuntimeWarning: theirs \x1b[2J\x1b[31m")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
