"""A vector of 16 or 8 floats for numba kernels, with ordinary operators.

``vector`` values add, subtract, multiply, divide and compare like numbers; a plain number on one side is
broadcast. Comparisons return a ``mask`` of as many booleans. Both are LLVM vectors: LLVM maps them to one AVX-512 or
AVX2 register, or to several narrower ones, so the kernels do not depend on the auto-vectoriser. Scalar ``floor`` and
``ceil`` are defined here, too: numba's own are calls into libm, which spill every vector register.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from sdi_gs.rasterize.kernels.jit import has_cpu_feature, kernel

LANES = 16 if has_cpu_feature("avx512f") else 8
"""Floats per vector. On AVX2 a longer one would halve the registers and spill."""
HAS_SCALE = LANES == 16 and has_cpu_feature("avx512dq")
"""Whether one instruction takes a fraction, and another multiplies by powers of two."""

FAST_MATH = ("nnan", "ninf", "nsz", "contract", "arcp")
F32, _I1, _I32, I64 = ir.FloatType(), ir.IntType(1), ir.IntType(32), ir.IntType(64)
FLOATS, INTS, _BITS = (ir.VectorType(element, LANES) for element in (F32, _I32, _I1))


def vector_intrinsic(emitter: Callable[..., Any]) -> Any:
    """Apply numba's ``intrinsic``; untyped, since kernels call the result without the emitter's typing context."""
    return intrinsic(emitter)


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"vector{LANES}")


class _MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"mask{LANES}")


vector = _VectorType()
mask = _MaskType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, FLOATS)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: types.Type) -> None:
        super().__init__(manager, numba_type, _BITS)


# ---- pieces of LLVM IR ----


def constant_vector(value: float) -> ir.Constant:
    return ir.Constant(FLOATS, [float(np.float32(value))] * LANES)


def spread(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTS, [0] * LANES))


def _as_vector(context: Any, builder: Any, value: Any, numba_type: types.Type) -> Any:
    if numba_type == vector:
        return value
    return spread(builder, context.cast(builder, value, numba_type, types.float32))


def _call(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Return a pointer to element ``args[1]`` of the contiguous array ``args[0]``."""
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    return builder.bitcast(builder.gep(data, [index]), ir.PointerType(FLOATS))


def _is_operand(numba_type: types.Type) -> bool:
    return numba_type == vector or isinstance(numba_type, types.Number)


# ---- operators ----


def _register_operator(operation: Any, result: types.Type, emit: Callable[..., Any]) -> None:
    @type_callable(operation)
    def _type(context: Any) -> Any:
        def typer(left: types.Type, right: types.Type) -> types.Type | None:
            return result if vector in (left, right) and _is_operand(left) and _is_operand(right) else None

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (_as_vector(context, builder, a, t) for a, t in zip(args, sig.args, strict=True))
        return emit(builder, left, right)

    for operands in ((vector, vector), (vector, types.Number), (types.Number, vector)):
        lower_builtin(operation, *operands)(lower)


def _arithmetic(instruction: str) -> Callable[..., Any]:
    return lambda builder, left, right: getattr(builder, instruction)(left, right, flags=FAST_MATH)


def _comparison(symbol: str) -> Callable[..., Any]:
    return lambda builder, left, right: builder.fcmp_ordered(symbol, left, right)


_register_operator(operator.add, vector, _arithmetic("fadd"))
_register_operator(operator.sub, vector, _arithmetic("fsub"))
_register_operator(operator.mul, vector, _arithmetic("fmul"))
_register_operator(operator.truediv, vector, _arithmetic("fdiv"))
_register_operator(operator.lt, mask, _comparison("<"))
_register_operator(operator.le, mask, _comparison("<="))
_register_operator(operator.gt, mask, _comparison(">"))
_register_operator(operator.ge, mask, _comparison(">="))


@type_callable(operator.neg)
def _type_neg(context: Any) -> Any:
    return lambda value: vector if value == vector else None


@lower_builtin(operator.neg, vector)
def _lower_neg(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fsub(constant_vector(-0.0), args[0], flags=FAST_MATH)


@type_callable(operator.and_)
def _type_and(context: Any) -> Any:
    return lambda left, right: mask if left == mask and right == mask else None


@lower_builtin(operator.and_, mask, mask)
def _lower_and(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.and_(args[0], args[1])


@type_callable(operator.or_)
def _type_or(context: Any) -> Any:
    return lambda left, right: mask if left == mask and right == mask else None


@lower_builtin(operator.or_, mask, mask)
def _lower_or(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.or_(args[0], args[1])


@type_callable(operator.invert)
def _type_invert(context: Any) -> Any:
    return lambda value: mask if value == mask else None


@lower_builtin(operator.invert, mask)
def _lower_invert(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.not_(args[0])


# ---- vectors ----


@vector_intrinsic
def broadcast(typing_context, value):
    """Return a vector with the number ``value`` in every lane."""

    def emit(context, builder, sig, args):
        return _as_vector(context, builder, args[0], sig.args[0])

    return vector(value), emit


@vector_intrinsic
def lane_numbers(typing_context):
    """Return the vector 0, 1, 2, ... LANES - 1."""

    def emit(context, builder, sig, args):
        return ir.Constant(FLOATS, [float(lane) for lane in range(LANES)])

    return vector(), emit


@vector_intrinsic
def load(typing_context, array, index):
    """Load ``LANES`` elements of a contiguous float32 array, starting at ``index``."""

    def emit(context, builder, sig, args):
        return builder.load(_address(context, builder, sig, args), align=4, typ=FLOATS)

    return vector(array, index), emit


@vector_intrinsic
def store(typing_context, array, index, value):
    """Write the vector ``value`` to ``LANES`` elements of a contiguous float32 array, starting at ``index``."""

    def emit(context, builder, sig, args):
        builder.store(args[2], _address(context, builder, sig, args), align=4)
        return context.get_dummy_value()

    return types.void(array, index, vector), emit


@vector_intrinsic
def as_int_bits(typing_context, value):
    """Return the bits of each number cut to an int32, to be written to an array of int32 that is viewed as float32."""

    def emit(context, builder, sig, args):
        return builder.bitcast(builder.fptosi(args[0], INTS), FLOATS)

    return vector(vector), emit


@vector_intrinsic
def has_bits(typing_context, value):
    """Return a mask of the lanes whose bits are not all 0: of int32 read as float32, those that are not 0."""

    def emit(context, builder, sig, args):
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], INTS), ir.Constant(INTS, [0] * LANES))

    return mask(vector), emit


@vector_intrinsic
def is_number(typing_context, value):
    """Return a mask of the lanes that are neither NaN nor infinity, which have all bits of the exponent set."""

    def emit(context, builder, sig, args):
        exponent = ir.Constant(INTS, [0x7F800000] * LANES)
        return builder.icmp_unsigned("!=", builder.and_(builder.bitcast(args[0], INTS), exponent), exponent)

    return mask(vector), emit


@vector_intrinsic
def select(typing_context, condition, if_true, if_false):
    """Return, lane by lane, ``if_true`` where the mask ``condition`` holds, else ``if_false``."""

    def emit(context, builder, sig, args):
        yes, no = (_as_vector(context, builder, a, t) for a, t in zip(args[1:], sig.args[1:], strict=True))
        return builder.select(args[0], yes, no)

    return vector(mask, if_true, if_false), emit


def _minmax(symbol: str) -> Any:
    @vector_intrinsic
    def extremum(typing_context, left, right):
        def emit(context, builder, sig, args):
            a, b = (_as_vector(context, builder, x, t) for x, t in zip(args, sig.args, strict=True))
            return builder.select(builder.fcmp_ordered(symbol, a, b), a, b)

        return vector(left, right), emit

    return extremum


minimum = _minmax("<")
maximum = _minmax(">")


def _unary(llvm_name: str) -> Any:
    @vector_intrinsic
    def function(typing_context, value):
        def emit(context, builder, sig, args):
            return _call(builder, f"llvm.{llvm_name}.v{LANES}f32", FLOATS, [args[0]])

        return vector(vector), emit

    return function


absolute = _unary("fabs")
square_root = _unary("sqrt")
round_up = _unary("ceil")
round_down = _unary("floor")

# Degree-5 fit of 2**f where the fraction lies, weighted for relative error (2.0e-7 at most).
_FRACTIONS = (0.0, 1.0) if HAS_SCALE else (-0.5, 0.5)
_NODES = np.cos(np.pi * (np.arange(64) + 0.5) / 64) * 0.5 + 0.5 * sum(_FRACTIONS)
_EXP2 = np.polynomial.Polynomial.fit(
    _NODES, np.exp2(_NODES), 5, domain=_FRACTIONS, window=_FRACTIONS, w=np.exp2(-_NODES)
)
_EXP2_COEFFICIENTS = [float(coefficient) for coefficient in _EXP2.coef]


def _scaled(builder: Any, power: Any) -> tuple[Any, Any]:
    """Return the fraction of a power of two and what multiplies a number by two to the rest, by integer arithmetic."""
    low = constant_vector(-30.0)
    power = builder.select(builder.fcmp_ordered(">", power, low), power, low)
    whole = _call(builder, f"llvm.rint.v{LANES}f32", FLOATS, [power])

    def scale(factor: Any) -> Any:
        exponent = builder.shl(builder.fptosi(whole, INTS), ir.Constant(INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(factor, INTS), exponent), FLOATS)

    return builder.fsub(power, whole, flags=FAST_MATH), scale


def _scaled_by_avx512(builder: Any, power: Any) -> tuple[Any, Any]:
    """Do the same by the two instructions that AVX-512 has for it; the fraction is positive."""
    all_lanes, no_values = ir.Constant(ir.IntType(LANES), -1), constant_vector(0.0)
    # 1: rounded down. 4: by the rounding mode in force.
    down, current = ir.Constant(_I32, 1), ir.Constant(_I32, 4)
    rest = _call(builder, "llvm.x86.avx512.mask.reduce.ps.512", FLOATS, [power, down, no_values, all_lanes, current])

    def scale(factor: Any) -> Any:
        operands = [factor, power, no_values, all_lanes, current]
        return _call(builder, "llvm.x86.avx512.mask.scalef.ps.512", FLOATS, operands)

    return rest, scale


@vector_intrinsic
def exp2(typing_context, value):
    """Return 2**value for values up to 1; values below -30 give 2**-30 or less, which is below the alpha cut anyway."""

    def emit(context, builder, sig, args):
        rest, scale = (_scaled_by_avx512 if HAS_SCALE else _scaled)(builder, args[0])
        result = constant_vector(_EXP2_COEFFICIENTS[-1])
        for coefficient in reversed(_EXP2_COEFFICIENTS[:-1]):
            product = builder.fmul(result, rest, flags=FAST_MATH)
            result = builder.fadd(product, constant_vector(coefficient), flags=FAST_MATH)
        return scale(result)

    return vector(vector), emit


@vector_intrinsic
def _split_float(typing_context, value):
    """Return the mantissa in [sqrt(1/2), sqrt(2)) and the exponent of positive normal numbers."""

    def emit(context, builder, sig, args):
        bits = builder.bitcast(args[0], INTS)
        # Bits of sqrt(1/2): subtracting them first moves the cut between exponents there.
        offset = ir.Constant(INTS, [0x3F3504F3] * LANES)
        shifted = builder.sub(bits, offset)
        exponent = builder.ashr(shifted, ir.Constant(INTS, [23] * LANES))
        mantissa = builder.sub(bits, builder.shl(exponent, ir.Constant(INTS, [23] * LANES)))
        pair = [builder.bitcast(mantissa, FLOATS), builder.sitofp(exponent, FLOATS)]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(vector, 2)(vector), emit


@kernel
def log(value):
    """Return the natural logarithm of positive normal numbers, to about 1e-7."""
    mantissa, exponent = _split_float(value)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    s2 = s * s
    series = (((s2 * (1.0 / 9.0) + (1.0 / 7.0)) * s2 + (1.0 / 5.0)) * s2 + (1.0 / 3.0)) * s2 + 1.0
    return exponent * 0.6931471805599453 + s * 2.0 * series


# ---- masks ----


@vector_intrinsic
def any_lane(typing_context, condition):
    """Return whether the mask holds in any lane."""

    def emit(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(mask), emit


@vector_intrinsic
def lane_bits(typing_context, condition):
    """Return the mask as an integer: bit k is lane k."""

    def emit(context, builder, sig, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(LANES)), I64)

    return types.int64(mask), emit


@vector_intrinsic
def lowest_bit(typing_context, bits):
    """Return the index of the lowest set bit of an int64 that is not 0."""

    def emit(context, builder, sig, args):
        return _call(builder, "llvm.cttz.i64", I64, [args[0], ir.Constant(_I1, 1)])

    return types.int64(types.int64), emit


# ---- scalar rounding without libm ----


def _rounding(llvm_name: str) -> Any:
    @vector_intrinsic
    def function(typing_context, value):
        def emit(context, builder, sig, args):
            rounded = _call(builder, f"llvm.{llvm_name}.f32", F32, [args[0]])
            return builder.sext(builder.fptosi(rounded, _I32), I64)

        return types.int64(types.float32), emit

    return function


floor_to_int = _rounding("floor")
ceil_to_int = _rounding("ceil")
