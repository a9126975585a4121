"""Lists of prompts: a text file, a table (CSV or JSON lines), or a prompt library in threestudio's JSON form.

The reader keeps the numbers of lines, so that whoever checks the rows further can name them; a bad row never hides the
others.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file
from sdi_gs.files.json_members import members_of
from sdi_gs.settings.bounds import LONGEST_TEXT, SEED
from sdi_gs.settings.from_text import setting_from_text, setting_types, similar_setting
from sdi_gs.settings.shown import shown

LARGEST_FILE = 2**26
"""Bytes of a list: some hundred thousand prompts."""
LONGEST_NAME = 200
"""Characters of a row's own name."""

_DELIMITERS = ",;\t"
"""Between the columns of a table: what spreadsheets write in different countries."""
_OWN_COLUMNS = ("prompt", "seed", "name")


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """One prompt of a list, with what its row says besides."""

    prompt: str
    """The sentence."""
    line: int
    """Line of the file, from 1 on, at which it begins."""
    seed: int | None = None
    """Its own seed; None where the row has none."""
    name: str | None = None
    """Its own name; None where the row has none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings by dotted name; their bounds are not checked."""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be used."""

    line: int
    """Line of the file, from 1 on."""
    reason: str
    """What is wrong, in one line."""


@dataclass(frozen=True, kw_only=True)
class PromptList:
    """What a file holds, in its order."""

    rows: tuple[PromptRow, ...]
    """The rows that can be read."""
    bad: tuple[BadRow, ...] = ()
    """The others."""


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """A row before it is checked: its line, and its values by column or what is wrong with it as a whole."""

    line: int
    values: Mapping[str, Any] | UserError


def read_prompts(path: Path, key: str | None = None) -> list[PromptRow]:
    """Return the prompts of a file; UserError as ``read_prompt_list``, and for the first row that is bad."""
    found = read_prompt_list(path, key)
    if found.bad:
        raise UserError(f"{path}, line {found.bad[0].line}: {found.bad[0].reason}")
    return list(found.rows)


def read_prompt_list(path: Path, key: str | None = None) -> PromptList:
    """Read a list of prompts; the ending chooses the form: .csv and .tsv, .jsonl, .json, and text for any other.

    ``key`` chooses one of a library's lists. Raises UserError for a file that is missing, empty, too large or not
    UTF-8, for a table without the column "prompt" or with an unknown one, and for an unknown key.
    """
    text = _text_of(path)
    form = path.suffix.lower()
    if key is not None and form != ".json":
        raise UserError(f"--key {key} chooses a list of a prompt library, and {path} is none (.json): leave it out")
    match form:
        case ".csv" | ".tsv":
            found = _checked(_table(path, text), from_text=True)
        case ".jsonl" | ".ndjson":
            found = _checked(_json_lines(text), from_text=False)
        case ".json":
            found = _checked(_library(path, text, key), from_text=False)
        case _:
            found = _checked(_lines(text), from_text=True)
    if not found.rows and not found.bad:
        raise UserError(f"{path} holds no prompts: write one per line, or give another file")
    return found


def _text_of(path: Path) -> str:
    """Return a file's text without a byte order mark."""
    require_file(path)
    with disk_errors(path, "read"), path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise UserError(f"{path} has more than {LARGEST_FILE // 2**20} MiB, which no list of prompts has")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 (line {line}, byte 0x{data[error.start]:02x}): save it as UTF-8"
        ) from error


def _lines(text: str) -> Iterator[_Raw]:
    """Yield the lines of a text that hold more than a comment."""
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        prompt = line.strip()
        if prompt and not prompt.startswith("#"):
            yield _Raw(line=number, values={"prompt": prompt})


def _table(path: Path, text: str) -> Iterator[_Raw]:
    """Yield the rows of a table whose first line names the columns; empty cells count as absent."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    if not header:
        return
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip() for cell in cells]
                _require_columns(path, line, columns)
            elif len(cells) > len(columns):
                problem = f"it has {len(cells)} cells and the table {len(columns)} columns: quote a text with a comma"
                yield _Raw(line=line, values=UserError(problem))
            else:
                pairs = zip(columns, cells, strict=False)
                yield _Raw(line=line, values={column: cell for column, cell in pairs if cell.strip()})
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: not CSV ({error}): check its quotation marks") from error


def _require_columns(path: Path, line: int, columns: list[str]) -> None:
    """Raise UserError unless a table's columns are known, each once, with the prompt among them."""
    where = f"{path}, line {line}"
    for column in columns:
        problem = _unknown_column(column)
        if problem is not None:
            raise UserError(f"{where}: {problem}")
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise UserError(f"{where}: the column {shown(twice[0])} stands there twice: keep one")
    if "prompt" not in columns:
        raise UserError(f'{where}: no column "prompt", only {shown(columns)}: name the columns in the first line')


def _unknown_column(column: str) -> str | None:
    """Return what is wrong with a column's name; None if it is known."""
    if column in _OWN_COLUMNS or column in setting_types():
        return None
    inside = [name for name in setting_types() if name.startswith(f"{column}.")]
    similar = inside[0] if inside else similar_setting(column, _OWN_COLUMNS)
    meant = f"; did you mean {similar}?" if similar else ""
    return f"unknown column {shown(column)}; accepted: prompt, seed, name and settings such as guidance.noise{meant}"


def _json_lines(text: str) -> Iterator[_Raw]:
    """Yield the objects of JSON lines."""
    # Not splitlines(): JSON's texts may hold the other breaks that it knows.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            yield _Raw(line=number, values=UserError(f"not JSON ({_reason(error)}{column}): write one object per line"))
            continue
        yield _Raw(line=number, values=_as_columns(value))


def _as_columns(value: Any) -> Mapping[str, Any] | UserError:
    """Return an object's values by column, null as absent."""
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        return UserError(f'{shown(value)} is no row: write {{"prompt": "a blue robot"}}')
    problems = (_unknown_column(name) for name in value)
    problem = next(filter(None, problems), None)
    return {name: item for name, item in value.items() if item is not None} if problem is None else UserError(problem)


def _library(path: Path, text: str, key: str | None) -> Iterator[_Raw]:
    """Yield the prompts of one of a library's lists."""
    try:
        whole = json.loads(text or "null")
        members = list(members_of(text)) if isinstance(whole, (dict, list)) else []
    except (ValueError, RecursionError) as error:
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{where}: not JSON ({_reason(error)}): mend it") from error
    if isinstance(whole, list):
        if key is not None:
            raise UserError(f"{path} is one list without keys: leave --key {key} out")
    else:
        lists = [member for member in members if isinstance(member.value, (list, dict))]
        if len(lists) != len(members) or not lists:
            raise UserError(
                f'{path} is no prompt library: its form is {{"key": ["a blue robot"]}} or {{"key": {{"name": '
                '"a blue robot"}}'
            )
        chosen = [member for member in lists if member.name == key] if key is not None else lists
        if len(chosen) != 1:
            known = f"its keys are {shown(', '.join(str(member.name) for member in lists))[1:-1]}"
            problem = (
                f"has {len(lists)} lists: choose one by its key (--key)" if key is None else f"has no key {shown(key)}"
            )
            raise UserError(f"{path} {problem}; {known}")
        members = list(members_of(text, chosen[0].start))
    for member in members:
        if not isinstance(member.value, (str, dict)):
            yield _Raw(line=member.line, values=UserError(f"{shown(member.value)} is no prompt: write a text"))
            continue
        values = _as_columns(member.value)
        if member.name is not None and not isinstance(values, UserError):
            values = {"name": member.name, **values}
        yield _Raw(line=member.line, values=values)


def _reason(error: Exception) -> str:
    """Return what is wrong with a JSON text, without the text."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else "a number is too long"


def _checked(found: Iterable[_Raw], *, from_text: bool) -> PromptList:
    """Sort rows into good and bad; with ``from_text`` their values are texts."""
    rows, bad = [], []
    for raw in found:
        try:
            if isinstance(raw.values, UserError):
                raise raw.values
            rows.append(_row(raw.line, raw.values, setting_from_text if from_text else _as_it_is))
        except UserError as error:
            bad.append(BadRow(line=raw.line, reason=str(error)))
    return PromptList(rows=tuple(rows), bad=tuple(bad))


def _as_it_is(name: str, value: Any) -> Any:
    return value


def _row(line: int, values: Mapping[str, Any], setting: Callable[[str, Any], Any]) -> PromptRow:
    """Return a row of values by column; UserError for a bad one."""
    seed = setting("seed", values["seed"]) if "seed" in values else None
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed not in SEED):
        raise UserError(f"seed is {shown(seed)}; accepted: a whole number from {SEED}")
    return PromptRow(
        prompt=_line_of_text("prompt", values.get("prompt", ""), LONGEST_TEXT),
        line=line,
        seed=seed,
        name=_line_of_text("name", values["name"], LONGEST_NAME) if "name" in values else None,
        settings={name: setting(name, value) for name, value in values.items() if name not in _OWN_COLUMNS},
    )


def _line_of_text(column: str, value: Any, longest: int) -> str:
    """Return a text without the blanks around it; UserError for anything but one line with letters in it."""
    if not isinstance(value, str):
        raise UserError(f"{column} is {shown(value)}; accepted: a text")
    text = value.strip()
    if not text:
        raise UserError(f"the {column} is empty")
    if len(text) > longest:
        raise UserError(f"the {column} has {len(text)} characters; accepted: at most {longest}")
    if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise UserError(f"the {column} {shown(text)} has a line break or another control character: leave it out")
    return text
