"""Few values that stand for many: a book of 256 numbers, and a palette of rows of harmonics.

Letters: N rows, D numbers of a row, P rows of a palette, M rows of a cell.
"""

from __future__ import annotations

import numpy as np

BOOK = 256
"""Numbers of a book, so that a byte names one."""
PALETTE = 65536
"""Most rows of a palette, so that two bytes name one."""
_ROUNDS = 8
"""Of Lloyd's iteration; the error hardly falls any more."""


def book_of(
    values: np.ndarray,  # [...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a rising book [256] of float32 and the byte of each value, [...], that names its nearest number."""
    ordered = np.sort(values, axis=None)
    few = (
        np.unique(ordered) if len(ordered) <= BOOK or len(np.unique(ordered[:: len(ordered) // BOOK])) < BOOK else None
    )
    if few is not None and len(few) <= BOOK:
        book = np.concatenate([few, np.full(BOOK - len(few), few[-1])])
    else:
        book = _fitted_book(ordered.astype(np.float64))
    book = book.astype(np.float32)
    return book, np.searchsorted(0.5 * (book[1:] + book[:-1]), values).astype(np.uint8)


def palette_of(
    rows: np.ndarray,  # [N, D]
    size: int = PALETTE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a palette [P, D] of at most ``size`` rows, a power of two, and which of them stands for each row, [N].

    Up to ``size`` rows it is the rows themselves. More are halved again and again, each cell at the middle of its
    widest direction, and a cell's mean stands for it: far cheaper than k-means, which takes minutes here.
    """
    if len(rows) <= size:
        return rows, np.arange(len(rows))
    per_cell = -(-len(rows) // size)
    # Whole cells: a few rows stand twice.
    order = np.resize(np.arange(len(rows)), size * per_cell)
    cells = 1
    while cells < size:
        members = order.reshape(cells, -1)
        widest = _widest(rows, members)
        along = rows[members, widest[:, None]]
        middle = members.shape[1] // 2
        order = np.take_along_axis(members, along.argpartition(middle, axis=1), axis=1).reshape(-1)
        cells *= 2
    members = order.reshape(size, per_cell)
    labels = np.empty(len(rows), dtype=np.int64)
    labels[members.reshape(-1)] = np.repeat(np.arange(size), per_cell)
    sums = np.zeros((size, rows.shape[1]), dtype=np.float32)
    for column in range(per_cell):
        sums += rows[members[:, column]]
    return sums / np.float32(per_cell), labels


def _widest(
    rows: np.ndarray,  # [N, D]
    members: np.ndarray,  # [cells, M] indices of rows
) -> np.ndarray:  # [cells]
    """Return the direction in which each cell's rows vary most."""
    variance = np.empty((len(members), rows.shape[1]), dtype=np.float32)
    for direction in range(rows.shape[1]):
        variance[:, direction] = rows[:, direction][members].var(axis=1)
    return variance.argmax(axis=1)


def _fitted_book(
    ordered: np.ndarray,  # [N] rising, float64
) -> np.ndarray:  # [256]
    """Return numbers whose squared distances to the values are small: Lloyd's iteration in one dimension."""
    half = BOOK // 2
    dense = ordered[((np.arange(half) + 0.5) / half * len(ordered)).astype(np.int64)]
    # Half where the values are, half evenly over their range: rare ones, such as giant splats, are near a number too.
    book = np.sort(np.concatenate([dense, np.linspace(ordered[0], ordered[-1], half)]))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(_ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(ordered, 0.5 * (book[1:] + book[:-1])), [len(ordered)]])
        counts = np.diff(ends)
        book = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), book)
        book.sort()
    return book
