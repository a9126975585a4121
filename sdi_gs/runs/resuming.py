"""Changes to a run that goes on: which options of a resumed run may differ from what it was started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.runs.checkpoint import Checkpoint
from sdi_gs.runs.finish import read_summary
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.request import RunRequest
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.steering import CHANGEABLE, TUNABLE
from sdi_gs.settings.tree import config_to_dict, differing_keys, flatten


def asked_settings(request: RunRequest, saved: RunConfig) -> RunConfig:
    """Return the settings that a request to resume asks for; the prompt may be left out."""
    asked = request.settings(saved)
    return asked if asked.prompt else replace(asked, prompt=saved.prompt)


def asked_changes(request: RunRequest, saved: RunConfig, path: Path) -> dict[str, Any]:
    """Return what a request to resume changes, by dotted name, whatever was in force when the run stopped.

    These are the given settings that may change while a run trains, and what a preset sets of memory and speed.
    Raises UserError for any other difference from the settings that the run was started with.
    """
    asked = asked_settings(request, saved)
    before, now = (flatten(config_to_dict(config)) for config in (saved, asked))
    differing = differing_keys(saved, asked)
    for key in differing:
        if key not in TUNABLE and not (key in CHANGEABLE and key in request.given):
            raise UserError(_other_config(path, key, before[key], now[key], saved))
    given = [key for key in request.given if key in CHANGEABLE]
    return {key: now[key] for key in dict.fromkeys([*given, *differing])}


def require_steps_left(folder: RunFolder, checkpoint: Checkpoint, wanted: RunConfig, *, branches_off: bool) -> None:
    """Raise UserError if a run that goes on from a checkpoint under these settings has nothing to do.

    One that has taken its last step, but has not written its summary, still has its exports to do.
    """
    total, summary = wanted.total_steps, None if branches_off else read_summary(folder)
    finished = summary is not None and summary.get("step") == total
    if finished or checkpoint.step > total or (branches_off and checkpoint.step == total):
        done = total if finished else checkpoint.step
        more = f"there is nothing to resume: for 100 more steps give --extend {done + 100 - wanted.steps}"
        if done > total:
            raise UserError(f"{folder.path} has taken {done} steps, and {total} are asked for; {more}")
        raise UserError(f"{folder.path} is finished ({done} of {total} steps); {more}")


def change_lines(step: int, changed: Mapping[str, list[Any]], config: RunConfig) -> list[str]:
    """Return a line for each setting that changed when a run was resumed after ``step``."""
    lines = [
        f"from step {step + 1} on: {key} {after!r} instead of {before!r}"
        for key, (before, after) in changed.items()
        if key != "extend"
    ]
    if "extend" in changed:
        lines.append(
            f"{config.total_steps} steps in all: timestep and learning rates stay as in step {config.steps}, and "
            "nothing grows any more"
        )
    return lines


def _other_config(path: Path, key: str, before: Any, now: Any, saved: RunConfig) -> str:
    text = f"{path} is a run of another config: its {key} is {before!r}, not {now!r}; "
    if key == "steps" and now > before:
        return f"{text}for more steps of the same run leave --steps out and give --extend {now - saved.steps}"
    return f"{text}leave that option (or --preset) out to resume it, or start a new run"
