"""Front-to-back blending of the samples of rays in Triton, its gradient, and the samples' visibility; a program a ray.

Nothing is atomic: the same input gives the same bits.

Letters: R rays, P samples, C channels.
"""

# ruff: noqa: N803
# pyright: reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

SAMPLES = 32
"""Samples at a time."""


@triton.jit
def _absorbed(depth):
    """Return 1 - exp(-depth), with all digits for small depths."""
    series = 1.0 - depth / 7.0
    series = 1.0 - depth / 6.0 * series
    series = 1.0 - depth / 5.0 * series
    series = 1.0 - depth / 4.0 * series
    series = 1.0 - depth / 3.0 * series
    series = 1.0 - depth / 2.0 * series
    return tl.where(depth < 0.25, depth * series, 1.0 - tl.exp(-depth))


@triton.jit
def _depths(density, at, start, last, step):
    """Return the optical depths of samples, and those of the samples of the block before each of them, summed."""
    own = tl.load(density + at, mask=at < last, other=0.0) * step
    # Loaded again from one place earlier: a sum less its last term would lose digits behind a dense sample.
    previous = tl.load(density + at - 1, mask=(at > start) & (at < last), other=0.0) * step
    return own, tl.cumsum(previous, axis=0)


@triton.jit
def mark_visible(
    density,  # [P]
    ray_starts,  # [R + 1] int64
    mask,  # [P] uint8 written
    step,
    min_alpha,
    min_transmittance,
    SAMPLES: tl.constexpr,
):
    """Mark the visible samples of a ray: transmittance and alpha reach their minima."""
    first, last = tl.load(ray_starts + tl.program_id(0)), tl.load(ray_starts + tl.program_id(0) + 1)
    before = 0.0
    for block in range((last - first + SAMPLES - 1) // SAMPLES):
        start = first + block * SAMPLES
        at = start + tl.arange(0, SAMPLES)
        own, within = _depths(density, at, start, last, step)
        seen = (tl.exp(-(before + within)) >= min_transmittance) & (_absorbed(own) >= min_alpha)
        tl.store(mask + at, seen.to(tl.uint8), mask=at < last)
        before += tl.sum(own, axis=0)


@triton.jit
def composite(
    density,  # [P]
    values,  # [P, C]
    ray_starts,  # [R + 1] int64
    weights,  # [P] written
    after,  # [P] written, the transmittance behind each sample
    opacity,  # [R] written
    sums,  # [R, C] written
    step,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Blend the samples of a ray."""
    ray, channel = tl.program_id(0), tl.arange(0, WIDE)
    first, last = tl.load(ray_starts + ray), tl.load(ray_starts + ray + 1)
    before, total = 0.0, tl.zeros([WIDE], tl.float32)
    for block in range((last - first + SAMPLES - 1) // SAMPLES):
        start = first + block * SAMPLES
        at = start + tl.arange(0, SAMPLES)
        own, within = _depths(density, at, start, last, step)
        weight = tl.exp(-(before + within)) * _absorbed(own)
        there = (at < last)[:, None] & (channel < CHANNELS)[None, :]
        given = tl.load(values + at[:, None] * CHANNELS + channel[None, :], mask=there, other=0.0)
        total += tl.sum(weight[:, None] * given, axis=0)
        tl.store(weights + at, weight, mask=at < last)
        tl.store(after + at, tl.exp(-(before + within + own)), mask=at < last)
        before += tl.sum(own, axis=0)
    tl.store(opacity + ray, _absorbed(before))
    tl.store(sums + ray * CHANNELS + channel, total, mask=channel < CHANNELS)


@triton.jit
def _worth(values, grad_weights, grad_opacity, by_channel, at, inside, channel, CHANNELS: tl.constexpr):
    """Return the derivatives of the loss by samples' weights."""
    there = inside[:, None] & (channel < CHANNELS)[None, :]
    given = tl.load(values + at[:, None] * CHANNELS + channel[None, :], mask=there, other=0.0)
    return tl.load(grad_weights + at, mask=inside, other=0.0) + grad_opacity + tl.sum(given * by_channel, axis=1)


@triton.jit
def composite_backward(
    values,  # [P, C]
    weights,  # [P]
    after,  # [P]
    ray_starts,  # [R + 1] int64
    grad_weights,  # [P]
    grad_opacity,  # [R]
    grad_sums,  # [R, C]
    grad_density,  # [P] written
    grad_values,  # [P, C] written
    step,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Write the gradients of the samples of a ray, the last block first.

    The derivative by a sample's optical depth is the transmittance after it times its worth, minus the sum of weight
    times worth over the samples behind it.
    """
    ray, channel = tl.program_id(0), tl.arange(0, WIDE)
    first, last = tl.load(ray_starts + ray), tl.load(ray_starts + ray + 1)
    by_opacity = tl.load(grad_opacity + ray)
    by_channel = tl.load(grad_sums + ray * CHANNELS + channel, mask=channel < CHANNELS, other=0.0)[None, :]
    blocks = (last - first + SAMPLES - 1) // SAMPLES
    behind = 0.0
    for block in range(blocks):
        at = first + (blocks - 1 - block) * SAMPLES + tl.arange(0, SAMPLES)
        inside = at < last
        worth = _worth(values, grad_weights, by_opacity, by_channel, at, inside, channel, CHANNELS)
        following = at + 1 < last
        gain = _worth(values, grad_weights, by_opacity, by_channel, at + 1, following, channel, CHANNELS)
        gain = tl.load(weights + at + 1, mask=following, other=0.0) * gain
        passed = tl.load(after + at, mask=inside, other=0.0)
        change = passed * worth - (behind + tl.cumsum(gain, axis=0, reverse=True))
        tl.store(grad_density + at, step * change, mask=inside)
        there = inside[:, None] & (channel < CHANNELS)[None, :]
        shares = tl.load(weights + at, mask=inside, other=0.0)[:, None] * by_channel
        tl.store(grad_values + at[:, None] * CHANNELS + channel[None, :], shares, mask=there)
        behind += tl.sum(gain, axis=0)
