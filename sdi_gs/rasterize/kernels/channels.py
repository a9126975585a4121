"""Tuples of vectors, one per colour channel, and their sums over lanes.

The number of channels is the length of the tuple ``channels``, hence part of the type: a kernel is compiled once per
number of channels and keeps every channel in a register.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import (
    F32,
    FAST_MATH,
    FLOATS,
    I64,
    INTS,
    LANES,
    constant_vector,
    spread,
    vector,
    vector_intrinsic,
)

TWO, THREE, FOUR = ((0,) * count for count in (2, 3, 4))
"""Channels, for ``load_columns``."""


@vector_intrinsic
def channel_zeros(typing_context, channels):
    """Return one zero vector per channel."""
    result = types.UniTuple(vector, len(channels))

    def emit(context, builder, sig, args):
        return context.make_tuple(builder, sig.return_type, [constant_vector(0.0)] * len(sig.return_type))

    return result(channels), emit


@vector_intrinsic
def channel_load(typing_context, array, index, stride, channels):
    """Load one vector per channel; channels lie ``stride`` elements apart."""
    result = types.UniTuple(vector, len(channels))

    def emit(context, builder, sig, args):
        step = context.cast(builder, args[2], sig.args[2], types.intp)
        position = context.cast(builder, args[1], sig.args[1], types.intp)
        loaded = []
        for _ in range(len(sig.return_type)):
            data = context.make_array(sig.args[0])(context, builder, args[0]).data
            pointer = builder.bitcast(builder.gep(data, [position]), ir.PointerType(FLOATS))
            loaded.append(builder.load(pointer, align=4, typ=FLOATS))
            position = builder.add(position, step)
        return context.make_tuple(builder, sig.return_type, loaded)

    return result(array, index, stride, channels), emit


@vector_intrinsic
def channel_store(typing_context, array, index, stride, values):
    """Write one vector per channel; channels lie ``stride`` elements apart."""

    def emit(context, builder, sig, args):
        step = context.cast(builder, args[2], sig.args[2], types.intp)
        position = context.cast(builder, args[1], sig.args[1], types.intp)
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        for channel in range(len(sig.args[3])):
            pointer = builder.bitcast(builder.gep(data, [position]), ir.PointerType(FLOATS))
            builder.store(builder.extract_value(args[3], channel), pointer, align=4)
            position = builder.add(position, step)
        return context.get_dummy_value()

    return types.void(array, index, stride, values), emit


@vector_intrinsic
def channel_broadcast(typing_context, array, index, channels):
    """Fill every lane of vector k with element ``index + k`` of a contiguous float32 array."""
    result = types.UniTuple(vector, len(channels))

    def emit(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        position = context.cast(builder, args[1], sig.args[1], types.intp)
        loaded = []
        for channel in range(len(sig.return_type)):
            pointer = builder.gep(data, [builder.add(position, ir.Constant(I64, channel))])
            loaded.append(spread(builder, builder.load(pointer, typ=F32)))
        return context.make_tuple(builder, sig.return_type, loaded)

    return result(array, index, channels), emit


@vector_intrinsic
def channel_add_scaled(typing_context, sums, weight, values):
    """Return sums + weight * values, channel by channel."""

    def emit(context, builder, sig, args):
        result = []
        for channel in range(len(sig.return_type)):
            total, value = builder.extract_value(args[0], channel), builder.extract_value(args[2], channel)
            product = builder.fmul(args[1], value, flags=FAST_MATH)
            result.append(builder.fadd(total, product, flags=FAST_MATH))
        return context.make_tuple(builder, sig.return_type, result)

    return sums(sums, vector, values), emit


@vector_intrinsic
def channel_dot(typing_context, left, right):
    """Return the sum over the channels of left * right."""

    def emit(context, builder, sig, args):
        total = None
        for channel in range(len(sig.args[0])):
            pair = [builder.extract_value(args[side], channel) for side in (0, 1)]
            product = builder.fmul(*pair, flags=FAST_MATH)
            total = product if total is None else builder.fadd(total, product, flags=FAST_MATH)
        return total

    return vector(left, right), emit


def _fold(builder: Any, low: Any, high: Any, distance: int) -> Any:
    """Add lanes ``distance`` apart: lanes whose number has that bit clear hold sums of ``low``, the others of ``high``.

    None stands for a missing vector.
    """
    if low is None:
        return None
    own = [lane + LANES * bool(lane & distance) for lane in range(LANES)]
    other = [(lane ^ distance) + LANES * bool(lane & distance) for lane in range(LANES)]
    if high is None:
        # The lanes of a missing vector are never read, so any values will do.
        own, other, high = list(range(LANES)), [lane ^ distance for lane in range(LANES)], low
    first, second = (builder.shuffle_vector(low, high, ir.Constant(INTS, lanes)) for lanes in (own, other))
    return builder.fadd(first, second, flags=FAST_MATH)


@vector_intrinsic
def store_lane_sums(typing_context, array, index, vectors):
    """Write the sum over the lanes of ``vectors[k]`` to element ``index + k``.

    ``LANES`` vectors are summed together by a transposing tree; the remaining elements up to the next multiple of
    LANES are overwritten with undefined values.
    """
    # Neighbours meet first, so that few vectors are left alone where there are not LANES. The sum of vector k ends in
    # the lane that has the bits of k in reverse.
    reverse = [int(f"{k + LANES:b}"[:0:-1], 2) for k in range(LANES)]

    def emit(context, builder, sig, args):
        count = len(sig.args[2])
        position = context.cast(builder, args[1], sig.args[1], types.intp)
        for first in range(0, count, LANES):
            group: list[Any] = [builder.extract_value(args[2], k) for k in range(first, min(first + LANES, count))]
            group += [None] * (LANES - len(group))
            distance = LANES // 2
            while distance:
                group = [_fold(builder, group[2 * k], group[2 * k + 1], distance) for k in range(distance)]
                distance //= 2
            data = context.make_array(sig.args[0])(context, builder, args[0]).data
            pointer = builder.gep(data, [builder.add(position, ir.Constant(I64, first))])
            sums = builder.shuffle_vector(group[0], group[0], ir.Constant(INTS, reverse))
            builder.store(sums, builder.bitcast(pointer, ir.PointerType(FLOATS)), align=4)
        return context.get_dummy_value()

    return types.void(array, index, vectors), emit


def _pick(builder: Any, value: Any, lanes: list[int | None]) -> Any:
    """Return the lanes of a vector in another order and number; None for those that are not read."""
    undefined = ir.Constant(value.type, ir.Undefined)
    places = ir.Constant(
        ir.VectorType(INTS.element, len(lanes)),
        [ir.Constant(INTS.element, ir.Undefined if lane is None else lane) for lane in lanes],
    )
    return builder.shuffle_vector(value, undefined, places)


def _merged(builder: Any, values: list[Any], owners: list[int]) -> Any:
    """Return a vector whose lane k is that of ``values[owners[k]]``."""
    result = values[0]
    for number, value in enumerate(values[1:], start=1):
        lanes = [k + len(owners) * (owner == number) for k, owner in enumerate(owners)]
        result = builder.shuffle_vector(result, value, ir.Constant(ir.VectorType(INTS.element, len(owners)), lanes))
    return result


def _pixel_rows(context: Any, builder: Any, sig: Any, args: Any, floats: int) -> list[Any]:
    """Return pointers to the block's rows of four pixels: ``args`` are array, index of the first, floats of a row."""
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    position = context.cast(builder, args[1], sig.args[1], types.intp)
    stride = context.cast(builder, args[2], sig.args[2], types.intp)
    pointers = []
    for _ in range(LANES // 4):
        pointers.append(builder.bitcast(builder.gep(data, [position]), ir.PointerType(ir.VectorType(F32, floats))))
        position = builder.add(position, stride)
    return pointers


@vector_intrinsic
def store_pixels(typing_context, array, index, stride, values):
    """Write the channels of a block's pixels to an image, four pixels to a row of ``stride`` floats."""

    def emit(context, builder, sig, args):
        channels = len(sig.args[3])
        planes = [builder.extract_value(args[3], k) for k in range(channels)]
        owners = [place % channels for place in range(4 * channels)]
        for row, pointer in enumerate(_pixel_rows(context, builder, sig, args, 4 * channels)):
            lanes: list[int | None] = [4 * row + place // channels for place in range(4 * channels)]
            builder.store(
                _merged(builder, [_pick(builder, plane, lanes) for plane in planes], owners), pointer, align=4
            )
        return context.get_dummy_value()

    return types.void(array, index, stride, values), emit


@vector_intrinsic
def load_pixels(typing_context, array, index, stride, channels):
    """Read the channels of a block's pixels from an image; see ``store_pixels``."""
    result = types.UniTuple(vector, len(channels))

    def emit(context, builder, sig, args):
        count = len(sig.return_type)
        floats = ir.VectorType(F32, 4 * count)
        rows = [
            builder.load(pointer, align=4, typ=floats)
            for pointer in _pixel_rows(context, builder, sig, args, 4 * count)
        ]
        planes = []
        for channel in range(count):
            lanes: list[int | None] = [lane % 4 * count + channel for lane in range(LANES)]
            picked = [_pick(builder, row, lanes) for row in rows]
            planes.append(_merged(builder, picked, [lane // 4 for lane in range(LANES)]))
        return context.make_tuple(builder, sig.return_type, planes)

    return result(array, index, stride, channels), emit


@kernel
def load_columns(rows, first, columns):
    """Read ``LANES`` rows of a contiguous array of rows, one vector per column; ``columns`` is a tuple of as many."""
    width = len(columns)
    return load_pixels(rows, first * width, 4 * width, columns)


@kernel
def store_columns(rows, first, values):
    """Write one vector per column to ``LANES`` rows of a contiguous array of rows."""
    width = len(values)
    store_pixels(rows, first * width, 4 * width, values)
