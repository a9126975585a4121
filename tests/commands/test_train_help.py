"""The help of `sdi-gs train`: one screen, everything on demand, and a list of flags that only changes on purpose."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command_line import refusal

from sdi_gs.commands.main import main
from sdi_gs.commands.parsing import parse_command
from sdi_gs.commands.train import Train
from sdi_gs.commands.train_help import EVERYDAY, short_help
from sdi_gs.configs.presets import preset_named, presets
from sdi_gs.settings.tree import config_to_dict, flatten

FLAGS = Path(__file__).with_name("train_flags.txt")
ROWS = [row for rows in EVERYDAY.values() for row in rows]
VALUES = {"--steps": "7", "--tier": "12", "--representation": "ngp", "--noise": "cached"}


@pytest.fixture
def all_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The page of all options, one option to a line."""
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["train", "--help-all", "--preset", "smoke"]) == 0
    # The frame is drawn with spaces where the output is not UTF-8.
    return [line.strip("│ ") for line in capsys.readouterr().out.splitlines() if re.match("[│ ] --?[a-z]", line)]


def flags_of(line: str) -> list[str]:
    """The flags of an option's line, of which the last is followed by the values."""
    return re.findall(r"(?:^|, )(--[\w.-]+)", line)


def test_the_flags_are_those_on_record(all_lines: list[str]) -> None:
    found = sorted(flag for line in all_lines for flag in flags_of(line) if flag != "--help")
    assert found == FLAGS.read_text().splitlines(), (
        "the flags of `sdi-gs train` are what people's scripts depend on. If the change is meant, update the list "
        "and name the flags in CHANGELOG.md: COLUMNS=120 sdi-gs train --help-all | grep '^│ --' | grep -o -- "
        f"'--[a-z0-9._-]*' | sort > {FLAGS}"
    )


@pytest.mark.parametrize("preset", list(presets()))
def test_the_short_help_fits_on_a_screen(preset: str) -> None:
    lines = short_help(preset_named(preset).config)
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("  --") for line in lines) == len(ROWS) >= 20


def test_the_short_help_counts_the_options_that_it_leaves_out(all_lines: list[str]) -> None:
    *_, last = short_help(preset_named("smoke").config)
    num_options = sum(1 for line in all_lines if flags_of(line) and not line.startswith("-h"))
    assert last == f"sdi-gs train --help-all shows the other {num_options - len(ROWS)} options."


@pytest.mark.parametrize(("option", "key"), [row[:2] for row in ROWS], ids=[row[1] for row in ROWS])
def test_every_option_of_the_short_help_sets_what_it_names(option: str, key: str) -> None:
    flag, _, metavar = option.partition(" ")
    words = [flag, VALUES.get(flag, "3")] if metavar else [flag]
    options = parse_command(["train", *words], {"train": Train, "other": object})
    given = flatten(dict(options.settings))
    unlike_default = [name for name in vars(options) if getattr(options, name) != getattr(Train, name, None)]
    assert [*given, *(name for name in unlike_default if name not in ("settings", "stages"))] == [key]


@pytest.mark.parametrize(
    ("words", "steps", "scale"),
    [
        ((), 1000, "1.0"),
        (("--preset", "smoke"), 20, "1.0"),
        (("--preset=sd21-base",), 5000, "7.5"),
        (("--prior", "toybox"), 550, "1.5"),
        (("--prior", "toybox", "--stepz", "--steps", "many"), 550, "1.5"),
    ],
    ids=["nothing", "preset", "equals sign", "prior", "wrong options"],
)
@pytest.mark.parametrize("page", ["--help", "--help-all"])
def test_the_defaults_shown_are_those_of_the_preset(
    words: tuple[str, ...], steps: int, scale: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words, page]) == 0
    said = " ".join(re.sub("[│╭╰─]", " ", capsys.readouterr().out).split())
    assert re.search(rf"--steps INT [^(]*\(default: {steps}\)", said)
    assert re.search(rf"--guidance.guidance-scale FLOAT .*?\(default: {scale}\)", said)


def test_help_for_a_run_to_resume_shows_its_settings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run), "--help"]) == 0
    said = capsys.readouterr().out
    assert "optimisation steps (default: 6)" in said
    assert "(default: a blue robot)" in " ".join(said.split()).replace("'", "")


@pytest.mark.parametrize("words", [("--preset", "nix"), ("--preset",)])
def test_help_for_a_preset_that_is_unknown_is_refused(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "preset" in refusal(["train", *words, "--help"], capsys)


@pytest.mark.parametrize("page", [["train", "--help"], ["train", "-h"], ["train", "--help-all"], ["--help"]])
def test_help_comes_without_torch(page: list[str]) -> None:
    code = (
        "import sys; from sdi_gs.commands.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'diffusers', 'transformers', 'numba', 'viser', 'gsplat'} & set(sys.modules);"
        "sys.exit(code or f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *page], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: sdi-gs")


@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_a_strangers_settings_are_shown_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    config = replace(preset_named("smoke").config, prompt="\x1b[31mred\x07", prior="\x9b2J", lora=("a\u202eb:1",))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    assert main(["train", "--resume", str(tmp_path), flag]) == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)
    assert r"\x1b[31mred\x07" in said
