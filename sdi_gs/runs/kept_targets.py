"""Whether the targets that a run keeps fit into the memory of its device."""

from __future__ import annotations

import torch
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.devices import free_bytes
from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.replay import bytes_per_view, most_kept_views

GIB = 2**30
LARGEST_SHARE = 0.5
"""Share of the free memory that kept targets may take; a step and, on a CPU, the copies for a checkpoint need the
rest."""


def require_room(config: RunConfig, prior: DiffusionPrior, *, device: torch.device, resumed: bool = False) -> None:
    """Raise UserError if the targets that a run keeps take more than their share of the device's free memory.

    A round's own targets are part of its first step and not checked.
    """
    kept = most_kept_views(config)
    free = free_bytes(device) if kept > config.views_per_step else None
    if free is None:
        return
    in_pixels = config.losses.space == "pixels"
    each = bytes_per_view(prior.image_size, latent_of(prior, device).numel(), pictures=in_pixels)
    room = int(LARGEST_SHARE * free)
    if kept * each <= room:
        return
    fits = max(room // each, 1)
    latents = ", or losses.space latents" if in_pixels else ""
    fix = f"start a new run with --replay.views {fits} or fewer" if resumed else f"give {fits} or fewer"
    raise UserError(
        f"replay.views {config.replay.views} is too many for this memory: the {kept} targets that the run keeps take "
        f"{kept * each / GIB:.2f} GiB, and {room / GIB:.2f} are for them, half of the free memory of {device}: "
        f"{fix}{latents}"
    )


@torch.no_grad()
def latent_of(prior: DiffusionPrior, device: torch.device) -> Tensor:  # [C, h, w]
    """Return the latents of one image, for their shape and type."""
    image = torch.ones(1, prior.image_size, prior.image_size, 3, device=device)
    return prior.encode_images(image, torch.Generator(device))[0]
