"""Options of memory and speed: they trade memory for time and leave the results the same up to rounding.

No field changes a run's random draws or its target. ``docs/gpu.md`` lists the memory each saves and the time it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from sdi_gs.settings.bounds import Range, check_settings

VaeMode = Literal["whole", "checkpoint"]
Precision = Literal["auto", "float16", "bfloat16", "float32"]
Attention = Literal["sdpa", "plain"]
UnetEngine = Literal["torch", "openvino"]

_GROUP = Range(1, 64, zero_means="all")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Options of memory and speed; the results stay the same up to rounding."""

    views_at_once: Annotated[int, _GROUP] = 0
    """Views that are rendered, encoded and guided together, their gradients added up; 0 for all views of a step."""
    rays_at_once: Annotated[int, Range(256, 2**24, zero_means="all")] = 0
    """A field's rays that are traced together, and traced again in the backward pass; 0 for the rays of all views at
    once. Gaussians have no rays."""
    branches_at_once: Annotated[int, _GROUP] = 0
    """Branches of the guidance (prompt, no prompt, Perp-Neg's negatives) in one U-Net call; 0 for all."""
    vae: VaeMode = "whole"
    """Whether the encoder keeps its activations for the backward pass (whole) or recomputes them (checkpoint)."""
    free_text_encoder: bool = False
    """Move the text encoder to the host's memory once the prompts are embedded; a new prompt loads it back."""
    precision: Precision = "auto"
    """Type of the U-Net's and the text encoder's weights; auto is float16 on a GPU and float32 elsewhere."""
    attention: Attention = "sdpa"
    """The U-Net's attention: torch's fused kernels, or plain matrix products that store every score."""
    channels_last: bool = False
    """Store the images of the U-Net and the VAE pixel by pixel, the layout that tensor cores read."""
    compile_unet: bool = False
    """Compile the U-Net with torch.compile; the first call of each shape then takes minutes."""
    unet_engine: UnetEngine = "torch"
    """What computes the U-Net: torch, or on a CPU OpenVINO (the extra ``cpu``), which takes seconds to load and then
    computes each call in about 60 % of the time (docs/performance.md)."""
    cache_cross_attention: bool = False
    """Keep the keys and values of the text in each cross-attention for all calls of a step; not when compiled."""
    fused_adam: bool = False
    """Update each parameter with one kernel (torch's fused Adam)."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.compile_unet and self.cache_cross_attention:
            raise ValueError("compile_unet and cache_cross_attention do not go together: leave one of them out")
        if self.unet_engine != "torch" and (self.compile_unet or self.cache_cross_attention):
            other = "compile_unet" if self.compile_unet else "cache_cross_attention"
            raise ValueError(f"unet_engine {self.unet_engine} and {other} do not go together: leave one of them out")


def fewest(*at_once: int) -> int:
    """Return the smallest of some group sizes, where 0 stands for all."""
    return min(filter(None, at_once), default=0)
