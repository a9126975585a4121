"""toybox-ideal: the exact denoiser of the rendered toybox, in closed form and without weights.

The images of a prompt (random proportions, random cameras of its view word or near a given camera) are the centres of
a Gaussian mixture of width s in latent space. For that distribution the optimal noise prediction at level a is known:

    v = a s^2 + 1 - a,   w_j = softmax_j(log p_j - |x - sqrt(a) c_j|^2 / (2 v)),   m = sum_j w_j c_j,
    eps(x) = sqrt(1 - a) (x - sqrt(a) m) / v.

It is an instrument, not a model of images: it knows its own renders and nothing else. Latents are average-pooled
pixels in [-1, 1].

Letters: B images, H W pixels, C = 3 latent channels, h w latent pixels, D = C h w, M mixture centres, L = 1 token,
E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord
from sdi_gs.priors.camera_windows import CameraWindows, Window
from sdi_gs.priors.ideal_conditions import side_cameras
from sdi_gs.priors.ideal_worlds import ALONE, World
from sdi_gs.priors.kept_renders import kept_renders
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES, BackgroundName
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.splits import split_seed

_Side = ViewWord | Literal["all around"] | None
_Content = tuple[str | None, ...]


class IdealPrior:
    """The closed-form prior; mixtures are rendered when a prompt first needs them.

    What prompts and embeddings mean is up to the world: objects alone, or two in a scene (``ideal_worlds``). Mixing two
    embeddings' view weights mixes their distributions.

    A camera takes the place of the view words: the renders that count are those within a window around its azimuth and
    elevation (``camera_windows``), also without a prompt. Its distance and field of view are taken to be the config's.
    """

    name = "toybox-ideal"
    knows_cameras = True

    def __init__(self, config: IdealPriorConfig, *, device: torch.device | str = "cpu", world: World = ALONE) -> None:
        self.config = config
        self.world = world
        self.schedule = scaled_linear_schedule()
        self.image_size = config.image_size
        self.device = torch.device(device)
        self._renders: dict[tuple[str | None, ...], tuple[Tensor, Tensor]] = {}
        self._mixtures: dict[tuple[str | None, ...], Mixture] = {}

    @cached_property
    def _windows(self) -> CameraWindows:
        """Return the cameras on all sides."""
        return CameraWindows(self.config)

    def keep_prompts(self) -> None:
        """Do nothing: renders are always kept."""

    def forget_prompts(self) -> None:
        """Drop the renders of what prompts name; those of the empty text stay."""
        everything = self.world.everything
        self._renders = {key: value for key, value in self._renders.items() if key[: len(everything)] == everything}
        self._mixtures = {key: value for key, value in self._mixtures.items() if key[: len(everything)] == everything}

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings [B, 1, E]; raises UserError for unknown words, and for a text that names no object."""
        return self.world.embed(prompts).to(self.device)

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return pooled pixels in [-1, 1], [B, 3, h, w]; nothing is drawn from the generator."""
        return self._pooled(images) * 2.0 - 1.0

    def decode_latents(
        self,
        latents: Tensor,  # [B, 3, h, w]
    ) -> Tensor:
        """Return images [B, H, W, 3] in [0, 1], each latent pixel repeated."""
        images = torch.nn.functional.interpolate(latents.detach(), scale_factor=self.config.pool)
        return (images * 0.5 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    @torch.no_grad()
    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, 3, h, w]
        timestep: int,
        embeddings: Tensor,  # [B, 1, E]
        cameras: CameraBatch | None = None,  # V of them, B a multiple of V
    ) -> Tensor:
        """Return the exact noise [B, 3, h, w] for the mixture of each embedding, near its camera if there are cameras.

        Raises UserError for a camera at an elevation without renders.
        """
        level = self.schedule.alpha_cumprod(timestep)
        flat = noised_latents.flatten(1)
        predicted = torch.empty_like(flat)
        if cameras is not None:
            angles = list(zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True))
            windows = [self._windows.near(azimuth, elevation) for azimuth, elevation in angles]
            for row, embedding in enumerate(embeddings[:, 0].cpu()):
                mixture = self._mixture_near(embedding, windows[row % len(windows)])
                predicted[row] = mixture_noise(flat[row, None], mixture, level, self.config.component_std)[0]
            return predicted.view_as(noised_latents)
        distinct, members = torch.unique(embeddings.flatten(1), dim=0, return_inverse=True)
        for index, embedding in enumerate(distinct):
            rows = torch.nonzero(members == index).squeeze(1)
            predicted[rows] = mixture_noise(flat[rows], self._mixture_of(embedding), level, self.config.component_std)
        return predicted.view_as(noised_latents)

    def _mixture_of(self, embedding: Tensor) -> Mixture:
        """Return the mixture of one embedding [E]: a single rendered set, or several weighted by view."""
        content, views, background = self.world.properties_of(embedding)
        weights: list[tuple[ViewWord, float]] = [
            (word, weight) for word, weight in zip(VIEW_WORDS, views, strict=True) if weight > 0.0
        ]
        if len(weights) < 2:
            return self._mixture(content, weights[0][0] if weights else None, background)
        parts = [(self._mixture(content, word, background), weight) for word, weight in weights]
        return Mixture(
            centres=torch.cat([part.centres for part, _ in parts]),
            log_weights=torch.cat([part.log_weights + math.log(weight) for part, weight in parts]),
            half_norms=torch.cat([part.half_norms for part, _ in parts]),
        )

    def _mixture_near(self, embedding: Tensor, window: Window) -> Mixture:
        """Return the mixture of one embedding [E] at one camera, whatever views the embedding names."""
        content, _, background = self.world.properties_of(embedding)
        around = self._mixture(content, "all around", background).rows(window.rows)
        return replace(around, log_weights=around.log_weights.masked_fill(window.is_far.to(self.device), -math.inf))

    def _mixture(
        self,
        content: _Content,
        view: _Side,
        background: BackgroundName | None,
    ) -> Mixture:
        """Return the mixture of a combination of properties, cached; all around, in the rows of ``CameraWindows``."""
        key = (*content, view, background)
        if key not in self._mixtures:
            mixture = self._composite(self._rendered(content, view), background)
            self._mixtures[key] = mixture.rows(self._windows.order) if view == "all around" else mixture
        return self._mixtures[key]

    def _rendered(self, content: _Content, view: _Side) -> tuple[Tensor, Tensor]:
        """Return pooled foregrounds over black [M, 3, h, w] and their alpha [M, 1, h, w] in [0, 1], cached.

        Those all around a scene are of the cameras of ``CameraWindows``.
        """
        key = (*content, view)
        if key not in self._renders:
            config = self.config
            match view:
                case "all around":
                    count = config.renders_around
                case None:
                    count = config.unconditional_renders
                case _:
                    count = config.renders_per_view
            self._renders[key] = kept_renders(
                config, (*key, count), lambda: self._render(content, view, count), device=self.device
            )
        return self._renders[key]

    def _render(self, content: _Content, view: _Side, count: int) -> tuple[Tensor, Tensor]:
        """Render what ``_rendered`` returns."""
        rng = split_seed("prior", self.config.seed)
        scenes = [self.world.sample(content, rng) for _ in range(count)]
        cameras = self._windows.cameras if view == "all around" else side_cameras(self.config, view, count, rng)
        render = render_scenes(scenes, cameras, background=(0.0, 0.0, 0.0))
        return self._pooled(render.rgb), self._pooled(render.alpha)

    def _pooled(
        self,
        images: Tensor,  # [M, H, W, C]
    ) -> Tensor:
        """Return the means over the pooled pixels [M, C, h, w], on the prior's device."""
        return torch.nn.functional.avg_pool2d(images.to(self.device).permute(0, 3, 1, 2), self.config.pool)

    def _composite(self, foreground: tuple[Tensor, Tensor], background: BackgroundName | None) -> Mixture:
        """Return the latents of a rendered set over a background; over all backgrounds in turn if none is named."""
        rgb, alpha = foreground
        names = BACKGROUND_NAMES if background is None else (background,)
        palette = torch.tensor([BACKGROUND_COLOURS[name] for name in names], device=self.device)
        turns = torch.arange(len(rgb), device=self.device) % len(names)
        # Pooling is linear, so compositing pooled images is pooling composited ones.
        centres = ((rgb + (1.0 - alpha) * palette[turns][:, :, None, None]) * 2.0 - 1.0).flatten(1)
        return Mixture(
            centres=centres,
            log_weights=torch.full((len(rgb),), -math.log(len(rgb)), device=self.device),
            half_norms=0.5 * centres.square().sum(dim=1),
        )


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Centres of a Gaussian mixture, with values for computing distances to them."""

    centres: Tensor  # [M, D]
    log_weights: Tensor  # [M] up to a constant
    half_norms: Tensor  # [M] 0.5 |c|^2

    def rows(self, chosen: slice | Tensor) -> Mixture:
        """Return the mixture of some centres: views of them for a slice, copies for indices."""
        return Mixture(
            centres=self.centres[chosen], log_weights=self.log_weights[chosen], half_norms=self.half_norms[chosen]
        )


def mixture_noise(
    noised: Tensor,  # [B, D]
    mixture: Mixture,
    level: float,
    component_std: float,
) -> Tensor:
    """Return the optimal noise prediction [B, D] at a level (formula at the top of this file)."""
    variance = level * component_std**2 + 1.0 - level
    root = math.sqrt(level)
    # |x|^2 is common to all centres and cancels in the softmax.
    logits = (root * (noised @ mixture.centres.T) - level * mixture.half_norms) / variance + mixture.log_weights
    mean = torch.softmax(logits, dim=1) @ mixture.centres
    return math.sqrt(1.0 - level) / variance * (noised - root * mean)
