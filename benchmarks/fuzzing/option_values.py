"""Options of every command with extreme and senseless values."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.mutations import EXTREME_FLOATS, EXTREME_INTEGERS
from fuzzing.targets import Case, Target
from sdi_gs.commands.eval import Eval
from sdi_gs.commands.export import Export
from sdi_gs.commands.render import Render
from sdi_gs.commands.view import View
from sdi_gs.settings.probe import ProbeOptions
from sdi_gs.settings.run import RunConfig

_WORDS = (
    *("", " ", "none", "None", "true", "nan", "inf", "-inf", "1e999", "9" * 5000, "0x10", "1_000", "--", "-1", ".."),
    *(
        "/",
        "\x1b[31m",
        "caf\udce9",
        "a" * 9000,
        "x" * 300,
        "/proc/none/a",
        "~nobody",
        "a\nb",
        "*",
        "%s",
        "{}",
        "\u202e",
    ),
)
_COMMANDS: dict[str, tuple[Sequence[str], type[Any]]] = {
    # A prompt without an object ends before anything is made, once all options have been read.
    "train": (("train", "--preset", "smoke", "--prompt", "nothing", "--device", "cpu"), RunConfig),
    "render": (("render", "nowhere.ply"), Render),
    "export": (("export", "nowhere.ply"), Export),
    "eval": (("eval", "nowhere.ply"), Eval),
    "view": (("view", "nowhere.ply"), View),
    "probe": (("probe", "--prompt", "nothing"), ProbeOptions),
}
"""A command that is refused whatever its options are, and the class of its options."""


def options_of(kind: type[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the annotation of every option, nested ones by dotted names."""
    annotated = typing.get_type_hints(kind, include_extras=True)
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            # Those of a group without a name stand among the others.
            nameless = any(getattr(part, "name", None) == "" for part in typing.get_args(annotated[name]))
            yield from options_of(typing.cast(type, hint), path if nameless else f"{path}{name}.")
        elif name not in ("source", "prompt"):
            yield f"--{path}{name}".replace("_", "-"), hint


def all_options(folder: Path) -> dict[str, list[tuple[str, Any]]]:
    """Return the options of every command."""
    return {name: list(options_of(kind)) for name, (_, kind) in _COMMANDS.items()}


def wrong_options(good: dict[str, list[tuple[str, Any]]], rng: np.random.Generator, folder: Path) -> Case:
    """Return a command line with one to three senseless values."""
    name = list(_COMMANDS)[rng.integers(len(_COMMANDS))] if rng.random() < 0.6 else "train"
    words, options = list(_COMMANDS[name][0]), []
    for _ in range(int(rng.integers(1, 4))):
        option, hint = good[name][rng.integers(len(good[name]))]
        options.append(option)
        words += [option, *(_value(rng) for _ in range(2 if typing.get_origin(hint) is tuple else 1))]
    if name == "train" and rng.random() < 0.1:
        words.append("--help")
    return Case(arguments=tuple(words), about=f"{name} {' '.join(options)}")


def _value(rng: np.random.Generator) -> str:
    numbers = (*EXTREME_FLOATS, *EXTREME_INTEGERS)
    return _WORDS[rng.integers(len(_WORDS))] if rng.random() < 0.4 else str(numbers[rng.integers(len(numbers))])


TARGET = Target(prepare=all_options, case=wrong_options, quick=60)
