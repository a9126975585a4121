"""Which device a command computes on, and why."""

from __future__ import annotations

import torch

from sdi_gs.doctor.diagnosis import why_no_cuda
from sdi_gs.errors import UserError


def device_reason(device: torch.device, *, asked: bool) -> str:
    """Why a run is on this device, in a few words."""
    if asked:
        return "as asked"
    if device.type == "cuda":
        return f"found {torch.cuda.get_device_name(device)}"
    reason = why_no_cuda()
    return "no CUDA device found" if reason is None else f"no CUDA device can be used ({reason})"


def pick_device(name: str | None) -> torch.device:
    """The named device, or the best one there is; UserError for a name that means nothing or is not there."""
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
