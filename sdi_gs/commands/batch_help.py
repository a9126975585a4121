"""The help of ``sdi-gs batch``: its own options; those of the runs are those of ``sdi-gs train``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from sdi_gs.commands.batch import Batch
from sdi_gs.commands.given import given_type
from sdi_gs.commands.parsing import width_for_tyro
from sdi_gs.settings.run import RunConfig


def show_batch_help(arguments: Sequence[str]) -> None:
    """Print the options of a batch, and where those of its runs are listed."""
    settings = Annotated[given_type(RunConfig), tyro.conf.arg(name=""), tyro.conf.Suppress]
    shown = type("Batch", (Batch,), {"__annotations__": {"settings": settings}, "__doc__": Batch.__doc__})
    try:
        with width_for_tyro(is_help=True):
            tyro.cli(dataclass(frozen=True, kw_only=True)(shown), prog="sdi-gs batch", args=["--help"])
    finally:
        print("All settings of a run can be given as well, for all rows: sdi-gs train --help-all lists them.")
        print("sdi-gs batch status OUT prints how far a batch is.")
