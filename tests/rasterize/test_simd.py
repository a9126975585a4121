"""The vector type against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from sdi_gs.rasterize.kernels import channels, pair_bits, simd, tiles
from sdi_gs.rasterize.kernels.finite import all_finite
from sdi_gs.rasterize.kernels.jit import KERNEL_OPTIONS
from sdi_gs.rasterize.kernels.simd import LANES


@njit(**KERNEL_OPTIONS)
def _arithmetic(a, b, out):
    x, y = simd.load(a, 0), simd.load(b, 0)
    simd.store(out, 0, (x + y) * 2.0 - x / y)
    simd.store(out, LANES, -simd.absolute(x) + simd.square_root(y))
    simd.store(out, 2 * LANES, simd.minimum(x, 0.5) * simd.maximum(y, 1))
    simd.store(out, 3 * LANES, simd.select((x < y) & ~(x >= 1.0) | (y > 2.5), x, 7))
    simd.store(out, 4 * LANES, simd.round_up(x) - 3 * simd.round_down(y))


def test_operators_agree_with_numpy() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-3, 3, LANES).astype(np.float32), generator.uniform(0.1, 3, LANES).astype(np.float32)
    out = np.empty(5 * LANES, np.float32)
    _arithmetic(x, y, out)
    expected = np.concatenate(
        [
            (x + y) * 2 - x / y,
            -np.abs(x) + np.sqrt(y),
            np.minimum(x, 0.5) * np.maximum(y, 1),
            np.where((x < y) & ~(x >= 1) | (y > 2.5), x, 7),
            np.ceil(x) - 3 * np.floor(y),
        ]
    )
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@njit(**KERNEL_OPTIONS)
def _functions(values, out):
    for i in range(0, len(values), LANES):
        x = simd.load(values, i)
        simd.store(out, i, simd.exp2(x))
        simd.store(out, len(values) + i, simd.log(simd.exp2(x)))


def test_exp2_and_log_are_accurate_to_single_precision() -> None:
    values = np.linspace(-29.5, 1.0, 4096, dtype=np.float32)
    out = np.empty(2 * len(values), np.float32)
    _functions(values, out)
    powers, logs = out.astype(np.float64).reshape(2, -1)
    np.testing.assert_allclose(powers, np.exp2(values.astype(np.float64)), rtol=4e-7)
    np.testing.assert_allclose(logs, np.log(powers), rtol=4e-7, atol=1e-7)


@njit(**KERNEL_OPTIONS)
def _masks(values, threshold):
    above = simd.load(values, 0) > threshold
    bits = simd.lane_bits(above)
    return simd.any_lane(above), bits, simd.lowest_bit(bits | 1 << 20)


@pytest.mark.parametrize("threshold", [-1.0, 3.5, LANES - 1.5, 99.0])
def test_masks_read_as_bits(threshold: float) -> None:
    values = np.arange(LANES, dtype=np.float32)
    expected = [int(lane) for lane in np.flatnonzero(values > threshold)]
    found = _masks(values, np.float32(threshold))
    assert found == (bool(expected), sum(1 << lane for lane in expected), min([*expected, 20]))


@njit(**KERNEL_OPTIONS)
def _channels(values, like, out):
    first = channels.channel_load(values, 0, LANES, like)
    spread = channels.channel_broadcast(values, 3, like)
    sums = channels.channel_add_scaled(channels.channel_zeros(like), simd.lane_numbers(), spread)
    channels.channel_store(out, 0, LANES, sums)
    simd.store(out, LANES * len(like), channels.channel_dot(first, spread))
    channels.store_lane_sums(out, LANES * len(like) + LANES, first)


@pytest.mark.parametrize("num_channels", [1, 5, 16, 19])
def test_channel_tuples_agree_with_numpy(num_channels: int) -> None:
    values = np.random.default_rng(1).uniform(-1, 1, LANES * num_channels + 32).astype(np.float32)
    out: Any = np.zeros(LANES * num_channels + LANES + 32, np.float32)
    _channels(values, (0,) * num_channels, out)
    planes, spread = values[: LANES * num_channels].reshape(-1, LANES), values[3 : 3 + num_channels]
    sums, dot, totals = np.split(out, [LANES * num_channels, LANES * num_channels + LANES])
    np.testing.assert_allclose(sums.reshape(-1, LANES), spread[:, None] * np.arange(LANES), rtol=1e-6)
    np.testing.assert_allclose(dot, spread @ planes, atol=1e-5)
    np.testing.assert_allclose(totals[:num_channels], planes.sum(1), atol=1e-5)


@njit(**KERNEL_OPTIONS)
def _pixels(image, first, stride, like, planes, copy):
    block = channels.channel_load(planes, 0, LANES, like)
    channels.store_pixels(copy, first, stride, block)
    channels.channel_store(planes, 0, LANES, channels.load_pixels(image, first, stride, like))


@pytest.mark.parametrize("num_channels", [1, 3, 4])
def test_blocks_of_pixels_are_read_and_written_in_place(num_channels: int) -> None:
    rows, generator = LANES // 4, np.random.default_rng(2)
    image = generator.random((rows + 2, 9, num_channels), np.float32)
    planes = generator.random((num_channels, rows, 4), np.float32)
    expected, copy, block = image.copy(), image.copy(), planes.copy()
    expected[1 : 1 + rows, 3:7] = planes.transpose(1, 2, 0)
    _pixels(image.ravel(), (9 + 3) * num_channels, 9 * num_channels, (0,) * num_channels, block.ravel(), copy.ravel())
    np.testing.assert_array_equal(copy, expected)
    np.testing.assert_array_equal(block, image[1 : 1 + rows, 3:7].transpose(2, 0, 1))


@njit(**KERNEL_OPTIONS)
def _turned(words, bit, marked):
    found = pair_bits.words_with(words, bit)
    pair_bits.set_in_words(marked, bit, found)
    return found


@pytest.mark.parametrize("bit", [0, 7, 31])
def test_bits_of_words_are_found_and_set(bit: int) -> None:
    words = np.random.default_rng(bit).integers(0, 2**32, pair_bits.BATCH, np.uint32)
    marked = np.ones(pair_bits.BATCH, np.uint32)
    is_set = words >> np.uint32(bit) & 1 == 1
    assert _turned(words, bit, marked) % 2**64 == sum(1 << int(k) for k in np.flatnonzero(is_set))
    np.testing.assert_array_equal(marked, np.where(is_set, 1 | np.uint32(1 << bit), 1))


@njit(**KERNEL_OPTIONS)
def _round(value):
    return simd.floor_to_int(value), simd.ceil_to_int(value)


@pytest.mark.parametrize("value", [-2.5, -2.0, 0.0, 0.25, 7.0])
def test_scalar_rounding(value: float) -> None:
    assert _round(np.float32(value)) == (np.floor(value), np.ceil(value))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, LANES - 1, LANES, 2 * LANES + 3])
def test_a_value_that_is_not_finite_is_found_anywhere(size: int, bad: float) -> None:
    largest = np.finfo(np.float32).max
    values = np.resize(np.array([0.0, -1.0, largest, -largest, 1e-45], np.float32), size)
    assert all_finite(values) and all_finite(values[:0])
    for place in range(size):
        spoilt = values.copy()
        spoilt[place] = bad
        assert not all_finite(spoilt)


@pytest.mark.parametrize("count", [1, 64, 1281])
def test_aligned_memory_begins_with_a_cache_line(count: int) -> None:
    for _ in range(8):
        floats = tiles.aligned_floats(count)
        assert (floats.ctypes.data % 64, floats.dtype, floats.shape) == (0, np.float32, (count,))


@njit(**KERNEL_OPTIONS)
def _columns(floats, whole, columns, floats_out, whole_out, drawn):
    values, bits = channels.load_columns(floats, 1, columns), channels.load_columns(whole, 1, (0, 0))
    channels.store_columns(floats_out, 1, values)
    channels.store_columns(whole_out, 1, (simd.as_int_bits(values[0]), bits[1]))
    simd.store(drawn, 0, simd.select(simd.has_bits(bits[0]), 1.0, 0.0))


@pytest.mark.parametrize("width", [2, 3, 4])
def test_rows_are_read_and_written_column_by_column(width: int) -> None:
    generator = np.random.default_rng(0)
    floats = generator.uniform(-1e4, 1e4, (LANES + 2, width)).astype(np.float32)
    # As floats, the bits of 1 are a number so small that some processors take it for 0.
    whole = generator.integers(0, 2, (LANES + 2, 2)).astype(np.int32)
    floats_out, whole_out, drawn = np.zeros_like(floats), np.zeros_like(whole), np.empty(LANES, np.float32)
    _columns(floats, whole, (0,) * width, floats_out, whole_out, drawn)
    np.testing.assert_array_equal(floats_out[1:-1], floats[1:-1])
    np.testing.assert_array_equal(whole_out[1:-1], np.stack([floats[1:-1, 0].astype(np.int32), whole[1:-1, 1]], axis=1))
    np.testing.assert_array_equal(drawn, whole[1:-1, 0])
    for out in (floats_out, whole_out):
        assert (out[[0, -1]] == 0).all()
