"""The two networks over a point's features, a vector of points at a time, and their gradients.

    raw = relu(f D) d        logits = relu(f A) a        slopes = J (D (gate * d)),  gate = [f D > 0]

f are the features, J their derivatives by position, D, d and A, a the layers of the density and the albedo network.
``slopes`` is the derivative of ``raw`` by position.

Letters: P points, V points of a block (``simd.LANES``), N blocks, W features, K hidden units (a multiple of 4), C
chunks of points.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import LANES, broadcast, load, maximum, select, store

CHUNK = 8192
"""Points whose gradients are summed together; fixed, so that no sum depends on the number of threads."""


def gradient_length(width: int, hidden: int) -> int:
    """Return the length of a chunk's sums: the gradients of D, d, A and a, one after another."""
    return 2 * width * hidden + 4 * hidden


@kernel
def _spill(values, first, count, out):
    """Write the first ``count`` lanes of a vector to ``out``, starting at ``first``."""
    lanes = np.empty(LANES, np.float32)
    store(lanes, 0, values)
    for lane in range(count):
        out[first + lane] = lanes[lane]


@kernel
def _gather(array, first, stride, count, lanes):
    """Load elements ``stride`` apart into a vector; 0 beyond ``count``."""
    for lane in range(LANES):
        lanes[lane] = array[first + lane * stride] if lane < count else np.float32(0.0)
    return load(lanes, 0)


@kernel
def _hidden(features, base, weights, k):
    """Return hidden units ``k`` to ``k + 3`` before the ReLU."""
    h0, h1, h2, h3 = broadcast(0.0), broadcast(0.0), broadcast(0.0), broadcast(0.0)
    for w in range(weights.shape[0]):
        f = load(features, base + w * LANES)
        h0 = h0 + f * weights[w, k]
        h1 = h1 + f * weights[w, k + 1]
        h2 = h2 + f * weights[w, k + 2]
        h3 = h3 + f * weights[w, k + 3]
    return h0, h1, h2, h3


@kernel
def _back_to_feature(units, weights, w):
    """Return the sum over hidden units of each unit's vector times its weight for feature ``w``."""
    s0, s1 = broadcast(0.0), broadcast(0.0)
    for k in range(0, weights.shape[1], 2):
        s0 = s0 + load(units, k * LANES) * weights[w, k]
        s1 = s1 + load(units, (k + 1) * LANES) * weights[w, k + 1]
    return s0 + s1


@kernel
def _open_gate(value, density_out, k, gates, is_open):
    gate = select(value > 0.0, density_out[k], 0.0)
    store(gates, k * LANES, gate)
    store(is_open, k * LANES, select(value > 0.0, 1.0, 0.0))
    return value * gate


@kernel
def _open_gates(features, base, density_hidden, density_out, gates, is_open):
    """Write gate * d and the gate, 1 or 0, of every unit, and return raw."""
    total = broadcast(0.0)
    for k in range(0, density_hidden.shape[1], 4):
        h0, h1, h2, h3 = _hidden(features, base, density_hidden, k)
        total = total + _open_gate(h0, density_out, k, gates, is_open)
        total = total + _open_gate(h1, density_out, k + 1, gates, is_open)
        total = total + _open_gate(h2, density_out, k + 2, gates, is_open)
        total = total + _open_gate(h3, density_out, k + 3, gates, is_open)
    return total


@kernel
def networks(
    begin,
    end,
    features,  # [N, W, V]
    jacobian,  # [N, 3, W, V] or empty
    density_hidden,  # [W, K]
    density_out,  # [K]
    albedo_hidden,  # [W, K]
    albedo_out,  # [K, 3]
    raw,  # [P] written
    logits,  # [3, P] written, or empty
    slopes,  # [3, P] written, or empty
):
    """Evaluate both networks at points ``begin`` to ``end``; ``begin`` is the start of a block."""
    width, hidden = density_hidden.shape
    flat_features, flat_jacobian = features.reshape(-1), jacobian.reshape(-1)
    with_colour, with_slopes = logits.shape[1] > 0, slopes.shape[1] > 0
    gates, is_open = np.empty(hidden * LANES, np.float32), np.empty(hidden * LANES, np.float32)
    for start in range(begin, end, LANES):
        count, base = min(LANES, end - start), start * width
        total = _open_gates(flat_features, base, density_hidden, density_out, gates, is_open)
        _spill(total, start, count, raw)
        if with_slopes:
            x, y, z = broadcast(0.0), broadcast(0.0), broadcast(0.0)
            for w in range(width):
                slope = _back_to_feature(gates, density_hidden, w)
                place = 3 * base + w * LANES
                x = x + slope * load(flat_jacobian, place)
                y = y + slope * load(flat_jacobian, place + width * LANES)
                z = z + slope * load(flat_jacobian, place + 2 * width * LANES)
            _spill(x, start, count, slopes[0])
            _spill(y, start, count, slopes[1])
            _spill(z, start, count, slopes[2])
        if with_colour:
            red, green, blue = broadcast(0.0), broadcast(0.0), broadcast(0.0)
            for k in range(0, hidden, 4):
                units = _hidden(flat_features, base, albedo_hidden, k)
                for i in range(4):
                    unit = maximum(units[i], broadcast(0.0))
                    red = red + unit * albedo_out[k + i, 0]
                    green = green + unit * albedo_out[k + i, 1]
                    blue = blue + unit * albedo_out[k + i, 2]
            _spill(red, start, count, logits[0])
            _spill(green, start, count, logits[1])
            _spill(blue, start, count, logits[2])


@kernel
def _add_outer(left, left_base, units, sums, width, hidden):
    """Add ``left[w] * units[k]`` to the sum of every weight."""
    for w in range(width):
        value = load(left, left_base + w * LANES)
        row = w * hidden * LANES
        for k in range(hidden):
            place = row + k * LANES
            store(sums, place, load(sums, place) + value * load(units, k * LANES))


@kernel
def networks_backward(
    first_chunk,
    chunk_step,
    features,  # [N, W, V]
    jacobian,  # [N, 3, W, V] or empty
    density_hidden,  # [W, K]
    density_out,  # [K]
    albedo_hidden,  # [W, K]
    albedo_out,  # [K, 3]
    grad_raw,  # [P]
    grad_logits,  # [3, P] or empty
    grad_slopes,  # [P, 3]
    grad_features,  # [N, W, V] written
    slope_features,  # [N, W, V] written, or empty: D (gate * d), the jacobian's factor
    chunk_sums,  # [C, gradient_length] written
):
    """Write the gradients of chunks ``first_chunk``, ``first_chunk + chunk_step``, ...

    With u = f * grad_raw + grad_slopes J, the gradient of D is the outer product of u and gate * d, and that of d is
    gate * (u D). This includes the second-order terms of a loss on normals.
    """
    width, hidden = density_hidden.shape
    num_points, area = len(grad_raw), width * hidden * LANES
    with_colour, with_slopes = grad_logits.shape[1] > 0, len(slope_features) > 0
    flat_features, flat_jacobian = features.reshape(-1), jacobian.reshape(-1)
    flat_gradients, flat_slopes = grad_features.reshape(-1), slope_features.reshape(-1)
    flat_grad_slopes = grad_slopes.reshape(-1)
    gates, units = np.empty(hidden * LANES, np.float32), np.empty(hidden * LANES, np.float32)
    mixed, lanes = np.empty(width * LANES, np.float32), np.empty(LANES, np.float32)
    sums = np.empty(chunk_sums.shape[1] * LANES, np.float32)
    density_sums, out_sums = sums[:area], sums[area : area + hidden * LANES]
    albedo_sums = sums[area + hidden * LANES : 2 * area + hidden * LANES]
    colour_sums = sums[2 * area + hidden * LANES :]
    for chunk in range(first_chunk, len(chunk_sums), chunk_step):
        sums[:] = np.float32(0.0)
        last = min((chunk + 1) * CHUNK, num_points)
        for start in range(chunk * CHUNK, last, LANES):
            count, base = min(LANES, last - start), start * width
            own = _gather(grad_raw, start, 1, count, lanes)
            _open_gates(flat_features, base, density_hidden, density_out, gates, units)
            for w in range(width):
                store(mixed, w * LANES, own * load(flat_features, base + w * LANES))
            if with_slopes:
                for axis in range(3):
                    along = _gather(flat_grad_slopes, 3 * start + axis, 3, count, lanes)
                    place = 3 * base + axis * width * LANES
                    for w in range(width):
                        change = along * load(flat_jacobian, place + w * LANES)
                        store(mixed, w * LANES, load(mixed, w * LANES) + change)
            for k in range(0, hidden, 4):
                changes = _hidden(mixed, 0, density_hidden, k)
                for i in range(4):
                    place = (k + i) * LANES
                    store(out_sums, place, load(out_sums, place) + load(units, place) * changes[i])
            _add_outer(mixed, 0, gates, density_sums, width, hidden)
            for w in range(width):
                slope = _back_to_feature(gates, density_hidden, w)
                store(flat_gradients, base + w * LANES, own * slope)
                if with_slopes:
                    store(flat_slopes, base + w * LANES, slope)
            if with_colour:
                red = _gather(grad_logits[0], start, 1, count, lanes)
                green = _gather(grad_logits[1], start, 1, count, lanes)
                blue = _gather(grad_logits[2], start, 1, count, lanes)
                for k in range(0, hidden, 4):
                    values = _hidden(flat_features, base, albedo_hidden, k)
                    for i in range(4):
                        unit, n = maximum(values[i], broadcast(0.0)), k + i
                        place = 3 * n * LANES
                        store(colour_sums, place, load(colour_sums, place) + unit * red)
                        store(colour_sums, place + LANES, load(colour_sums, place + LANES) + unit * green)
                        store(colour_sums, place + 2 * LANES, load(colour_sums, place + 2 * LANES) + unit * blue)
                        change = red * albedo_out[n, 0] + green * albedo_out[n, 1] + blue * albedo_out[n, 2]
                        store(units, n * LANES, select(values[i] > 0.0, change, 0.0))
                _add_outer(flat_features, base, units, albedo_sums, width, hidden)
                for w in range(width):
                    place = base + w * LANES
                    change = _back_to_feature(units, albedo_hidden, w)
                    store(flat_gradients, place, load(flat_gradients, place) + change)
        for number in range(chunk_sums.shape[1]):
            total = np.float32(0.0)
            for lane in range(LANES):
                total += sums[number * LANES + lane]
            chunk_sums[chunk, number] = total
