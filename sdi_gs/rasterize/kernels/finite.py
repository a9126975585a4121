"""Whether an array holds numbers alone."""

from __future__ import annotations

import numpy as np

from sdi_gs.rasterize.kernels.jit import kernel
from sdi_gs.rasterize.kernels.simd import LANES, any_lane, is_number, load


@kernel
def all_finite(
    values,  # Contiguous float32 of any shape.
):
    """Return whether no value is NaN or infinity."""
    flat = values.reshape(-1)
    whole = flat.size // LANES * LANES
    bits = flat.view(np.uint32)
    for i in range(whole, flat.size):
        if bits[i] & np.uint32(0x7F800000) == np.uint32(0x7F800000):
            return False
    for i in range(0, whole, LANES):
        if any_lane(~is_number(load(flat, i))):
            return False
    return True
