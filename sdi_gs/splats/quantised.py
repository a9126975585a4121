"""What the compressed splat formats share: three parts of a rotation, bytes of opacities, an order in space.

Letters: N splats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.splats.screening import OPACITY_LOGIT_LIMIT

MOST_SPLATS_PER_BYTE = 8
"""Splats of a real object never fit into so little; a few kilobytes of nothing but repetition unpack to gigabytes."""

_MORTON_BITS = 21
"""Of each coordinate, so that three fit into 64 bits."""


def smallest_three(
    quats: np.ndarray,  # [N, 4] of length 1, in the format's order
) -> tuple[np.ndarray, np.ndarray]:
    """Return the index [N] of each quaternion's largest part and the three others [N, 3], the largest made positive."""
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], axis=1) < 0.0, -1.0, 1.0).astype(quats.dtype)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    return largest, sign * np.take_along_axis(quats, others, axis=1)


def from_smallest_three(
    largest: np.ndarray,  # [N] in 0..3
    rest: np.ndarray,  # [N, 3]
) -> np.ndarray:  # [N, 4]
    """Return quaternions, the inverse of ``smallest_three``."""
    quats = np.empty((len(rest), 4), dtype=np.float32)
    others = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])[largest]
    np.put_along_axis(quats, others, rest.astype(np.float32), axis=1)
    length = np.sqrt(np.maximum(0.0, 1.0 - np.square(rest).sum(axis=1)))
    np.put_along_axis(quats, largest[:, None], length[:, None].astype(np.float32), axis=1)
    return quats


def opacity_bytes(
    opacity_logit: Tensor,  # [N]
) -> np.ndarray:  # [N] uint8
    """Return opacities as bytes, 255 for opaque."""
    return (255.0 * torch.sigmoid(opacity_logit)).round().to(torch.uint8).numpy()


def logits_of_bytes(
    opacity: np.ndarray,  # [N] uint8
) -> Tensor:  # [N]
    """Return the logits of opacities in bytes; 0 and 255 have no finite one and get the limit."""
    table = torch.logit(torch.arange(256, dtype=torch.float64) / 255.0)
    return table.clamp(-OPACITY_LOGIT_LIMIT, OPACITY_LOGIT_LIMIT).float()[torch.from_numpy(opacity.astype(np.int64))]


def to_bytes(
    values: np.ndarray,
) -> np.ndarray:
    """Return the nearest bytes of values in [0, 255], or outside, which are moved into it."""
    return np.rint(values).clip(0.0, 255.0).astype(np.uint8)


def morton_order(
    means: np.ndarray,  # [N, 3]
) -> np.ndarray:  # [N]
    """Return an order in which splats that are near each other in space mostly are so in the file (Morton's curve)."""
    low, high = means.min(axis=0), means.max(axis=0)
    steps = np.where(high > low, (2**_MORTON_BITS - 1) / np.maximum(high - low, 1e-30), 0.0)
    code = np.zeros(len(means), dtype=np.uint64)
    for axis in range(3):
        code |= _spread(((means[:, axis] - low[axis]) * steps[axis]).astype(np.uint64)) << np.uint64(axis)
    return code.argsort(kind="stable")


def _spread(
    values: np.ndarray,  # [N] uint64 below 2^21
) -> np.ndarray:
    """Return numbers with two zero bits behind each of their own."""
    masks = (0x1F00000000FFFF, 0x1F0000FF0000FF, 0x100F00F00F00F00F, 0x10C30C30C30C30C3, 0x1249249249249249)
    for shift, mask in zip((32, 16, 8, 4, 2), masks, strict=True):
        values = (values | (values << np.uint64(shift))) & np.uint64(mask)
    return values


def require_real(count: int, size: int, path: Path) -> None:
    """Raise UserError where a file of ``size`` bytes declares more splats than any real one of that size has."""
    if count > MOST_SPLATS_PER_BYTE * size:
        raise UserError(
            f"cannot read {path}: its header says {count} splats, which do not fit into {size} bytes; "
            "the file is damaged or made to fill the memory: copy or export it anew"
        )
