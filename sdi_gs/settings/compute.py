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
FieldKernels = Literal["auto", "triton", "torch"]
CompileMode = Literal["default", "reduce-overhead"]

_GROUP = Range(1, 64, zero_means="all")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Options of memory and speed; the results stay the same up to rounding."""

    views_at_once: Annotated[int, _GROUP] = 0
    """Views that are rendered, encoded and guided together; 0 for all views of a step."""
    rays_at_once: Annotated[int, Range(256, 2**24, zero_means="all")] = 0
    """A field's rays that are traced together, and traced again in the backward pass; 0 for the rays of all views at
    once. Gaussians have no rays."""
    vae_views_at_once: Annotated[int, _GROUP] = 0
    """Views that the VAE encodes or decodes together, each group once more in the backward pass; 0 for as many as
    ``views_at_once``. Most of a step's memory is the VAE's, most of its time the U-Net's."""
    branches_at_once: Annotated[int, _GROUP] = 0
    """Branches of the guidance (prompt, no prompt, Perp-Neg's negatives) in one U-Net call; 0 for all."""
    vae: VaeMode = "whole"
    """Whether the encoder keeps its activations for the backward pass (whole) or recomputes them (checkpoint)."""
    free_text_encoder: bool = False
    """Move the text encoder to the host's memory once the prompts are embedded; a new prompt loads it back."""
    precision: Precision = "auto"
    """Type of the U-Net's and the text encoder's weights; auto is float16 on a GPU and float32 elsewhere. A run whose
    numbers overflow in half precision goes on with the U-Net in float32."""
    vae_precision: Precision = "auto"
    """Type in which the VAE computes; auto is float32. In float16 gradients are scaled by a factor that follows them,
    and a run whose numbers overflow goes on in float32."""
    attention: Attention = "sdpa"
    """The U-Net's attention: torch's fused kernels, or plain matrix products that store every score."""
    channels_last: bool = False
    """Store the images of the U-Net and the VAE pixel by pixel, the layout that tensor cores read."""
    compile_unet: bool = False
    """Compile the U-Net with torch.compile; the first call of each shape then takes minutes."""
    unet_engine: UnetEngine = "torch"
    """What computes the U-Net: torch, or on a CPU OpenVINO (the extra ``cpu``), which takes seconds to load and then
    computes each call in about 60 % of the time (docs/performance.md)."""
    compile_mode: CompileMode = "default"
    """How to compile: reduce-overhead also launches all kernels of a call together."""
    cuda_graphs: bool = False
    """Record the U-Net's kernels once for each shape, and launch them together: for cards faster than their host."""
    field_kernels: FieldKernels = "auto"
    """Code of a field: the fastest kernels that its device has, Triton's for CUDA, or torch operations."""
    cache_cross_attention: bool = False
    """Keep the keys and values of the text in each cross-attention for all calls of a step; not when compiled."""
    fused_adam: bool = False
    """Update each parameter with one kernel (torch's fused Adam)."""

    def __post_init__(self) -> None:
        check_settings(self)
        for left, right in (
            ("compile_unet", "cache_cross_attention"),
            ("cuda_graphs", "cache_cross_attention"),
            ("cuda_graphs", "compile_unet"),
        ):
            if getattr(self, left) and getattr(self, right):
                raise ValueError(f"{left} and {right} do not go together: leave one of them out")
        if self.unet_engine != "torch":
            for other in ("compile_unet", "cache_cross_attention", "cuda_graphs"):
                if getattr(self, other):
                    raise ValueError(
                        f"unet_engine {self.unet_engine} and {other} do not go together: leave one of them out"
                    )
        if self.compile_mode != "default" and not self.compile_unet:
            raise ValueError(f"compile_mode {self.compile_mode} is for a compiled U-Net: add compile_unet")

    @property
    def encoded_at_once(self) -> int:
        """Views that the VAE takes together; 0 for all."""
        return fewest(self.views_at_once, self.vae_views_at_once)


def fewest(*at_once: int) -> int:
    """Return the smallest of some group sizes, where 0 stands for all."""
    return min(filter(None, at_once), default=0)
