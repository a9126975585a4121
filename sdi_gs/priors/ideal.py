"""toybox-ideal: the exact denoiser of the rendered toybox, in closed form and without weights.

The images of a prompt (random proportions, random cameras of its view word or near a given camera) are the centres of
a Gaussian mixture of width s in latent space. For that distribution the optimal noise prediction at level a is known:

    v = a s^2 + 1 - a,   w_j = softmax_j(log p_j - |x - sqrt(a) c_j|^2 / (2 v)),   m = sum_j w_j c_j,
    eps(x) = sqrt(1 - a) (x - sqrt(a) m) / v.

Several views of one object (toybox-ideal-4view) are one point of the mixture of their stacked renders: logits add over
the views, the softmax is shared, and all else stays as it is for a single view.

It is an instrument, not a model of images: it knows its own renders and nothing else. Latents are average-pooled
pixels in [-1, 1].

Letters: B images, H W pixels, C = 3 latent channels, h w latent pixels, M mixture centres, L = 1 token, E embedding
width, V views, G views of a group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord, wrap_degrees
from sdi_gs.errors import UserError
from sdi_gs.priors.camera_windows import TOLERANCE_DEG, CameraWindows, Window
from sdi_gs.priors.ideal_conditions import heard_views, side_cameras
from sdi_gs.priors.ideal_worlds import ALONE, World
from sdi_gs.priors.kept_renders import kept_renders
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.picture_mixture import Mixture, joint_noise, mixture_noise, mixture_of_pictures
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
    The views of a group are of one object, whose turn against the cameras is one as well.
    """

    knows_cameras = True

    def __init__(
        self,
        config: IdealPriorConfig,
        *,
        device: torch.device | str = "cpu",
        world: World = ALONE,
        name: str = "toybox-ideal",
        views_per_group: int = 1,
    ) -> None:
        self.config = config
        self.world = world
        self.name = name
        self.views_per_group = views_per_group
        self.schedule = scaled_linear_schedule()
        self.image_size = config.image_size
        self.device = torch.device(device)
        self._renders: dict[tuple[str | None, ...], tuple[Tensor, Tensor]] = {}
        self._mixtures: dict[tuple[str | None, ...], Mixture] = {}

    @cached_property
    def _windows(self) -> CameraWindows:
        """Return the cameras on all sides."""
        return CameraWindows(self.config, self.views_per_group)

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

        Raises UserError for a camera at an elevation without renders, and for views that are not in whole groups.
        """
        level = self.schedule.alpha_cumprod(timestep)
        flat = noised_latents.flatten(1)
        predicted = torch.empty_like(flat)
        if cameras is not None:
            windows, size = self._windows_of_groups(cameras), self.views_per_group
            named = embeddings[:, 0].cpu()
            for index in range(len(flat) // size):
                group, window = slice(index * size, (index + 1) * size), windows[index % len(windows)]
                mixtures = self._mixtures_near(named[group], window)
                predicted[group] = joint_noise(flat[group], mixtures, level, self.config.component_std)
            return predicted.view_as(noised_latents)
        if self.views_per_group > 1:
            raise UserError(f"{self.name} needs the cameras of its views: use --guidance.views cameras")
        named = embeddings[:, 0].cpu()
        members: dict[tuple[float, ...], list[int]] = {}
        for row, numbers in enumerate(named.tolist()):
            members.setdefault(tuple(numbers), []).append(row)
        for rows in members.values():
            mixture = self._mixture_of(named[rows[0]])
            if len(members) == 1:
                return mixture_noise(flat, mixture, level, self.config.component_std).view_as(noised_latents)
            predicted[rows] = mixture_noise(flat[rows], mixture, level, self.config.component_std)
        return predicted.view_as(noised_latents)

    def _mixture_of(self, embedding: Tensor) -> Mixture:
        """Return the mixture of one embedding [E]: a single rendered set, or several weighted by view."""
        content, named, background = self.world.properties_of(embedding)
        views = heard_views(self.config, named)
        weights: list[tuple[ViewWord, float]] = [
            (word, weight) for word, weight in zip(VIEW_WORDS, views, strict=True) if weight > 0.0
        ]
        mixture = self._mixture(content, tuple(word for word, _ in weights) or (None,), background)
        if len(weights) < 2:
            return mixture
        shares = torch.tensor([math.log(weight) for _, weight in weights], device=self.device)
        return replace(
            mixture, log_weights=mixture.log_weights + shares.repeat_interleave(self.config.renders_per_view)
        )

    def _windows_of_groups(self, cameras: CameraBatch) -> list[Window]:
        """Return the window near the first camera of each group; UserError unless the others stand around it."""
        size = self.views_per_group
        angles = list(zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True))
        for row, (azimuth, elevation) in enumerate(angles):
            first, height = angles[row - row % size]
            off = wrap_degrees(azimuth - first - 360.0 / size * (row % size))
            if max(abs(off), abs(elevation - height)) > TOLERANCE_DEG or len(angles) % size:
                raise UserError(
                    f"{self.name} takes {size} views at equal turns and one elevation together, got azimuths "
                    f"{', '.join(f'{angle:.4g}' for angle, _ in angles)}: set cameras.views_per_group to {size}"
                )
        return [self._windows.near(*angle) for angle in angles[::size]]

    def _mixtures_near(
        self,
        embeddings: Tensor,  # [G, E]
        window: Window,
    ) -> list[Mixture]:
        """Return the mixtures of a group's views, whatever views the embeddings name: row by row one object."""
        mixtures = []
        for embedding, rows in zip(embeddings, self._windows.rows_of_group(window), strict=True):
            content, _, background = self.world.properties_of(embedding)
            around = self._mixture(content, ("all around",), background).rows(rows)
            weights = around.log_weights.masked_fill(window.is_far.to(self.device), -math.inf)
            mixtures.append(replace(around, log_weights=weights))
        return mixtures

    def _mixture(
        self,
        content: _Content,
        sides: tuple[_Side, ...],
        background: BackgroundName | None,
    ) -> Mixture:
        """Return the mixture of a combination of properties, cached, over all backgrounds in turn if none is named.

        Several sides have the same weight; all around are the rows of ``CameraWindows``.
        """
        key = (*content, *sides, background)
        if key not in self._mixtures:
            names = BACKGROUND_NAMES if background is None else (background,)
            palette = torch.tensor([BACKGROUND_COLOURS[name] for name in names], device=self.device)
            mixture = mixture_of_pictures([self._rendered(content, side) for side in sides], palette)
            self._mixtures[key] = mixture.rows(self._windows.order) if sides == ("all around",) else mixture
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
                    count = len(self._windows.cameras)
                case None:
                    count = config.unconditional_renders
                case _:
                    count = config.renders_per_view
            # Pictures of groups are of fewer objects than as many single ones.
            group = () if self.views_per_group == 1 else (self.views_per_group,)
            self._renders[key] = kept_renders(
                config, (*key, *group, count), lambda: self._render(content, view, count), device=self.device
            )
        return self._renders[key]

    def _render(self, content: _Content, view: _Side, count: int) -> tuple[Tensor, Tensor]:
        """Render what ``_rendered`` returns."""
        rng = split_seed("prior", self.config.seed)
        objects = self._windows.groups if view == "all around" else count
        scenes = [self.world.sample(content, rng) for _ in range(objects)] * (count // objects)
        cameras = self._windows.cameras if view == "all around" else side_cameras(self.config, view, count, rng)
        render = render_scenes(scenes, cameras, background=(0.0, 0.0, 0.0))
        return self._pooled(render.rgb), self._pooled(render.alpha)

    def _pooled(
        self,
        images: Tensor,  # [M, H, W, C]
    ) -> Tensor:
        """Return the means over the pooled pixels [M, C, h, w], on the prior's device."""
        return torch.nn.functional.avg_pool2d(images.to(self.device).permute(0, 3, 1, 2), self.config.pool)
