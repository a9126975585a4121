"""Splat files of others that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import refusal


def spoiled_ply(good: bytes, how: str) -> bytes:
    header, _, body = good.partition(b"end_header\n")
    match how:
        case "truncated":
            return good[:-10]
        case "ASCII":
            return header.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + b"0 0 0\n" * 2000
        case "huge":
            lines = [b"element vertex 99999999999" if x.startswith(b"element") else x for x in header.split(b"\n")]
            return b"\n".join(lines) + b"end_header\n" + body
        case "no splats":
            return header.replace(b"property float opacity", b"property float brightness") + b"end_header\n" + body
        case "activated":
            rows = np.frombuffer(body, "<f4").reshape(-1, 17).copy()
            rows[:, 10:13] = np.exp(rows[:, 10:13])
            return header + b"end_header\n" + rows.tobytes()
        case "no .ply":
            return b"GIF89a" + body
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("truncated", "cut short"),
        ("ASCII", "ASCII"),
        ("huge", "99999999999"),
        ("no splats", "opacity"),
        ("activated", "take the log"),
        ("no .ply", ".ply"),
    ],
)
@pytest.mark.parametrize("command", ["render", "eval"])
def test_a_bad_ply_is_refused_in_one_line_and_leaves_nothing(
    run: Path, how: str, says: str, command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.ply").write_bytes(spoiled_ply((run / "splats.ply").read_bytes(), how))
    options = ["--prompt", "a blue robot"] if command == "eval" else []
    assert says.lower() in refusal([command, "bad.ply", *options], capsys).lower()
    assert [path.name for path in here.iterdir()] == ["bad.ply"]
