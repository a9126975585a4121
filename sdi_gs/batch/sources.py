"""From a list of prompts to the rows of a batch, all checked before the first one is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdi_gs.batch.rows import Row, new_row
from sdi_gs.errors import UserError
from sdi_gs.files.prompt_lists import BadRow, PromptList, PromptRow
from sdi_gs.settings.run import RunConfig

SettingsOf = Callable[[Mapping[str, Any]], RunConfig]
"""From settings by dotted name, a row's own among them, to those of a run; raises UserError for what is not valid."""
Check = Callable[[RunConfig], None]
"""Raises UserError for settings that no run can begin with."""


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """A row that an earlier one makes already."""

    line: int
    """Its line of the source."""
    first_line: int
    """That of the earlier one."""
    prompt: str
    """The prompt of both."""
    seed: int
    """The seed of both."""

    def __str__(self) -> str:
        """Describe it in one line."""
        return f'line {self.line} is line {self.first_line} again ("{self.prompt}", seed {self.seed}): made once'


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A list of prompts as rows to make."""

    rows: tuple[Row, ...]
    """The rows, in the order of the list; of a prompt with several seeds in their order."""
    configs: tuple[RunConfig, ...]
    """Their settings."""
    bad: tuple[BadRow, ...]
    """Rows that cannot be made, in the order of the list."""
    repeats: tuple[Repeat, ...]
    """Rows that are left out because an earlier one is the same."""


def plan_rows(listed: PromptList, *, settings_of: SettingsOf, seeds: Sequence[int] | None, check: Check) -> Planned:
    """Return the rows to make; each prompt once for each of ``seeds``, unless its row has a seed of its own.

    ``seeds`` is None for the seed that the settings have. ``check`` is called once for every set of settings and
    prompt. Rows with the same settings, however they are written, are made once.
    """
    known: dict[str, RunConfig | UserError] = {}
    first_lines: dict[RunConfig, int] = {}
    rows: list[Row] = []
    bad, repeats = list(listed.bad), []
    for listed_row in listed.rows:
        try:
            config = _settings_of(listed_row, settings_of, known)
            check(config)
        except UserError as error:
            bad.append(BadRow(line=listed_row.line, reason=str(error)))
            continue
        for seed in _seeds_of(listed_row, seeds, config):
            whole = replace(config, seed=seed)
            first = first_lines.setdefault(whole, listed_row.line)
            # The dictionary grows by one for every row that is new.
            if len(first_lines) == len(rows):
                repeats.append(Repeat(line=listed_row.line, first_line=first, prompt=config.prompt, seed=seed))
                continue
            rows.append(_row(len(rows), listed_row, seed))
    return Planned(
        rows=tuple(rows),
        configs=tuple(first_lines),
        bad=tuple(sorted(bad, key=lambda row: row.line)),
        repeats=tuple(repeats),
    )


def refuse_bad_rows(planned: Planned, source: Path, *, say: Callable[[str], None], skip: bool) -> None:
    """Print every bad row, and raise UserError for them unless they are to be skipped or none is left.

    Rows with the same reason share a line.
    """
    lines: dict[str, list[int]] = {}
    for bad in planned.bad:
        lines.setdefault(bad.reason, []).append(bad.line)
    for reason, numbers in lines.items():
        say(f"{source}, {numbered(numbers)}: {reason}")
    count, good = len(planned.bad), len(planned.rows)
    if not count:
        return
    what = f"{source}: {count} bad row{'s' * (count > 1)}, listed above"
    if not good:
        raise UserError(f"{what}, and no other: nothing to make")
    if not skip:
        raise UserError(f"{what}; nothing is started: mend the list, or add --skip-bad to make the other {good}")
    say(f"{what}; going on with the other {good}")


def numbered(lines: Sequence[int]) -> str:
    """Return ascending numbers of lines in words: line 3; lines 3, 5 to 7."""
    spans: list[list[int]] = []
    for line in lines:
        if spans and line == spans[-1][1] + 1:
            spans[-1][1] = line
        else:
            spans.append([line, line])
    parts = [f"{first}" if first == last else f"{first} to {last}" for first, last in spans]
    return f"line{'s' * (len(lines) > 1)} {', '.join(parts)}"


def _settings_of(row: PromptRow, settings_of: SettingsOf, known: dict[str, RunConfig | UserError]) -> RunConfig:
    """Return a row's settings with its prompt; ``known`` keeps those of rows with the same settings.

    Validating all settings takes some milliseconds, a prompt alone a fraction of one.
    """
    written = json.dumps(row.settings, sort_keys=True, default=str)
    found = known.get(written)
    if found is None:
        try:
            found = settings_of(row.settings)
        except UserError as error:
            found = error
        known[written] = found
    if isinstance(found, UserError):
        raise found
    return replace(found, prompt=row.prompt)


def _seeds_of(row: PromptRow, seeds: Sequence[int] | None, config: RunConfig) -> tuple[int, ...]:
    if row.seed is not None:
        return (row.seed,)
    # A seed that is given twice is one.
    return (config.seed,) if seeds is None else tuple(dict.fromkeys(seeds))


def _row(index: int, listed: PromptRow, seed: int) -> Row:
    return new_row(
        index=index,
        line=listed.line,
        prompt=listed.prompt,
        seed=seed,
        name=listed.name or "",
        settings=listed.settings,
    )
