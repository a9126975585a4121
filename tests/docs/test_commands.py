"""Every ``sdi-gs`` command on the pages is one that the program accepts."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from page_commands import commands
from sources import ROOT

from sdi_gs.commands.parsing import parse_command
from sdi_gs.commands.table import COMMANDS
from sdi_gs.commands.train import Train, requested_run
from sdi_gs.errors import UserError

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def refusal(arguments: list[str]) -> str | None:
    """Return the error that the program would end with before it does anything; None if it would start."""
    try:
        options = parse_command(arguments, {name: command.options for name, command in COMMANDS.items()})
        if isinstance(options, Train) and options.resume is None:
            # A page may name a card that this machine lacks.
            requested_run(replace(options, device="cpu"))
    except UserError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_accepted(page: Path) -> None:
    refused = {shlex.join(words): refusal(words) for words in commands(page.read_text()) if not _is_help(words)}
    assert not any(refused.values()), "\n".join(f"{words}: {text}" for words, text in refused.items() if text)


def test_commands_are_found_where_they_stand() -> None:
    block = (
        ".venv/bin/sdi-gs doctor   # a remark\nCC=gcc sdi-gs doctor --build && sdi-gs priors\n"
        'pip install sdi-gs\nsdi-gs train --prompt "a b" \\\n    --steps 3\n'
    )
    page = f"```bash\n{block}```\n`sdi-gs eval` and `sdi-gs view RUN` and `sdi-gs view\nrun`\n"
    assert list(commands(page)) == [
        ["doctor"],
        ["doctor", "--build"],
        ["priors"],
        ["train", "--prompt", "a b", "--steps", "3"],
        ["view", "run"],
    ]


def test_a_wrong_option_and_a_wrong_value_are_refused() -> None:
    assert "--promt" in (refusal(["train", "--promt", "a"]) or "")
    assert refusal(["train", "--prompt", "a blue robot", "--guidance.t-min", "2"])
    assert refusal(["train", "--prompt", "a blue robot"]) is None


def _is_help(words: list[str]) -> bool:
    return not words or bool({"--help", "--help-all", "--version"} & set(words))
