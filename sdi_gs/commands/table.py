"""The commands of ``sdi-gs``, one row each; a new command is a module and a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sdi_gs.commands.batch import Batch, batch
from sdi_gs.commands.batch_help import show_batch_help
from sdi_gs.commands.batch_status import BatchStatus, batch_status
from sdi_gs.commands.doctor import Doctor, doctor
from sdi_gs.commands.eval import Eval, evaluate_scene
from sdi_gs.commands.export import Export, export_file
from sdi_gs.commands.priors import Priors, priors
from sdi_gs.commands.probe import probe
from sdi_gs.commands.render import Render, render
from sdi_gs.commands.study import Study, study
from sdi_gs.commands.train import Train, train
from sdi_gs.commands.train_help import show_help
from sdi_gs.commands.view import View, view
from sdi_gs.settings.probe import ProbeOptions


@dataclass(frozen=True)
class Command:
    """One row."""

    options: type[Any]
    """The dataclass that the command line is read into; its docstrings are the help."""
    run: Callable[[Any], int]
    """Does the work and returns the exit code; imports torch only when called."""
    show_help: Callable[[Sequence[str]], None] | None = None
    """Prints the help for the command's arguments; None for tyro's page."""


COMMANDS: dict[str, Command] = {
    "train": Command(Train, train, show_help),
    "batch": Command(Batch, batch, show_batch_help),
    "batch-status": Command(BatchStatus, batch_status),
    "study": Command(Study, study),
    "render": Command(Render, render),
    "view": Command(View, view),
    "export": Command(Export, export_file),
    "eval": Command(Eval, evaluate_scene),
    "doctor": Command(Doctor, doctor),
    "priors": Command(Priors, priors),
    "probe": Command(ProbeOptions, probe),
}


def command_of(options: Any) -> Command:
    """Return the command that the parsed options belong to."""
    return next(command for command in COMMANDS.values() if isinstance(options, command.options))
