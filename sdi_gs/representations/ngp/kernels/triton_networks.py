"""The two networks over a point's features in Triton, forward and backward; no hidden unit is kept in memory.

    raw = relu(f D) d        logits = relu(f A) a        towards = (gate * d) D^T,  gate = [f D > 0]

``towards`` are the directions among the features along which ``raw`` changes. Products are made of three TF32 ones,
which is as exact as float32. The gradients of the weights are summed by program, in a fixed order.

Imported only where they run, on CUDA; ``TRITON_INTERPRET=1`` runs them on a CPU, as the tests do.

Letters: P points, L levels in use, W = 2 times all levels, K hidden units, B programs.
"""

# ruff: noqa: N803, N806
from __future__ import annotations

import triton
import triton.language as tl

POINTS = 16
"""Points of a block; with more of them registers spill into memory."""
MOST_UNITS = 64
"""Hidden units at a time: a bound on registers."""


@triton.jit
def _features(features, at, inside, w, levels, count):
    """Return the features of points by rows, 0 for levels that are not in use."""
    place = (w // 2)[None, :].to(tl.int64) * (2 * count) + 2 * at[:, None].to(tl.int64) + (w % 2)[None, :]
    return place, inside[:, None] & (w < 2 * levels)[None, :]


@triton.jit
def _layer(weights, w, k, WIDTH: tl.constexpr, HIDDEN: tl.constexpr):
    """Return the places of a hidden layer's weights [W, K], and which there are."""
    return weights + w[:, None] * HIDDEN + k[None, :], (w < WIDTH)[:, None] & (k < HIDDEN)[None, :]


@triton.jit
def _product(left, right):
    return tl.dot(left, right, input_precision="tf32x3")


@triton.jit
def forward(
    features,  # [L, P, 2]
    density_hidden,  # [W, K]
    density_out,  # [K]
    albedo_hidden,  # [W, K]
    albedo_out,  # [K, 3]
    raw,  # [P]
    logits,  # [P, 3] if COLOUR
    towards,  # [L, P, 2] if SLOPES
    count,
    levels,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    WIDE: tl.constexpr,
    UNITS: tl.constexpr,
    POINTS: tl.constexpr,
    COLOUR: tl.constexpr,
    SLOPES: tl.constexpr,
):
    """Write the values of a block of points."""
    at = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside, w = at < count, tl.arange(0, WIDE)
    place, there = _features(features, at, inside, w, levels, count)
    own = tl.load(features + place, mask=there, other=0.0)
    total, along = tl.zeros([POINTS], tl.float32), tl.zeros([POINTS, WIDE], tl.float32)
    red, green, blue = total, total, total
    for first in range(0, HIDDEN, UNITS):
        k = first + tl.arange(0, UNITS)
        used = k < HIDDEN
        weights, known = _layer(density_hidden, w, k, WIDTH, HIDDEN)
        layer = tl.load(weights, mask=known, other=0.0)
        hidden = _product(own, layer)
        gates = tl.where(hidden > 0.0, tl.load(density_out + k, mask=used, other=0.0)[None, :], 0.0)
        total += tl.sum(hidden * gates, axis=1)
        if SLOPES:
            along += _product(gates, tl.trans(layer))
        if COLOUR:
            weights, known = _layer(albedo_hidden, w, k, WIDTH, HIDDEN)
            hidden = tl.maximum(_product(own, tl.load(weights, mask=known, other=0.0)), 0.0)
            red += tl.sum(hidden * tl.load(albedo_out + 3 * k, mask=used, other=0.0)[None, :], axis=1)
            green += tl.sum(hidden * tl.load(albedo_out + 3 * k + 1, mask=used, other=0.0)[None, :], axis=1)
            blue += tl.sum(hidden * tl.load(albedo_out + 3 * k + 2, mask=used, other=0.0)[None, :], axis=1)
    tl.store(raw + at, total, mask=inside)
    if SLOPES:
        tl.store(towards + place, along, mask=there)
    if COLOUR:
        logit = logits + 3 * at.to(tl.int64)
        tl.store(logit, red, mask=inside)
        tl.store(logit + 1, green, mask=inside)
        tl.store(logit + 2, blue, mask=inside)


@triton.jit
def density_backward(
    features,  # [L, P, 2]
    hidden_weights,  # [W, K]
    out,  # [K]
    grad_raw,  # [P]
    grad_towards,  # [L, P, 2] if SLOPES
    grad_features,  # [L, P, 2] written
    towards,  # [L, P, 2] written if SLOPES
    sums,  # [B, W K + K] written, the gradients of both layers
    count,
    levels,
    blocks,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    WIDE: tl.constexpr,
    UNITS: tl.constexpr,
    POINTS: tl.constexpr,
    SLOPES: tl.constexpr,
):
    """Write the gradients of some blocks of points through the density network."""
    w, own_sums = tl.arange(0, WIDE), sums + tl.program_id(0) * (WIDTH * HIDDEN + HIDDEN)
    for first in range(0, HIDDEN, UNITS):
        k = first + tl.arange(0, UNITS)
        weights, known = _layer(hidden_weights, w, k, WIDTH, HIDDEN)
        layer = tl.load(weights, mask=known, other=0.0)
        units = tl.load(out + k, mask=k < HIDDEN, other=0.0)
        by_layer, by_units = tl.zeros([WIDE, UNITS], tl.float32), tl.zeros([UNITS], tl.float32)
        for block in range(blocks):
            at = (tl.program_id(0) * blocks + block) * POINTS + tl.arange(0, POINTS)
            inside = at < count
            place, there = _features(features, at, inside, w, levels, count)
            own = tl.load(features + place, mask=there, other=0.0)
            above = tl.load(grad_raw + at, mask=inside, other=0.0)[:, None]
            # raw and towards share their gates, and both are linear in each layer behind them.
            mixed = own * above
            if SLOPES:
                mixed += tl.load(grad_towards + place, mask=there, other=0.0)
            is_open = _product(own, layer) > 0.0
            gates = tl.where(is_open, units[None, :], 0.0)
            by_units += tl.sum(tl.where(is_open, _product(mixed, layer), 0.0), axis=0)
            by_layer += _product(tl.trans(mixed), gates)
            along = _product(gates, tl.trans(layer))
            change = above * along
            if first > 0:
                change += tl.load(grad_features + place, mask=there, other=0.0)
            tl.store(grad_features + place, change, mask=there)
            if SLOPES:
                if first > 0:
                    along += tl.load(towards + place, mask=there, other=0.0)
                tl.store(towards + place, along, mask=there)
        own_layer, known = _layer(own_sums, w, k, WIDTH, HIDDEN)
        tl.store(own_layer, by_layer, mask=known)
        tl.store(own_sums + WIDTH * HIDDEN + k, by_units, mask=k < HIDDEN)


@triton.jit
def albedo_backward(
    features,  # [L, P, 2]
    hidden_weights,  # [W, K]
    out,  # [K, 3]
    grad_logits,  # [P, 3]
    grad_features,  # [L, P, 2], added to
    sums,  # [B, W K + 3 K] written, the gradients of both layers
    count,
    levels,
    blocks,
    WIDTH: tl.constexpr,
    HIDDEN: tl.constexpr,
    WIDE: tl.constexpr,
    UNITS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Add the gradients of some blocks of points through the albedo network."""
    w, own_sums = tl.arange(0, WIDE), sums + tl.program_id(0) * (WIDTH * HIDDEN + 3 * HIDDEN)
    for first in range(0, HIDDEN, UNITS):
        k = first + tl.arange(0, UNITS)
        used = k < HIDDEN
        weights, known = _layer(hidden_weights, w, k, WIDTH, HIDDEN)
        layer = tl.load(weights, mask=known, other=0.0)
        for_red = tl.load(out + 3 * k, mask=used, other=0.0)[None, :]
        for_green = tl.load(out + 3 * k + 1, mask=used, other=0.0)[None, :]
        for_blue = tl.load(out + 3 * k + 2, mask=used, other=0.0)[None, :]
        by_layer = tl.zeros([WIDE, UNITS], tl.float32)
        by_red, by_green = tl.zeros([UNITS], tl.float32), tl.zeros([UNITS], tl.float32)
        by_blue = tl.zeros([UNITS], tl.float32)
        for block in range(blocks):
            at = (tl.program_id(0) * blocks + block) * POINTS + tl.arange(0, POINTS)
            inside = at < count
            place, there = _features(features, at, inside, w, levels, count)
            own = tl.load(features + place, mask=there, other=0.0)
            above = grad_logits + 3 * at.to(tl.int64)
            red = tl.load(above, mask=inside, other=0.0)[:, None]
            green = tl.load(above + 1, mask=inside, other=0.0)[:, None]
            blue = tl.load(above + 2, mask=inside, other=0.0)[:, None]
            hidden = tl.maximum(_product(own, layer), 0.0)
            by_red += tl.sum(hidden * red, axis=0)
            by_green += tl.sum(hidden * green, axis=0)
            by_blue += tl.sum(hidden * blue, axis=0)
            change = tl.where(hidden > 0.0, red * for_red + green * for_green + blue * for_blue, 0.0)
            by_layer += _product(tl.trans(own), change)
            by_features = tl.load(grad_features + place, mask=there, other=0.0)
            tl.store(grad_features + place, by_features + _product(change, tl.trans(layer)), mask=there)
        own_layer, known = _layer(own_sums, w, k, WIDTH, HIDDEN)
        tl.store(own_layer, by_layer, mask=known)
        own_out = own_sums + WIDTH * HIDDEN + 3 * k
        tl.store(own_out, by_red, mask=used)
        tl.store(own_out + 1, by_green, mask=used)
        tl.store(own_out + 2, by_blue, mask=used)
