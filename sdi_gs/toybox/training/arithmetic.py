"""The precision that networks train in on this CPU."""

from __future__ import annotations

import torch


def half_precision_is_fast() -> bool:
    """Whether the processor multiplies bfloat16 itself; without that torch's kernels are ten times slower in it."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def fast_arithmetic() -> torch.autocast:
    """A context in bfloat16 where that is faster, in float32 elsewhere."""
    return torch.autocast("cpu", torch.bfloat16, enabled=half_precision_is_fast())
