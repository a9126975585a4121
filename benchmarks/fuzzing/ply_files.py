"""Damaged .ply files: splats of every layout that people have, points and meshes, binary and text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from fuzzing.mutations import damaged_bytes, damaged_lines, extreme_values
from fuzzing.splat_commands import command_for
from fuzzing.targets import Case, Target

COUNT = 40
NAMES = ("a.ply", "a.ply", "a.ply", "a.PLY", "download", "a.splat", "a.obj")
_QUATS = tuple(f"rot_{i}" for i in range(4))
_SCALES = tuple(f"scale_{i}" for i in range(3))
_DC = tuple(f"f_dc_{i}" for i in range(3))
_RGB = ("red", "green", "blue")
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "splats": (*"xyz", "nx", "ny", "nz", *_DC, "opacity", *_SCALES, *_QUATS),
    "harmonics": (*"xyz", *_DC, *(f"f_rest_{i}" for i in range(9)), "opacity", *_SCALES, *_QUATS),
    "degree 4": (*"xyz", *_DC, *(f"f_rest_{i}" for i in range(72)), "opacity", *_SCALES, *_QUATS),
    "flat": (*"xyz", *_DC, "opacity", *_SCALES[:2], *_QUATS),
    "filtered": (*"xyz", *_DC, "opacity", *_SCALES, *_QUATS, "filter_3D"),
    "coloured": (*"xyz", *_RGB, "opacity", *_SCALES, *_QUATS),
    "points": (*"xyz",),
    "coloured points": (*"xyz", *_RGB),
    "mesh": (*"xyz", *_RGB),
}
"""Properties of the vertices, by the kind of file."""
_CUBE = [(0, 1, 2), (1, 2, 3), (4, 5, 6), (5, 6, 7), (0, 1, 4), (1, 4, 5), (2, 3, 6), (3, 6, 7)]


@dataclass(frozen=True, kw_only=True)
class PlyFile:
    """A good file as a table."""

    kind: str
    vertices: np.ndarray

    def written(self, *, order: str) -> bytes:
        """Return the file's bytes in a byte order, or as text if it is empty."""
        elements = [PlyElement.describe(self.vertices, "vertex")]
        if self.kind == "mesh":
            faces = np.empty(len(_CUBE), dtype=[("vertex_indices", "i4", (3,))])
            faces["vertex_indices"] = _CUBE
            elements.append(PlyElement.describe(faces, "face"))
        content = io.BytesIO()
        file = PlyData(elements, text=not order, byte_order=order or "=", comments=["by hand"])  # pyright: ignore[reportArgumentType]
        with np.errstate(all="ignore"):
            file.write(content)
        return content.getvalue()


def good_files(folder: Path) -> Sequence[PlyFile]:
    """Return a file of every layout."""
    rng = np.random.default_rng(0)
    files = []
    for kind, names in _LAYOUTS.items():
        wide = "f8" if kind in ("points", "flat") else "f4"
        types = [(name, "u1" if name in _RGB else wide if name in "xyz" else "f4") for name in names]
        table = np.zeros(8 if kind == "mesh" else COUNT, dtype=types)
        for name, kind_of in types:
            table[name] = rng.integers(0, 256, len(table)) if kind_of == "u1" else 0.5 * rng.normal(size=len(table))
        for name in {"filter_3D", *_SCALES} & set(names):
            table[name] = 0.01 if name == "filter_3D" else rng.normal(-4.0, 0.5, len(table))
        if "opacity" in names:
            table["opacity"] = rng.normal(0.0, 2.0, len(table))
        if kind == "mesh":
            for axis in range(3):
                table["xyz"[axis]] = (np.arange(8) >> axis) & 1
        files.append(PlyFile(kind=kind, vertices=table))
    return files


def damaged_file(good: Sequence[PlyFile], rng: np.random.Generator, folder: Path) -> Case:
    """Write a file with extreme values, a damaged header, damaged bytes, or two of these."""
    file = good[int(rng.integers(len(good)))]
    order, name, about = ("<", "<", ">", "")[rng.integers(4)], NAMES[rng.integers(len(NAMES))], [file.kind]
    table = file.vertices.copy()
    if rng.random() < 0.6:
        about.append(extreme_values(table, rng))
        if rng.random() < 0.3:
            about.append(extreme_values(table, rng))
    data = PlyFile(kind=file.kind, vertices=table).written(order=order)
    if rng.random() < 0.3:
        header, end, body = data.partition(b"\nend_header\n")
        data = damaged_lines(header, rng) + end + body
        about.append("header")
    if rng.random() < 0.3:
        data = damaged_bytes(data, rng)
        about.append("bytes")
    (folder / name).write_bytes(data)
    return Case(arguments=command_for(name, rng), about=f"{order or 'text'} {', '.join(about)}")


TARGET = Target(prepare=good_files, case=damaged_file, quick=30)
