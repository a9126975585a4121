"""Random generators as part of a run's state."""

from __future__ import annotations

import torch
from torch import Tensor

from sdi_gs.errors import UserError


def restore_generator(
    generator: torch.Generator,
    state: Tensor,  # [S] uint8
) -> None:
    """Restore what ``generator.get_state()`` returned; raises UserError for the state of another kind of device."""
    try:
        generator.set_state(state.to("cpu", torch.uint8))
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"the checkpoint's random state does not fit a {generator.device.type} generator: resume on the kind of "
            "device that the run was started on"
        ) from error
