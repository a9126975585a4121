"""Seeded damage: to bytes, to lines of text, and to numbers in tables."""

from __future__ import annotations

import numpy as np

EXTREME_FLOATS = (
    *(float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 1e-30, -1e-12, 1.0, -1.0, 100.0),
    *(-100.0, 1e4, -1e4, 1e7, 1e10, -1e15, 1e19, -1e25, 1e30, 3.4e38, -3.4e38, 1e300, -1e300),
)
EXTREME_INTEGERS = (0, 1, -1, 2, 7, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**18, 10**30)
WORDS = (
    b"",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"\x00",
    b"\xff\xfe",
    b"\x1b[31m",
    b"\xc3\x85",
    b"'",
    b"%s",
    b"{}",
    b"..",
)


def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Return data with one damage: bits turned, a slice cut out, doubled, moved or overwritten, or the end cut off."""
    out = bytearray(data)
    if not out:
        return bytes(rng.integers(0, 256, size=int(rng.integers(1, 64)), dtype=np.uint8))
    start = int(rng.integers(len(out)))
    length = int(min(len(out) - start, 2 ** rng.integers(0, 9)))
    piece = bytes(out[start : start + length])
    match int(rng.integers(7)):
        case 0:
            for place in rng.integers(len(out), size=int(rng.integers(1, 9))):
                out[place] ^= 1 << int(rng.integers(8))
        case 1:
            del out[start : start + length]
        case 2:
            out[start:start] = piece
        case 3:
            del out[start:]
        case 4:
            out[start : start + length] = bytes(length)
        case 5:
            out[start : start + length] = rng.integers(0, 256, size=length, dtype=np.uint8).tobytes()
        case _:
            with np.errstate(over="ignore"):
                out[start : start + 4] = np.float32(_extreme(rng)).tobytes()
    return bytes(out)


def damaged_lines(text: bytes, rng: np.random.Generator) -> bytes:
    """Return lines of text with one of them dropped, doubled, swapped, or a word of it replaced."""
    lines = text.split(b"\n")
    first, second = (int(place) for place in rng.integers(len(lines), size=2))
    match int(rng.integers(6)):
        case 0:
            del lines[first]
        case 1:
            lines.insert(second, lines[first])
        case 2:
            lines[first], lines[second] = lines[second], lines[first]
        case 3:
            lines[first] = b" ".join([lines[first], WORDS[rng.integers(len(WORDS))]])
        case _:
            words = lines[first].split(b" ")
            number = str(EXTREME_INTEGERS[rng.integers(len(EXTREME_INTEGERS))]).encode()
            words[rng.integers(len(words))] = number if rng.random() < 0.5 else WORDS[rng.integers(len(WORDS))]
            lines[first] = b" ".join(words)
    return b"\n".join(lines)


def extreme_values(table: np.ndarray, rng: np.random.Generator) -> str:
    """Put an extreme number into some rows of some columns of a structured table; return what was done."""
    names = list(table.dtype.names or ())
    chosen = rng.choice(names, size=min(len(names), int(rng.integers(1, 5))), replace=False)
    value = _extreme(rng)
    rows = slice(None) if rng.random() < 0.4 else rng.integers(len(table), size=int(rng.integers(1, len(table) + 1)))
    with np.errstate(all="ignore"):
        for name in chosen:
            # A cast of what an integer cannot hold is some integer, which is all that is wanted.
            table[name][rows] = np.asarray(value).astype(table.dtype[name].base)
    return f"{', '.join(map(str, chosen))} = {value:g}"


def _extreme(rng: np.random.Generator) -> float:
    return EXTREME_FLOATS[rng.integers(len(EXTREME_FLOATS))]
