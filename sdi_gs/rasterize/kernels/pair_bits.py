"""The blocks of up to 64 pairs turned around: from the blocks of a pair to the pairs of a block, and back."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from sdi_gs.rasterize.kernels.simd import I64, vector_intrinsic

BATCH = 64
"""Pairs that are turned around at once: as many as an int64 has bits."""

_I32 = ir.IntType(32)
_WORDS = ir.VectorType(_I32, BATCH)
_FLAGS = ir.VectorType(ir.IntType(1), BATCH)


def _words(context, builder, sig, args):
    """Return a pointer to the ``BATCH`` words of a contiguous uint32 array."""
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return builder.bitcast(data, ir.PointerType(_WORDS))


def _bit_in_all_words(context, builder, sig, value, numba_type):
    """Return words that have one bit set, all the same."""
    shift = builder.trunc(context.cast(builder, value, numba_type, types.int64), _I32)
    bit = builder.shl(ir.Constant(_I32, 1), shift)
    undefined = ir.Constant(_WORDS, ir.Undefined)
    first = builder.insert_element(undefined, bit, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_WORDS, [0] * BATCH))


@vector_intrinsic
def words_with(typing_context, words, bit):
    """Return the numbers of the words of a uint32 array [BATCH] in which a bit is set, as bits."""

    def emit(context, builder, sig, args):
        wanted = _bit_in_all_words(context, builder, sig, args[1], sig.args[1])
        loaded = builder.load(_words(context, builder, sig, args), align=4, typ=_WORDS)
        found = builder.icmp_unsigned("!=", builder.and_(loaded, wanted), ir.Constant(_WORDS, [0] * BATCH))
        return builder.bitcast(found, I64)

    return types.int64(words, bit), emit


@vector_intrinsic
def set_in_words(typing_context, words, bit, chosen):
    """Set a bit in those words of a uint32 array [BATCH] whose numbers are the bits of the int64 ``chosen``."""

    def emit(context, builder, sig, args):
        wanted = _bit_in_all_words(context, builder, sig, args[1], sig.args[1])
        pointer = _words(context, builder, sig, args)
        flags = builder.bitcast(context.cast(builder, args[2], sig.args[2], types.int64), _FLAGS)
        added = builder.select(flags, wanted, ir.Constant(_WORDS, [0] * BATCH))
        builder.store(builder.or_(builder.load(pointer, align=4, typ=_WORDS), added), pointer, align=4)
        return context.get_dummy_value()

    return types.void(words, bit, chosen), emit
