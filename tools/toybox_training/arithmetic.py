"""Precision of training on a device."""

from __future__ import annotations

import torch
from torch import nn


def half_precision_is_fast() -> bool:
    """Return whether the processor has bfloat16 instructions; without them torch is nine times slower in it."""
    if not hasattr(torch.cpu, "get_capabilities"):
        # Older versions of torch lack the query.
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def fast_arithmetic(device: torch.device) -> torch.autocast:
    """Return a context in bfloat16 if that is faster, else in float32."""
    fast = device.type != "cpu" or half_precision_is_fast()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's weights."""
    return next(network.parameters()).device
