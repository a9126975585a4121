"""Arithmetic of rows, columns and 3x3 matrices of vectors, one Gaussian per lane.

A matrix is a flat tuple of 9, row by row.
"""

from __future__ import annotations

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import LANES, load


@kernel
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def row_times_matrix(row, matrix):
    return (
        row[0] * matrix[0] + row[1] * matrix[3] + row[2] * matrix[6],
        row[0] * matrix[1] + row[1] * matrix[4] + row[2] * matrix[7],
        row[0] * matrix[2] + row[1] * matrix[5] + row[2] * matrix[8],
    )


@kernel
def matrix_times_column(matrix, column):
    return (
        matrix[0] * column[0] + matrix[1] * column[1] + matrix[2] * column[2],
        matrix[3] * column[0] + matrix[4] * column[1] + matrix[5] * column[2],
        matrix[6] * column[0] + matrix[7] * column[1] + matrix[8] * column[2],
    )


@kernel
def row_times_rows(row, rows):
    return (
        row[0] * rows[0][0] + row[1] * rows[1][0] + row[2] * rows[2][0],
        row[0] * rows[0][1] + row[1] * rows[1][1] + row[2] * rows[2][1],
        row[0] * rows[0][2] + row[1] * rows[1][2] + row[2] * rows[2][2],
    )


@kernel
def scale_columns(matrix, scales):
    return (
        matrix[0] * scales[0],
        matrix[1] * scales[1],
        matrix[2] * scales[2],
        matrix[3] * scales[0],
        matrix[4] * scales[1],
        matrix[5] * scales[2],
        matrix[6] * scales[0],
        matrix[7] * scales[1],
        matrix[8] * scales[2],
    )


@kernel
def column_dot(a, b, column):
    return a[column] * b[column] + a[column + 3] * b[column + 3] + a[column + 6] * b[column + 6]


@kernel
def add(a, b):
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@kernel
def times(factor, a):
    return (factor * a[0], factor * a[1], factor * a[2])


@kernel
def add_outer(matrix, column, row):
    return (
        matrix[0] + column[0] * row[0],
        matrix[1] + column[0] * row[1],
        matrix[2] + column[0] * row[2],
        matrix[3] + column[1] * row[0],
        matrix[4] + column[1] * row[1],
        matrix[5] + column[1] * row[2],
        matrix[6] + column[2] * row[0],
        matrix[7] + column[2] * row[1],
        matrix[8] + column[2] * row[2],
    )


@kernel
def load_row(buffer, first):
    """Load three consecutive vectors of a buffer; ``first`` counts vectors."""
    return load(buffer, first * LANES), load(buffer, (first + 1) * LANES), load(buffer, (first + 2) * LANES)
