"""The way on from a run that stopped: what is saved, and the command that continues it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sdi_gs.devices import is_out_of_memory
from sdi_gs.errors import DiskFullError, NonFiniteError, UserError
from sdi_gs.runs.checkpoint import list_checkpoints
from sdi_gs.runs.checkpoint_folders import name_of, step_of
from sdi_gs.runs.folder import RunFolder, resume_command
from sdi_gs.settings.bounds import range_of
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer


def way_on(folder: RunFolder) -> str:
    """Return what is saved of a run, and the command that goes on from there."""
    steps = saved_steps(folder)
    if not steps:
        return "no step had been saved"
    return f"{name_of(steps[-1])} is saved; go on with: {resume_command(folder.path)}"


def way_past_step(trainer: Trainer, folder: RunFolder, *, at_once: bool) -> str:
    """Return the ways on from a step that was not finite; ``at_once`` if no step came before it in this process."""
    resume, scale = resume_command(folder.path), trainer.config.learning_rate_scale
    smaller = 1.0 if scale > 1.0 else max(scale / 4.0, range_of(RunConfig, "learning_rate_scale").low)
    rate, earlier = f"--learning-rate-scale {smaller:g}", saved_steps(folder)[-2::-1]
    at = f"--at {earlier[0]}" + (f" (or {', '.join(map(str, earlier[1:]))})" if earlier[1:] else "") if earlier else ""
    if not at_once:
        text = f"go on with smaller steps, {resume} {rate}"
        return f"{text}, or from an earlier checkpoint by adding {at}" if at else text
    if at:
        return f"go on from an earlier checkpoint, {resume} {rate} {at}"
    return f"try {resume} {rate}; if that fails at the same step, start a new run with it"


def saved_steps(folder: RunFolder) -> list[int]:
    """Return the steps of a run's checkpoints, earliest first."""
    return [step_of(path) or 0 for path in list_checkpoints(folder.checkpoints)]


@contextmanager
def errors_with_a_way_on(folder: RunFolder) -> Iterator[None]:
    """Add the way on to every UserError of a run that does not name it; raise UserError where memory runs out."""
    try:
        yield
    except DiskFullError as error:
        raise UserError(f"{error.problem}: free some space; {way_on(folder)}") from error
    except UserError as error:
        if "--resume" in str(error):
            raise
        kind = NonFiniteError if isinstance(error, NonFiniteError) else UserError
        raise kind(f"{error}; {way_on(folder)}") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of memory: close other programs; {way_on(folder)}") from error
