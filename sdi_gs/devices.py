"""The device that a command computes on, the reason for it, and its free memory."""

from __future__ import annotations

import torch

from sdi_gs.errors import UserError
from sdi_gs.gsplat_build.remedies import card_problems
from sdi_gs.gsplat_build.toolchain import (
    card_on_bus,
    driver_cuda_version,
    examine_toolchain,
    free_memory_gib,
)

_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate")
"""Texts of torch's errors where memory ran out."""


def device_reason(device: torch.device, *, asked: bool) -> str:
    """Return in a few words why a run is on this device; ``asked`` if the user named it."""
    if asked:
        return "as asked"
    if device.type == "cuda":
        return f"found {torch.cuda.get_device_name(device)}"
    reason = why_no_cuda()
    return "no CUDA device found" if reason is None else f"no CUDA device can be used ({reason})"


def pick_device(name: str | None) -> torch.device:
    """Return the named device, or cuda if torch finds a card, else cpu.

    Raises UserError for an unknown or unsupported name and for a card that torch does not find.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} means nothing: use cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported: use cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        reason = why_no_cuda() if torch.cuda.device_count() == 0 else None
        raise UserError(
            f"device {name!r} is not there, torch finds {torch.cuda.device_count()} CUDA devices: "
            + (reason or "use --device cpu, or see sdi-gs doctor")
        )
    return device


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that new tensors on a device can take; None if that is unknown."""
    if device.type == "cuda":
        # Including what torch's allocator holds for reuse.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return int(free_memory_gib() * 2**30) or None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a card or on the host."""
    # torch raises a RuntimeError for the host's memory and for that of CUDA's libraries, told apart by its text alone.
    text = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in _NO_MEMORY)


def why_no_cuda() -> str | None:
    """Return why torch cannot use this machine's card, with the fix; None if there is no card.

    A machine without a card is recognised at once, without examining the toolchain.
    """
    if not card_on_bus() and driver_cuda_version() is None:
        return None
    problems = card_problems(examine_toolchain())
    return f"{problems[0].what}: {problems[0].fix}" if problems else None
