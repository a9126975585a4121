"""Whether what a run starts with fits into the memory of its device: its Gaussians, and the renders of its prior."""

from __future__ import annotations

import torch

from sdi_gs.devices import free_bytes
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import is_in_closed_form
from sdi_gs.representations.initial_gaussians import kind_of_start
from sdi_gs.settings.compute import fewest
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.captions import style_in

GIB = 2**30
BYTES_PER_GAUSSIAN = {"cuda": 4 * 14 * 4, "cpu": 1400}
"""Of each Gaussian at the start: its 14 numbers with gradients and Adam's averages; on a CPU all that was measured."""
BYTES_PER_PROJECTION = 120
"""Of each Gaussian in each view that is rendered at once, measured."""
BYTES_PER_RENDERED_PIXEL = 32
"""Of colour, opacity, depth and normal."""


def require_memory(config: RunConfig, *, device: torch.device) -> None:
    """Raise UserError if the Gaussians of a run's start, or the renders of its prior, take more than is free."""
    for option, count, each, fix in _needs(config, device):
        free = free_bytes(torch.device("cpu") if option.startswith("ideal_prior") else device)
        if free is not None and count * each > free:
            raise UserError(
                f"{option} {count} is too many for this memory: they take {count * each / GIB:.1f} GiB, and "
                f"{free / GIB:.1f} are free: give {max(free // each, 1)} or fewer{fix}"
            )


def _needs(config: RunConfig, device: torch.device) -> list[tuple[str, int, int, str]]:
    """Return the settings that a start's memory follows from: name, count, bytes of each, and another way out."""
    needs = []
    if config.representation == "gaussians" and kind_of_start(config.gaussians) in ("ball", "shell", "mesh"):
        views = fewest(config.views_per_step, config.compute.views_at_once)
        each = BYTES_PER_GAUSSIAN[device.type] + BYTES_PER_PROJECTION * views
        needs.append(("gaussians.num_initial", config.gaussians.num_initial, each, ""))
    prior = config.ideal_prior
    # Patches of a style have a prior of their own, of one object.
    if is_in_closed_form(config.prior) and style_in(config.prompt) is None:
        each = BYTES_PER_RENDERED_PIXEL * prior.image_size**2
        fix = ", or a smaller ideal_prior.image_size"
        if config.guidance.views == "cameras":
            counts = {"renders_around": prior.renders_around}
            fix = f" by a smaller renders_per_window{fix}"
        else:
            names = ("renders_per_view", "unconditional_renders")
            counts = {name: getattr(prior, name) for name in names}
        needs += [(f"ideal_prior.{name}", count, each, fix) for name, count in counts.items()]
    return needs
