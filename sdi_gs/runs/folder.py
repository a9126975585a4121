"""The folder of a run: the paths of its files, and how they are written whole.

``outputs/<slug>-<n>/`` holds ``config.yaml``, ``steps.jsonl`` (one line per step), ``previews/``, ``checkpoints/``
and, at the end, ``splats.ply``, ``turntable.mp4``, ``contact_sheet.png`` and ``summary.json``.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, is_there, make_new_folder, make_numbered_folder, write_atomically
from sdi_gs.files.yaml_tables import read_yaml_table
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_from_dict

SETTINGS_EVENT = "settings"
"""Event of the log: settings changed while the run trained."""

SLUG_LENGTH = 40
"""Longest part of a folder's name that comes from the prompt."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, and its text files."""

    path: Path

    @property
    def config(self) -> Path:
        """Settings of the run; a folder with this file is a run."""
        return self.path / "config.yaml"

    @property
    def steps(self) -> Path:
        """Log: one JSON object per finished step, and one per event between them, with the key "event"."""
        return self.path / "steps.jsonl"

    @property
    def previews(self) -> Path:
        """Pictures saved while the run trains."""
        return self.path / "previews"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints (``sdi_gs.runs.checkpoint``)."""
        return self.path / "checkpoints"

    @property
    def splats(self) -> Path:
        """The object as splats."""
        return self.path / "splats.ply"

    @property
    def turntable(self) -> Path:
        """A film of the object turning."""
        return self.path / "turntable.mp4"

    @property
    def contact_sheet(self) -> Path:
        """The object from all sides in one picture."""
        return self.path / "contact_sheet.png"

    @property
    def summary(self) -> Path:
        """Times, counts, versions, seed and settings."""
        return self.path / "summary.json"

    def preview(self, step: int) -> Path:
        """Return the path of the picture saved after ``step`` steps."""
        return self.previews / f"step_{step:06d}.png"

    def saved_previews(self) -> dict[int, Path]:
        """Return the pictures saved while the run trained, by step."""
        steps = {path: path.stem.removeprefix("step_") for path in sorted(self.previews.glob("step_*.png"))}
        return {int(step): path for path, step in steps.items() if step.isdecimal()}

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the settings as YAML, in their own order; UserError if the file exists."""
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_atomically(self.config, text.encode())

    def read_config(self) -> dict[str, Any]:
        """Return the settings as they were written; UserError if the file is missing or no YAML mapping."""
        return read_yaml_table(self.config)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary as JSON, replacing an earlier one; non-finite numbers become null."""
        text = json.dumps(_finite(summary), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(self.summary, f"{text}\n".encode(), overwrite=True)

    def append_step(self, record: Mapping[str, Any]) -> None:
        """Append a step, or an event after it, to the log; non-finite numbers become null.

        Raises UserError if the disk is full; the log then ends with its last whole line.
        """
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with disk_errors(self.steps), self.steps.open("ab", buffering=0) as log:
            end = log.tell()
            try:
                # Without a buffer the system may take less than it was given.
                written = log.write(line)
                while written < len(line):
                    written += log.write(line[written:])
            except OSError:
                log.truncate(end)
                raise

    def read_steps(self) -> list[dict[str, Any]]:
        """Return the log's steps, without a last line that a crash cut short; UserError for other damage."""
        return [record for _, record in self._read_log() if "event" not in record]

    def _read_log(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Return the whole lines, as they are and as what they hold."""
        if not self.steps.exists():
            return []
        with disk_errors(self.steps, "read"):
            lines = self.steps.read_bytes().split(b"\n")
        # What follows the last line feed is empty or torn.
        whole = lines[:-1]
        try:
            records = [json.loads(line) for line in whole]
            if not all(isinstance(record["step"], int) for record in records):
                raise TypeError("a step is a whole number")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"{self.steps} is damaged (not a JSON object with a step per line): move it away"
            ) from error
        return list(zip(whole, records, strict=True))

    def rewind_log(self, step: int, *, num_changes: int = 0) -> None:
        """Remove from the log what came after the checkpoint of ``step``, from which a resumed run continues.

        Of the changes of settings the first ``num_changes`` are kept: one that was logged after ``step`` may have come
        before or after the checkpoint.
        """
        changes_left, kept = num_changes, []
        for line, record in self._read_log():
            if record.get("event") == SETTINGS_EVENT:
                changes_left -= 1
                keep = changes_left >= 0
            else:
                keep = record["step"] <= step
            if keep:
                kept.append(line + b"\n")
        write_atomically(self.steps, *kept, overwrite=True)


def create_run_folder(output_dir: Path, prompt: str) -> RunFolder:
    """Make ``<output_dir>/<slug>-<n>/`` with the lowest free n from 1 on.

    Raises UserError if it cannot be made.
    """
    path = make_numbered_folder(output_dir / slug(prompt))
    with disk_errors(path):
        return _with_subfolders(path)


def create_run_folder_at(path: Path) -> RunFolder:
    """Make a run folder at ``path``; UserError if it exists, unless as an empty folder."""
    make_new_folder(path)
    with disk_errors(path):
        return _with_subfolders(path)


def open_run_folder(path: Path) -> RunFolder:
    """Return the run folder at ``path``; UserError if it is not one."""
    if not is_there(path) or not path.is_dir():
        raise UserError(f"{path} is not a run: there is no such folder; give one like outputs/a-blue-robot-1")
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise UserError(f"{path} is not a run: it has no config.yaml; give one like outputs/a-blue-robot-1")
    return folder


def load_run_config(path: Path) -> RunConfig:
    """Return the settings that a run was started with; UserError if ``path`` is no run."""
    return config_from_dict(open_run_folder(path).read_config())


def resume_command(path: Path) -> str:
    """Return the command that continues the stopped run in ``path``."""
    return f"sdi-gs train --resume {shlex.quote(str(path))}"


def slug(prompt: str) -> str:
    """Return the prompt as part of a file name: 1 to 40 ASCII letters, digits and single hyphens."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) > SLUG_LENGTH:
        cut = words[: SLUG_LENGTH + 1]
        # Whole words where the first one fits, else as many letters as do.
        words = cut.rpartition("-")[0] or cut[:SLUG_LENGTH]
    return words or "run"


def _with_subfolders(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.previews.mkdir()
    folder.checkpoints.mkdir()
    return folder


def _finite(value: Any) -> Any:
    """Return a copy with NaN and infinity replaced by None; JSON has neither."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
