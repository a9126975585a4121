"""The setup of the checks: devices, sizes, and the runs whose settings they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from sdi_gs.runs.predicted_run import predicted_need
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, Tier, saving_at_least, tier_for

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class CheckSize:
    """Amount of work in each check."""

    gaussians: int
    """Number in the rasteriser's scenes."""
    image_size: int
    """Side of the pictures of those scenes and of the field, in pixels."""
    growth_steps: int
    """Steps of each densification strategy."""
    growth_image_size: int
    """Side of the growth check's pictures, in pixels."""
    miniature: bool
    """Whether narrow networks replace Stable Diffusion's."""
    warm_up_steps: int
    """Training steps before the timed ones; the first steps compile, allocate and select kernels."""
    timed_steps: int
    """Timed training steps, and timed renders of each size."""
    throughput: tuple[tuple[int, int], ...]
    """Gaussians and picture sides in pixels of the timed renders."""


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
"""For a card: minutes, most of them for Stable Diffusion in float32."""

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
"""For a CPU: the same code in seconds."""


@dataclass(frozen=True, kw_only=True)
class CheckSetup:
    """The device under test, the reference device, and the runs whose settings the checks take."""

    device: torch.device
    """Device of the implementation under test."""
    reference: torch.device = CPU
    """Device of the reference."""
    size: CheckSize
    toybox: RunConfig
    """A run of a toybox prior, for ``growth``, ``toybox`` and ``cost``."""
    stable_diffusion: RunConfig
    """A run of Stable Diffusion 2.1, for ``precision``, ``cost`` and ``fallback``."""

    def stable_diffusion_on_tier(self) -> tuple[RunConfig, Tier | None]:
        """Return that run with the tier of this card's free memory, and the tier; on a CPU unchanged, and None."""
        config = self.stable_diffusion
        if self.device.type != "cuda":
            return config, None
        # A card too small for every tier is tested with the smallest.
        free = torch.cuda.mem_get_info(self.device)[0]
        tier = tier_for(free, lambda tier: predicted_need(config, tier)) or TIERS[-1]
        return replace(config, compute=saving_at_least(config.compute, tier.compute)), tier


@contextmanager
def full_float32() -> Iterator[None]:
    """Disable TF32 in cuDNN: it rounds float32 to ten bits, more than the differences that are compared."""
    flags = torch.backends.cudnn
    with flags.flags(
        enabled=flags.enabled, benchmark=flags.benchmark, deterministic=flags.deterministic, allow_tf32=False
    ):
        yield


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
