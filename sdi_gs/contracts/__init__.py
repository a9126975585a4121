"""Data that flows between the parts, and the protocols by which a part can be replaced.

Letters: B cameras or images, H W pixels, C latent channels, h w latent pixels, L tokens, E embedding width,
P points, T diffusion timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.settings.run import RunConfig
from sdi_gs.splats.splat_cloud import SplatCloud

PredictionType = Literal["epsilon", "v_prediction", "sample"]
TimestepSpacing = Literal["leading", "trailing"]


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """Constants of a discrete diffusion process, read from the prior."""

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
    """Images of B cameras."""

    rgb: Tensor  # [B, H, W, 3] composited over the background, [0, 1]
    alpha: Tensor  # [B, H, W, 1] accumulated opacity, [0, 1]
    depth: Tensor | None = None  # [B, H, W, 1] expected z depth, scene units
    meta: dict[str, Any] = field(default_factory=dict)
    """gsplat's meta dict, which densification reads."""


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
    """The images of a round's first step and their denoised targets, for display; without gradients."""

    cameras: CameraBatch
    rgb: Tensor  # [B, H, W, 3] in [0, 1]
    target: Tensor  # [B, C, h, w] the denoised latents; ``DiffusionPrior.decode_latents`` shows them
    timestep: int
    pictures: Tensor | None = None
    """[B, H, W, 3] the decoded target in [0, 1]; None where the run compares latents."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Result of ``Trainer.train_step``."""

    step: int
    timestep: int
    """t of the latest target."""
    losses: dict[str, float]
    num_points: int
    """``Representation.num_points`` after the step."""
    predictor_calls: int
    """0 for a step on targets of earlier steps."""
    num_rounds: int
    """Rounds so far, each with targets of its own; as many as steps without replay."""
    seconds: float


class DiffusionPrior(Protocol):
    """A frozen 2D diffusion model, latent or not.

    Embeddings are plain tensors with a leading batch axis: they can be cached, stacked and interpolated.
    ``prior_extras`` and ``row_groups`` have what a prior may offer besides.
    """

    name: str
    schedule: NoiseSchedule
    image_size: int
    """Side in pixels of the square images that it expects."""
    knows_cameras: bool
    """Whether ``predict_noise`` uses ``cameras``; without, ``guidance.views="cameras"`` is refused."""

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Turn texts into embeddings [B, L, E]; the empty text is the unconditional one."""
        ...

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        generator: torch.Generator,
    ) -> Tensor:
        """Encode to latents [B, C, h, w], differentiably; ``generator`` is for encoders that sample."""
        ...

    def decode_latents(
        self,
        latents: Tensor,  # [B, C, h, w]
    ) -> Tensor:
        """Decode to images [B, H, W, 3] in [0, 1] for display, without gradients."""
        ...

    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        embeddings: Tensor,  # [B, L, E]
        cameras: CameraBatch | None = None,  # V of them, B a multiple of V
    ) -> Tensor:
        """Predict the noise [B, C, h, w] in latents that were noised to ``timestep``.

        ``timestep`` below 0 stands for clean latents; the prior converts its own prediction type to noise.

        ``cameras`` are those of the V views in this call, on the host, with ``guidance.views="cameras"``; None where
        the prompt names the view. Row b is view b % V: the rows are B / V branches of guidance (conditional,
        unconditional, further negatives), each with all V views in order. Every branch gets the cameras, the
        unconditional one too: it stands for any object at that camera. The V views are all of a step's views, of one
        object, unless ``compute.views_at_once`` limits the views of a call; those of a ``GroupedPrior`` are then still
        whole groups.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box along the world's axes, scene units."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box needs low < high on every axis, got {self.low} and {self.high}")

    @property
    def longest_side(self) -> float:
        """Length of its longest edge, scene units."""
        return max(high - low for low, high in zip(self.low, self.high, strict=True))

    @property
    def radius(self) -> float:
        """Distance from the origin to its farthest corner, scene units."""
        farthest = [max(abs(low), abs(high)) for low, high in zip(self.low, self.high, strict=True)]
        return math.sqrt(sum(side**2 for side in farthest))


def cube(half_side: float) -> Box:
    """Return the cube around the origin."""
    return Box(low=(-half_side, -half_side, -half_side), high=(half_side, half_side, half_side))


@dataclass(frozen=True, kw_only=True)
class DensityField:
    """A scene as a medium that absorbs and emits light, the source of meshes and warm starts."""

    density_of: Callable[[Tensor], Tensor]
    """Points [P, 3] in scene units -> density [P] per scene unit, at least 0."""
    albedo_of: Callable[[Tensor], Tensor]
    """Points [P, 3] in scene units -> displayed colour [P, 3] in [0, 1]."""
    box: Box
    """Where the density may be above 0."""
    surface_level: float = 25.0
    """Density at which a mesh's surface lies; the default is threestudio's isosurface threshold for NeRFs."""
    device: torch.device = torch.device("cpu")
    """Where both functions expect their points."""


class Representation(Protocol):
    """A 3D scene as it is rendered, shown and exported."""

    @property
    def device(self) -> torch.device:
        """Device of its tensors."""
        ...

    @property
    def num_points(self) -> int:
        """Number of Gaussians; 0 for a representation without splats."""
        ...

    def describe(self) -> str:
        """Describe it in a few words, such as "6000 Gaussians" or "a field"."""
        ...

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
    ) -> RenderOutput:
        """Render all cameras over their backgrounds, differentiably; ``with_depth`` requires ``RenderOutput.depth``."""
        ...

    def detached_copy(self) -> Representation:
        """Copy it, so that later steps of training do not change the copy."""
        ...

    def splats(self) -> SplatCloud | None:
        """Return the splats that a file would hold, detached and not copied; None for a representation without."""
        ...

    def density(self, *, resolution: int | None = None) -> DensityField | None:
        """Return the scene as a medium; None for a representation that has no density.

        ``resolution`` is the number of points along the box's longest side at which the density will be evaluated;
        details finer than their spacing may be blurred.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class StartScene:
    """Another run's result, from which a scene starts."""

    representation: Representation
    cameras: CameraBatch
    """Views in which the start has to look like ``representation``."""


class Scene(Protocol):
    """The object that a run optimises: a representation with its optimisers, schedules and regularisers.

    The trainer calls ``render``, ``losses``, ``backward``, ``gradients`` and ``update`` in this order in every step;
    ``drop_gradients`` takes the place of ``update`` in a step that failed before the parameters moved.
    """

    @property
    def representation(self) -> Representation:
        """The representation that is rendered, shown and exported."""
        ...

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        progress: float,
        generator: torch.Generator,
    ) -> RenderOutput:
        """Render for training; ``progress`` is the finished share of the run, ``generator`` is on the device."""
        ...

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """Return the scene's own weighted loss terms (scalars) by name."""
        ...

    def backward(self, loss: Tensor, render: RenderOutput, *, step: int) -> None:
        """Compute the gradients of a loss of ``render``; no parameter moves."""
        ...

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients that ``update`` is about to use, by parameter name."""
        ...

    def drop_gradients(self) -> None:
        """Undo a step that failed before ``update``: gradients, and whatever ``render`` changed."""
        ...

    def update(
        self,
        render: RenderOutput,
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
    ) -> None:
        """Move the parameters along the gradients, and grow or prune.

        ``generator`` is on the host. ``timestep_fraction`` is the diffusion timestep over the number of timesteps;
        None without diffusion.
        """
        ...

    def finalize(self) -> None:
        """Finish after the last step of a run."""
        ...

    def update_config(self, config: RunConfig) -> None:
        """Take over settings that changed during the run, such as ``learning_rate_scale``."""
        ...

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dicts of tensors and numbers."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        ...
