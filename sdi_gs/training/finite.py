"""Numbers of a step, read together with the check that all is finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from sdi_gs.errors import NonFiniteError


def finite_values(
    values: dict[str, Tensor],  # scalars
    watched: dict[str, Tensor],
    *,
    where: str,
) -> dict[str, float]:
    """Return scalars as numbers, in one transfer with a number for each watched tensor.

    Raises NonFiniteError that names the first broken tensor in the order of computation, after ``where``.
    """
    watched = {name: value.detach() for name, value in watched.items() if value.numel()}
    read = [*(value.detach() for value in values.values()), *_signs([*watched.values()])]
    widest = reduce(torch.promote_types, (value.dtype for value in read))
    # Looked at on the host: it takes several operations a tensor to find out on the device.
    numbers = torch.stack([value.to(widest) for value in read]).tolist()
    for (name, value), sign in zip(watched.items(), numbers[len(values) :], strict=True):
        # A sum of finite numbers may not be.
        if not math.isfinite(sign) and not value.isfinite().all():
            raise NonFiniteError(f"{where}: non-finite {name}; the state before this step is kept")
    return dict(zip(values, numbers, strict=False))


def _signs(tensors: list[Tensor]) -> Sequence[Tensor]:
    """Return a number of each tensor that is not finite if one of its own is not."""
    if tensors and tensors[0].device.type == "cpu":
        # Six times as quick there as the largest magnitude.
        return [tensor.sum() for tensor in tensors]
    # One operation for all tensors.
    return torch._foreach_norm(tensors, math.inf)  # pyright: ignore[reportPrivateImportUsage]
