"""Front-to-back blending of the samples of rays, its gradient, and the samples' visibility.

Letters: R rays, P samples, C channels.
"""

from __future__ import annotations

import math

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


@kernel
def mark_visible(
    begin,
    end,
    density,  # [P]
    ray_starts,  # [R + 1]
    step,
    min_alpha,
    min_transmittance,
    mask,  # [P] uint8 written
):
    """Mark the visible samples of rays ``begin`` to ``end``: transmittance and alpha reach their minima."""
    for ray in range(begin, end):
        depth = _ZERO
        for sample in range(ray_starts[ray], ray_starts[ray + 1]):
            own = density[sample] * step
            reached = math.exp(-depth) >= min_transmittance
            mask[sample] = reached and -math.expm1(-own) >= min_alpha
            depth += own


@kernel
def composite(
    begin,
    end,
    density,  # [P]
    values,  # [P, C]
    ray_starts,  # [R + 1]
    step,
    weights,  # [P] written
    opacity,  # [R] written
    sums,  # [R, C] written
):
    """Blend the samples of rays ``begin`` to ``end``."""
    for ray in range(begin, end):
        for channel in range(values.shape[1]):
            sums[ray, channel] = _ZERO
        transmittance, depth = _ONE, _ZERO
        for sample in range(ray_starts[ray], ray_starts[ray + 1]):
            own = density[sample] * step
            weight = transmittance * -math.expm1(-own)
            depth += own
            transmittance = math.exp(-depth)
            weights[sample] = weight
            for channel in range(values.shape[1]):
                sums[ray, channel] += weight * values[sample, channel]
        opacity[ray] = -math.expm1(-depth)


@kernel
def composite_backward(
    begin,
    end,
    density,  # [P]
    values,  # [P, C]
    weights,  # [P]
    ray_starts,  # [R + 1]
    step,
    grad_weights,  # [P]
    grad_opacity,  # [R]
    grad_sums,  # [R, C]
    grad_density,  # [P] written
    grad_values,  # [P, C] written
):
    """Write the gradients of the samples of rays ``begin`` to ``end``.

    With the worth of a sample the loss's derivative by its weight, the derivative by its optical depth is the
    transmittance after it times its worth, minus the sum of weight times worth over the samples behind it.
    """
    for ray in range(begin, end):
        first, last = ray_starts[ray], ray_starts[ray + 1]
        depth = _ZERO
        for sample in range(first, last):
            depth += density[sample] * step
            # Stored for the backward walk: subtracting from the sum again would cancel digits behind a dense object.
            grad_density[sample] = math.exp(-depth)
        behind = _ZERO
        for sample in range(last - 1, first - 1, -1):
            weight = weights[sample]
            worth = grad_weights[sample] + grad_opacity[ray]
            for channel in range(values.shape[1]):
                worth += grad_sums[ray, channel] * values[sample, channel]
                grad_values[sample, channel] = weight * grad_sums[ray, channel]
            grad_density[sample] = step * (grad_density[sample] * worth - behind)
            behind += weight * worth
