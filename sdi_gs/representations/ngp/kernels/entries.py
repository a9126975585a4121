"""Vectors of table entries: find those at the corners of a vector of cells, read their pairs, and add to them.

A table is a flat float32 array of pairs. Entries are stored in an int32 array, ``LANES`` per corner, corners with x
fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from sdi_gs.rasterize.kernels.simd import FAST_MATH, I64, INTS, LANES, vector, vector_intrinsic

_F32, _I32 = ir.FloatType(), ir.IntType(32)
_PAIR = ir.VectorType(_F32, 2)
_PRIME_Y, _PRIME_Z = 2654435761, 805459861


def _spread(builder: Any, scalar: Any) -> Any:
    first = builder.insert_element(ir.Constant(INTS, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, ir.Constant(INTS, ir.Undefined), ir.Constant(INTS, [0] * LANES))


def _data(context: Any, builder: Any, numba_type: types.Type, array: Any) -> Any:
    return context.make_array(numba_type)(context, builder, array).data


def _entries_intrinsic(corner: Callable[[Any, list[Any], Any], Any], factors: Callable[[Any, Any], list[Any]]) -> Any:
    """Return an intrinsic (entries, x, y, z, resolution, size, first) that writes all corners of a vector of cells."""

    @vector_intrinsic
    def write_entries(typing_context, entries, x, y, z, resolution, size, first):
        def emit(context, builder, sig, args):
            numbers = [context.cast(builder, a, t, types.int32) for a, t in zip(args[4:], sig.args[4:], strict=True)]
            resolutions, sizes, firsts = (_spread(builder, number) for number in numbers)
            low, high = [], []
            for cell, factor in zip(args[1:4], factors(builder, resolutions), strict=True):
                low.append(builder.mul(builder.fptosi(cell, INTS), factor))
                high.append(builder.add(low[-1], factor))
            data = _data(context, builder, sig.args[0], args[0])
            for number in range(8):
                terms = [(high if number >> axis & 1 else low)[axis] for axis in range(3)]
                place = builder.add(corner(builder, terms, sizes), firsts)
                pointer = builder.gep(data, [ir.Constant(I64, number * LANES)])
                builder.store(place, builder.bitcast(pointer, ir.PointerType(INTS)), align=4)
            return context.get_dummy_value()

        return types.void(entries, vector, vector, vector, resolution, size, first), emit

    return write_entries


def _constants(*values: int) -> list[ir.Constant]:
    return [ir.Constant(INTS, [value] * LANES) for value in values]


def _hash(builder: Any, terms: list[Any], sizes: Any) -> Any:
    mixed = builder.xor(builder.xor(terms[0], terms[1]), terms[2])
    return builder.and_(mixed, builder.sub(sizes, *_constants(1)))


def _wrap(builder: Any, terms: list[Any], sizes: Any) -> Any:
    place = builder.add(builder.add(terms[0], terms[1]), terms[2])
    wrapped = builder.select(builder.icmp_unsigned(">=", place, sizes), builder.sub(place, sizes), place)
    # A point that is not finite has no cell: it must still not lead out of the table.
    last = builder.sub(sizes, *_constants(1))
    return builder.select(builder.icmp_unsigned("<", wrapped, last), wrapped, last)


hashed_entries = _entries_intrinsic(_hash, lambda builder, _: _constants(1, _PRIME_Y, _PRIME_Z))
dense_entries = _entries_intrinsic(
    _wrap, lambda builder, resolutions: [*_constants(1), resolutions, builder.mul(resolutions, resolutions)]
)


def _pair_pointers(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """Return pointers to the pairs of ``LANES`` entries, starting at ``args[2]``."""
    table, entries = (_data(context, builder, sig.args[k], args[k]) for k in (0, 1))
    position = context.cast(builder, args[2], sig.args[2], types.intp)
    pointers = []
    for lane in range(LANES):
        entry = builder.load(builder.gep(entries, [builder.add(position, ir.Constant(I64, lane))]), typ=_I32)
        place = builder.shl(builder.zext(entry, I64), ir.Constant(I64, 1))
        pointers.append(builder.bitcast(builder.gep(table, [place]), ir.PointerType(_PAIR)))
    return pointers


def _lanes(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


@vector_intrinsic
def load_pairs(typing_context, table, entries, position):
    """Load the first and second numbers of the pairs of ``LANES`` entries, starting at ``position``."""

    def emit(context, builder, sig, args):
        parts = [builder.load(p, align=4, typ=_PAIR) for p in _pair_pointers(context, builder, sig, args)]
        while len(parts) > 2:
            joined = list(range(2 * parts[0].type.count))
            parts = [_lanes(builder, parts[k], parts[k + 1], joined) for k in range(0, len(parts), 2)]
        pair = [_lanes(builder, parts[0], parts[1], list(range(k, 2 * LANES, 2))) for k in (0, 1)]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(vector, 2)(table, entries, position), emit


@vector_intrinsic
def add_pairs(typing_context, table, entries, position, first, second):
    """Add a pair per lane to the table, one lane after another, since entries may repeat."""

    def emit(context, builder, sig, args):
        for lane, pointer in enumerate(_pair_pointers(context, builder, sig, args)):
            own = _lanes(builder, args[3], args[4], [lane, LANES + lane])
            total = builder.fadd(builder.load(pointer, align=4, typ=_PAIR), own, flags=FAST_MATH)
            builder.store(total, pointer, align=4)
        return context.get_dummy_value()

    return types.void(table, entries, position, vector, vector), emit
