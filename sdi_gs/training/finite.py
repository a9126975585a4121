"""Numbers of a step, read together with the check that all is finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdi_gs.errors import NonFiniteError


def finite_values(
    values: dict[str, Tensor],  # scalars
    watched: dict[str, Tensor],
    *,
    where: str,
) -> dict[str, float]:
    """Return scalars as numbers, in one transfer with a flag for each watched tensor.

    Raises NonFiniteError that names the first broken tensor in the order of computation, after ``where``.
    """
    watched = {name: value.detach() for name, value in watched.items() if value.numel()}
    # The largest magnitude is not finite if one of the numbers is not; it takes one operation a tensor.
    magnitudes = torch._foreach_norm([*watched.values()], math.inf)  # pyright: ignore[reportPrivateImportUsage]
    flags = [magnitude.isfinite() for magnitude in magnitudes]
    numbers = torch.stack([*(value.detach().double() for value in values.values()), *flags]).tolist()
    finite = numbers[len(values) :]
    if not all(finite):
        name = list(watched)[finite.index(0.0)]
        raise NonFiniteError(f"{where}: non-finite {name}; the state before this step is kept")
    return dict(zip(values, numbers, strict=False))
