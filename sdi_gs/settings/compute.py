"""How a step is computed and not what it computes: memory and time; free of torch for the command line's sake.

Every field leaves a run's random draws and its target as they are. ``docs/gpu.md`` says what each saves and costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

VaeMode = Literal["whole", "checkpoint"]
Precision = Literal["auto", "float16", "bfloat16", "float32"]
Attention = Literal["sdpa", "plain"]

FEWEST_RAYS, MOST_RAYS = 256, 2**24


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Levers of memory and speed; the results stay the same up to rounding."""

    views_at_once: int = 0
    """Views that are rendered, encoded and guided together, their gradients added up; 0 for all of a step's."""
    rays_at_once: int = 0
    """A field's rays that are traced together, each group once more in the backward pass; 0 for those of all views at
    once. Gaussians have none."""
    branches_at_once: int = 0
    """Branches of the guidance (prompt, no prompt, Perp-Neg's negatives) in one U-Net call; 0 for all."""
    vae: VaeMode = "whole"
    """Whether the encoder keeps its activations for the backward pass or computes them again there (checkpoint)."""
    free_text_encoder: bool = False
    """Move the text encoder to the host's memory once the prompts are embedded; a new prompt fetches it back."""
    precision: Precision = "auto"
    """Type of the U-Net's and the text encoder's weights; auto is float16 on a GPU and float32 elsewhere."""
    attention: Attention = "sdpa"
    """The U-Net's attention: torch's fused kernels, or plain matrix products that hold every score."""
    channels_last: bool = False
    """Keep the U-Net's and the VAE's images in memory pixel by pixel, as tensor cores read them."""
    compile_unet: bool = False
    """Compile the U-Net with torch.compile; the first call of each shape then takes minutes."""
    cache_cross_attention: bool = False
    """Keep the keys and values of the text in each cross-attention for all calls of a step; not when compiled."""
    fused_adam: bool = False
    """Let one kernel update all of a parameter (torch's fused Adam)."""

    def __post_init__(self) -> None:
        for name in ("views_at_once", "branches_at_once"):
            if not 0 <= getattr(self, name) <= 64:
                raise ValueError(f"{name} must be 0 (all) to 64, got {getattr(self, name)}")
        if self.rays_at_once != 0 and not FEWEST_RAYS <= self.rays_at_once <= MOST_RAYS:
            raise ValueError(
                f"rays_at_once must be 0 (all) or {FEWEST_RAYS} to {MOST_RAYS}, got {self.rays_at_once}: fewer would "
                "only wait for each other"
            )
        for name, known in (("vae", VaeMode), ("precision", Precision), ("attention", Attention)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {getattr(self, name)!r}")
        if self.compile_unet and self.cache_cross_attention:
            raise ValueError("compile_unet and cache_cross_attention do not go together: leave one of them out")


def fewest(*at_once: int) -> int:
    """The smallest of some sizes of groups, where 0 stands for all."""
    return min(filter(None, at_once), default=0)
