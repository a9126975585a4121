"""Damaged and edited config files of runs: keys, values, tags, nesting, bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from fuzzing.mutations import EXTREME_FLOATS, EXTREME_INTEGERS, damaged_bytes, damaged_lines
from fuzzing.targets import Case, Target
from sdi_gs.configs.presets import preset_named
from sdi_gs.settings.tree import config_to_dict

_VALUES = (
    *("2024-01-01", "2024-13-45", "!!python/name:os.system", "!!bool x", "!!set {a}", "0x" + "f" * 2000, "9" * 5000),
    *("[" * 200, "[[[1]]]", "{a: {b: 1}}", "&a [*a]", "*nowhere", "~", ".nan", ".inf", "true", "'1'", '"\\ud800"'),
    *("1:30:00", "1_000", "=", "<<", "? x", "- 1", "|", ">", "%", "@", "`", '"\\e[31m"', "'" * 30, "é" * 100),
)


def good_file(folder: Path) -> bytes:
    """Return the config of a run as it is written."""
    return yaml.safe_dump(config_to_dict(preset_named("smoke").config), sort_keys=False).encode()


def damaged_file(good: bytes, rng: np.random.Generator, folder: Path) -> Case:
    """Write a run's folder with a damaged config; the help shows its settings as defaults."""
    data, about = good, []
    for _ in range(1 if rng.random() < 0.7 else int(rng.integers(2, 4))):
        how = ("value", "value", "lines", "bytes", "key")[rng.integers(5)]
        about.append(how)
        if how == "lines":
            data = damaged_lines(data, rng)
        elif how == "bytes":
            data = damaged_bytes(data, rng)
        else:
            data = _edited(data, rng, how)
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_bytes(data)
    return Case(arguments=("train", "--resume", "run", "--help"), about=", ".join(about))


def _edited(data: bytes, rng: np.random.Generator, how: str) -> bytes:
    """Return the file with another key or another value in one line."""
    lines = data.split(b"\n")
    index = int(rng.integers(len(lines)))
    key, colon, value = lines[index].partition(b":")
    numbers = (*EXTREME_FLOATS, *EXTREME_INTEGERS)
    numbers = (1, 2, 0.5, 1.0) if rng.random() < 0.5 else numbers
    new = _VALUES[rng.integers(len(_VALUES))] if rng.random() < 0.6 else repr(numbers[rng.integers(len(numbers))])
    indent = key[: len(key) - len(key.lstrip())]
    lines[index] = indent + new.encode() + colon + value if how == "key" else key + b": " + new.encode()
    return b"\n".join(lines)


TARGET = Target(prepare=good_file, case=damaged_file, quick=60)
