"""The kinds of inputs that are tried: one row and one module each.

A new kind is a module here that defines ``TARGET``, and a row in ``TARGETS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input, and the command that gets it."""

    arguments: Sequence[str]
    """The command line behind ``sdi-gs``; it runs in the folder that the input was written to."""
    about: str
    """What was done to the input, in a few words."""
    may_change: Sequence[str] = ()
    """Names of files of the input that the command writes anew when all goes well."""
    may_grow: Sequence[str] = ()
    """Names of files of the input that the command may write on at their end, however it goes."""


class Prepare(Protocol):
    """Makes good inputs to damage; may write to ``folder``, which is kept, and take from there what it made before."""

    def __call__(self, folder: Path, /) -> Any: ...


class MakeCase(Protocol):
    """Writes one input into ``folder``, which is empty; the same generator gives the same input."""

    def __call__(self, good: Any, rng: np.random.Generator, folder: Path, /) -> Case: ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of inputs."""

    prepare: Prepare
    case: MakeCase
    quick: int
    """Inputs of the test in CI: some seconds."""


TARGETS: dict[str, str] = {
    "ply": "fuzzing.ply_files",
    "splat": "fuzzing.splat_files",
    "splat format": "fuzzing.splat_formats",
    "mesh": "fuzzing.mesh_files",
    "checkpoint": "fuzzing.checkpoints",
    "model folder": "fuzzing.model_folders",
    "LoRA or word": "fuzzing.add_ons",
    "config": "fuzzing.config_files",
    "options": "fuzzing.option_values",
}
"""Name of each kind, and the module that defines its ``TARGET``."""


def target_named(name: str) -> Target:
    """Import a kind's functions."""
    return import_module(TARGETS[name]).TARGET
