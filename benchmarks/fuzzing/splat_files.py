"""Damaged .splat files, and archives that splats come in: .spz."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from fuzzing.mutations import damaged_bytes, extreme_values
from fuzzing.splat_commands import command_for
from fuzzing.targets import Case, Target

COUNT = 40
NAMES = ("a.splat", "a.splat", "a.SPLAT", "download", "a.ply", "a.glb")
_ROW = np.dtype([*((name, "<f4") for name in ("x", "y", "z", "sx", "sy", "sz")), ("rgba", "u1", 4), ("quat", "u1", 4)])


def good_rows(folder: Path) -> np.ndarray:
    """Return the rows of a good file."""
    rng = np.random.default_rng(0)
    rows = np.zeros(COUNT, dtype=_ROW)
    for name in ("x", "y", "z"):
        rows[name] = 0.4 * rng.normal(size=COUNT)
    for name in ("sx", "sy", "sz"):
        rows[name] = np.exp(rng.normal(-4.0, 0.5, COUNT))
    rows["rgba"] = rng.integers(0, 256, (COUNT, 4))
    quats = rng.normal(size=(COUNT, 4))
    rows["quat"] = np.clip(128 + 128 * quats / np.linalg.norm(quats, axis=1, keepdims=True), 0, 255)
    return rows


def damaged_file(good: np.ndarray, rng: np.random.Generator, folder: Path) -> Case:
    """Write a file with extreme values, damaged bytes or both; sometimes one of an .spz's bytes instead."""
    name, about = NAMES[rng.integers(len(NAMES))], ["splats"]
    rows = good.copy()
    if rng.random() < 0.7:
        about.append(extreme_values(rows, rng))
    data = rows.tobytes()
    if rng.random() < 0.1:
        # Its head, a byte of version, count, degree and the rest; then whatever the rows are.
        data = b"NGSP" + int(rng.integers(1, 5)).to_bytes(4, "little") + COUNT.to_bytes(4, "little") + bytes(4) + data
        data = data if rng.random() < 0.5 else gzip.compress(data, mtime=0)
        about.append("in an .spz")
    for _ in range(int(rng.integers(0, 3))):
        data = damaged_bytes(data, rng)
        about.append("bytes")
    (folder / name).write_bytes(data)
    return Case(arguments=command_for(name, rng), about=", ".join(about))


TARGET = Target(prepare=good_rows, case=damaged_file, quick=20)
