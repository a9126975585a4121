"""The precision that networks train in on a device."""

from __future__ import annotations

import torch
from torch import nn


def half_precision_is_fast() -> bool:
    """Whether this processor multiplies bfloat16 itself; without that torch's kernels are nine times slower in it."""
    if not hasattr(torch.cpu, "get_capabilities"):
        # Older versions of torch cannot be asked.
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def fast_arithmetic(device: torch.device) -> torch.autocast:
    """A context in bfloat16 where that is faster, in float32 elsewhere."""
    fast = device.type != "cpu" or half_precision_is_fast()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(network.parameters()).device
