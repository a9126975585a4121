"""What the checks compare, and at which size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier, saving_at_least, tier_for

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class CheckSize:
    """How much work each check does."""

    gaussians: int
    """In the scenes that the rasteriser is compared on."""
    image_size: int
    """Side of their pictures, and of the field's, in pixels."""
    growth_steps: int
    """Steps of every densification strategy."""
    growth_image_size: int
    """Side of their pictures in pixels."""
    miniature: bool
    """Whether Stable Diffusion's networks are replaced by narrow ones of the same blocks."""
    warm_up_steps: int
    """Training steps before those that are timed: the first ones compile, allocate and pick kernels."""
    timed_steps: int
    """Training steps and pictures that are timed."""
    throughput: tuple[tuple[int, int], ...]
    """Gaussians and sides in pixels of the pictures that are timed."""


FULL = CheckSize(
    gaussians=5000,
    image_size=256,
    growth_steps=200,
    growth_image_size=64,
    miniature=False,
    warm_up_steps=3,
    timed_steps=5,
    throughput=((20_000, 256), (20_000, 512), (200_000, 512)),
)
"""What a card is given: minutes, most of them in Stable Diffusion in float32."""

DRY_RUN = CheckSize(
    gaussians=250,
    image_size=40,
    growth_steps=60,
    growth_image_size=32,
    miniature=True,
    warm_up_steps=1,
    timed_steps=2,
    throughput=((2000, 64),),
)
"""The same code in seconds, for a CPU."""


@dataclass(frozen=True, kw_only=True)
class CheckSetup:
    """A device under test beside the one that is taken for right, with the settings of the runs that are tried."""

    device: torch.device
    """Where the implementation under test runs."""
    reference: torch.device = CPU
    """Where the one that it is compared with runs."""
    size: CheckSize
    toybox: RunConfig
    """The run of a toybox prior that ``growth``, ``toybox`` and ``cost`` take their settings from."""
    stable_diffusion: RunConfig
    """The run of Stable Diffusion 2.1 that ``precision``, ``cost`` and ``fallback`` take their settings from."""

    def stable_diffusion_on_tier(self) -> tuple[RunConfig, Tier | None]:
        """That run under the tier that a training would get on this card now, and the tier; as it is on a CPU."""
        config = self.stable_diffusion
        if self.device.type != "cuda":
            return config, None
        # A card too small for all of them is tried with the smallest: then it is seen what happens.
        tier = tier_for(torch.cuda.mem_get_info(self.device)[0]) or TIERS[-1]
        return replace(config, compute=saving_at_least(config.compute, tier.compute)), tier


@contextmanager
def full_float32() -> Iterator[None]:
    """Have cuDNN compute float32 as float32: its default, TF32, rounds to ten bits and would drown what is compared."""
    flags = torch.backends.cudnn
    with flags.flags(
        enabled=flags.enabled, benchmark=flags.benchmark, deterministic=flags.deterministic, allow_tf32=False
    ):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
