"""Tensors on their way from the host to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on a device, without the host waiting for it.

    A plain copy to CUDA returns only when the device has done all that it was told before. Of ordinary host memory
    torch keeps a copy until it has arrived, so the source may change at once. Copies to the host do wait, since
    their values are about to be read.
    """
    return values.to(device, non_blocking=values.device.type == "cpu" and torch.device(device).type == "cuda")
