"""A ring of independent tiles, each of one of two shades, and its exact denoiser.

The cheapest world in which score distillation has something to lose: nothing is 3D, a view is a window of the ring,
and every tile is an unknown of its own. It is an instrument, not a model of images.

A member of the world is a ring whose tiles have one shade each; data is a member plus noise of deviation s in every
pixel. For a window x noised to level a, whose tile k shows the pixels I_k, the posterior factors over the tiles:

    v = a s^2 + 1 - a,   p(shade | x_I) = softmax_shade(log w_shade - sum_{i in I_k} (x_i - sqrt(a) shade)^2 / (2 v)),
    m_i = sum_shade p(shade | x_I) shade,   eps(x) = sqrt(1 - a) (x - sqrt(a) m) / v.

If the window's place is known only to some pixels, the shifts are averaged with their own posterior, which is the
product of the tiles' evidences.

Letters: B windows, W their pixels, L pixels of the ring, K = L / tile size tiles, P shades, S shifts, R rings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.priors.noise_schedules import scaled_linear_schedule

RING, WINDOW = 96, 48
"""Pixels of the ring and of a view."""
CONTRAST = 0.5
"""The two prompted shades are plus and minus this, in latents of [-1, 1]."""
PROMPT = (0.5, 0.5, 0.0, 0.0, 0.0, 0.0)
"""Weights of the shades: the first two are the prompt's, the unconditional world has all six."""
ANYTHING = (1.0 / 6.0,) * 6
PEAK, HIGHEST_PSNR = 2.0, 60.0
"""Range of the latents, and the dB above which PSNR shows nothing but rounding."""


@dataclass(frozen=True, kw_only=True)
class TileRing:
    """The world as a prior for the product's guidance, which calls nothing but ``predict_noise``.

    An embedding is one token: the first pixel of the window, then the weights of the shades.
    """

    tile_size: int
    """Pixels of a tile; the whole ring for one shade that is shared by all views."""
    view_error: int = 0
    """Pixels by which the denoiser knows a window's place, to either side."""
    offset: float = 0.6
    """The unconditional world has the prompted shades also this much darker and lighter."""
    pixel_std: float = 0.05
    """Deviation s of the data around a member."""
    length: int = RING
    """Pixels of the ring, a multiple of the tile size."""
    window: int = WINDOW
    """Pixels of a view, at most the ring's."""

    name = "tile-ring"
    image_size = 1
    knows_cameras = False
    schedule = scaled_linear_schedule()

    def __post_init__(self) -> None:
        if self.length % self.tile_size or self.window > self.length:
            raise ValueError(f"tiles of {self.tile_size} and windows of {self.window} do not fit {self.length} pixels")

    @property
    def shades(self) -> tuple[float, ...]:
        """Return the P shades, the prompted ones first."""
        return tuple(mean + shade for mean in (0.0, -self.offset, self.offset) for shade in (-CONTRAST, CONTRAST))

    @property
    def tiles(self) -> int:
        """Return the number of tiles."""
        return self.length // self.tile_size

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Raise NotImplementedError: a ring has no texts, ``embed_windows`` stands for them."""
        raise NotImplementedError("a ring has no texts: use embed_windows")

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Raise NotImplementedError: a ring has no images, its windows are latents."""
        raise NotImplementedError("a ring has no images: its windows are latents")

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Raise NotImplementedError: a ring has no images, its windows are latents."""
        raise NotImplementedError("a ring has no images: its windows are latents")

    def embed_windows(
        self,
        first_pixels: Tensor,  # [B]
        weights: Sequence[float],  # P of them
    ) -> Tensor:
        """Return embeddings [B, 1, 1 + P] of windows that may have shades with these weights."""
        rows = torch.tensor(weights).expand(len(first_pixels), -1)
        return torch.cat([first_pixels[:, None].float(), rows], dim=1)[:, None]

    def pixels(
        self,
        first_pixels: Tensor,  # [...]
    ) -> Tensor:
        """Return the ring's pixels [..., W] that windows show."""
        return (first_pixels[..., None] + torch.arange(self.window)) % self.length

    @torch.no_grad()
    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, 1, 1, W]
        timestep: int,
        embeddings: Tensor,  # [B, 1, 1 + P]
        cameras: CameraBatch | None = None,
    ) -> Tensor:
        """Return the exact noise [B, 1, 1, W]; cameras have no meaning here."""
        level = self.schedule.alpha_cumprod(timestep)
        variance = level * self.pixel_std**2 + 1.0 - level
        x = noised_latents[:, 0, 0]
        shades, log_weights = torch.tensor(self.shades, dtype=x.dtype), embeddings[:, 0, 1:].to(x.dtype).log()
        log_likelihood = -(x[..., None] - math.sqrt(level) * shades).square() / (2.0 * variance)
        shifts = torch.arange(-self.view_error, self.view_error + 1)
        tile_of = self.pixels(embeddings[:, 0, 0].long() + shifts[:, None]) // self.tile_size
        means, evidences = _tile_posteriors(log_likelihood, log_weights, tile_of, shades, self.tiles)
        mean = (torch.softmax(evidences, dim=0)[..., None] * means).sum(dim=0)
        return (math.sqrt(1.0 - level) / variance * (x - math.sqrt(level) * mean))[:, None, None]

    def squared_error(
        self,
        rings: Tensor,  # [R, L]
    ) -> Tensor:
        """Return the mean squared distance [R] to the nearest member, turned by up to the views' error."""
        shades = torch.tensor(self.shades[:2], dtype=rings.dtype)
        errors = []
        for shift in range(-self.view_error, self.view_error + 1):
            tiles = torch.roll(rings, shift, dims=1).view(len(rings), self.tiles, self.tile_size)
            by_shade = (tiles[..., None] - shades).square().mean(dim=2)
            errors.append(by_shade.amin(dim=2).mean(dim=1))
        return torch.stack(errors).amin(dim=0)

    def psnr(
        self,
        rings: Tensor,  # [R, L]
    ) -> Tensor:
        """Return the PSNR [R] against the nearest member, in dB, at most ``HIGHEST_PSNR``."""
        return (10.0 * torch.log10(PEAK**2 / self.squared_error(rings))).clamp(max=HIGHEST_PSNR)

    def contrast(
        self,
        rings: Tensor,  # [R, L]
    ) -> Tensor:
        """Return the mean size of the pixels [R] in units of the shades'; a member has 1."""
        return rings.abs().mean(dim=1) / CONTRAST


def _tile_posteriors(
    log_likelihood: Tensor,  # [B, W, P]
    log_weights: Tensor,  # [B, P]
    tile_of: Tensor,  # [S, B, W]
    shades: Tensor,  # [P]
    tiles: int,
) -> tuple[Tensor, Tensor]:
    """Return posterior means of the pixels [S, B, W] and the log evidences of the shifts [S, B]."""
    index = tile_of[..., None].expand(*tile_of.shape, len(shades))
    logits = log_weights[:, None].expand(*tile_of.shape[:2], tiles, -1).clone()
    logits.scatter_add_(2, index, log_likelihood.expand_as(index))
    means = torch.softmax(logits, dim=-1) @ shades
    # A tile that the window does not show adds log 1 to the evidence.
    return means.gather(2, tile_of), torch.logsumexp(logits, dim=-1).sum(dim=2)
