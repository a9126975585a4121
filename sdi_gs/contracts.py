"""What flows between the parts, and the interfaces that let a part be exchanged.

Letters: B cameras or images, H W pixels, C latent channels, h w latent pixels, L tokens, E embedding width,
T diffusion timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.settings.compute import ComputeConfig

PredictionType = Literal["epsilon", "v_prediction", "sample"]
TimestepSpacing = Literal["leading", "trailing"]


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The constants of a discrete diffusion process, read from the prior and never assumed."""

    alphas_cumprod: Tensor  # [T] float64 on CPU, decreasing
    initial_alpha_cumprod: float
    """a of clean latents: alphas_cumprod[0] if SD's ``set_alpha_to_one`` is false, else 1."""
    steps_offset: int = 1
    """Offset of the "leading" timestep grid (1 for Stable Diffusion)."""
    timestep_spacing: TimestepSpacing = "leading"
    """Whether a grid of n steps starts at the offset or ends at T - 1 (arXiv 2305.08891, table 2)."""

    @property
    def num_timesteps(self) -> int:
        """T, 1000 for Stable Diffusion."""
        return len(self.alphas_cumprod)

    def alpha_cumprod(self, timestep: int) -> float:
        """Return a_t; for t below 0, which stands for clean latents, ``initial_alpha_cumprod``."""
        return self.initial_alpha_cumprod if timestep < 0 else float(self.alphas_cumprod[timestep])


@dataclass(frozen=True, kw_only=True)
class RenderOutput:
    """What a representation shows to a batch of cameras."""

    rgb: Tensor  # [B, H, W, 3] composited over the background, [0, 1]
    alpha: Tensor  # [B, H, W, 1] accumulated opacity, [0, 1]
    depth: Tensor | None = None  # [B, H, W, 1] expected z depth, scene units
    meta: dict[str, Any] = field(default_factory=dict)
    """What densification needs from the rasteriser (gsplat's meta dict)."""


@dataclass(frozen=True, kw_only=True)
class GuidanceOutput:
    """The guidance's result for a batch of latents; without gradients."""

    target: Tensor  # [B, C, h, w] the latents to move to (predicted x0)
    noise: Tensor  # [B, C, h, w] kappa, the noise that was added
    predicted_noise: Tensor  # [B, C, h, w] the prior's guided prediction at the noised latents
    noised_latents: Tensor  # [B, C, h, w] the latents with kappa added
    timestep: int
    predictor_calls: int
    """Calls of the guided predictor; all branches count as one call, however ComputeConfig splits it."""


@dataclass(frozen=True, kw_only=True)
class GuidedViews:
    """What a step rendered and what the guidance answered, for looking at; nothing in it carries a gradient."""

    cameras: CameraBatch
    rgb: Tensor  # [B, H, W, 3] in [0, 1]
    target: Tensor  # [B, C, h, w] the denoised latents; ``DiffusionPrior.decode_latents`` shows them
    timestep: int


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One line of the run's log."""

    step: int
    timestep: int
    losses: dict[str, float]
    num_gaussians: int
    predictor_calls: int
    seconds: float


class DiffusionPrior(Protocol):
    """A frozen 2D diffusion model, latent or not.

    Embeddings are plain tensors with a leading batch axis: they can be cached, stacked and interpolated.
    """

    name: str
    schedule: NoiseSchedule
    image_size: int
    """Side in pixels of the square renders it wants."""

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Turn texts into embeddings [B, L, E]; the empty text is the unconditional one."""
        ...

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        generator: torch.Generator,
    ) -> Tensor:
        """Differentiable map to latents [B, C, h, w]; the generator serves encoders that sample."""
        ...

    def decode_latents(
        self,
        latents: Tensor,  # [B, C, h, w]
    ) -> Tensor:
        """Images [B, H, W, 3] in [0, 1] for looking at, without gradient."""
        ...

    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        embeddings: Tensor,  # [B, L, E]
    ) -> Tensor:
        """The noise [B, C, h, w] that the model sees in latents at the level of ``timestep``.

        ``timestep`` may lie below 0 (a clean latent); the prior converts its own prediction type to noise.
        """
        ...


@runtime_checkable
class TunablePrior(Protocol):
    """A prior that has ways of computing to choose from."""

    def configure(self, compute: ComputeConfig) -> None:
        """Compute in these ways from the next call on; what is predicted stays the same up to rounding."""
        ...


class Representation(Protocol):
    """A 3D scene that can be rendered with gradients."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        ...

    def render(
        self,
        cameras: CameraBatch,
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
    ) -> RenderOutput:
        """Render all cameras over their backgrounds."""
        ...
