"""Rendering of any field along rays: samples in occupied cells, what light reaches of them, and their blend.

Letters: B views, H W pixels, R rays, P samples, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, Rays, camera_rays
from sdi_gs.contracts import RenderOutput
from sdi_gs.errors import UserError
from sdi_gs.representations.ngp.backends import Backend
from sdi_gs.representations.ngp.compositing import composite, visible
from sdi_gs.representations.ngp.marching import Samples, march
from sdi_gs.row_groups import recomputed, row_groups

SMALLEST_IMAGE = 16
"""Smallest side of an image in pixels."""
RAYS_AT_ONCE = 2**15
"""Rays rendered at a time without gradients: a bound on memory."""
POINTS_AT_ONCE = 2**21
"""Points whose density is evaluated at a time while samples are chosen: a bound on memory."""


@dataclass(frozen=True, kw_only=True)
class FieldValues:
    """Values of a field at P points."""

    density: Tensor  # [P] per scene unit
    albedo: Tensor  # [P, 3] in (0, 1)
    normals: Tensor | None  # [P, 3] world, unit, towards falling density


@dataclass(frozen=True, kw_only=True)
class FieldRender(RenderOutput):
    """A render with the tensors that the regularisers need."""

    z_variance: Tensor  # [B, H, W, 1] of the distance along the ray, square scene units
    normals: Tensor | None  # [B, H, W, 3] world, sums of weight times unit normal
    sample_weights: Tensor  # [P]
    sample_normals: Tensor | None  # [P, 3] world, unit
    sample_directions: Tensor  # [P, 3] world, unit, of their rays


ValuesAt = Callable[[Tensor, Tensor], FieldValues]
"""Evaluate a field at points [P, 3] seen along unit directions [P, 3]."""
Shade = Callable[[FieldValues, Tensor, Tensor], Tensor]
"""Return the colours [P, 3] of values at points [P, 3] in views [P]."""


class Sampling(Protocol):
    """Settings of the samples along rays."""

    @property
    def radius(self) -> float:
        """Half the side of the cube, scene units."""
        ...

    @property
    def step_length(self) -> float:
        """Distance between samples of a ray, scene units."""
        ...

    @property
    def empty_alpha(self) -> float:
        """Samples with less opacity per step are skipped."""
        ...


@dataclass(frozen=True, kw_only=True)
class FieldRenderer:
    """What rendering needs of a field."""

    sampling: Sampling
    """How far samples are apart, and which are skipped."""
    occupied: Tensor  # [G, G, G] bool, cells worth sampling
    density_of: Callable[[Tensor], Tensor]
    """Return the density [P] at points [P, 3]."""
    values_at: ValuesAt
    """Return all values at points."""
    backend: Backend | None = None
    """Code that marches and blends; None to choose by device."""
    shade: Shade | None = None
    """Lights the colours; None shows them as they are."""

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 1 or H W, 3]
        *,
        generator: torch.Generator | None,
        rays_at_once: int = 0,
    ) -> FieldRender:
        """Render with samples jittered by the generator, or at fixed places without one.

        The tensors kept for the backward pass are those of at most ``rays_at_once`` rays at a time (0: all). Raises
        UserError for images below 16 pixels.
        """
        if min(cameras.width, cameras.height) < SMALLEST_IMAGE:
            raise UserError(
                f"images of {cameras.width}x{cameras.height} pixels are too small for a field: "
                f"use at least {SMALLEST_IMAGE}x{SMALLEST_IMAGE}"
            )
        shape = (len(cameras), cameras.height, cameras.width)
        rays = camera_rays(cameras)
        if generator is None:
            offsets = rays.cosines.new_full((len(rays),), 0.5)
        else:
            offsets = torch.rand(len(rays), generator=generator, device=self.occupied.device)
        groups = row_groups(len(rays), rays_at_once if torch.is_grad_enabled() else RAYS_AT_ONCE)
        trace = self._trace if len(groups) == 1 else partial(recomputed, self._trace)
        parts = [
            trace(
                rays_of_group := rays.part(group.start, group.stop),
                # Not recomputed: most of a group's work is to find its few visible samples.
                self.find_visible(rays_of_group, offsets[group]),
                views=torch.arange(group.start, group.stop, device=offsets.device) // (shape[1] * shape[2]),
            )
            for group in groups
        ]
        sums, opacity = torch.cat([part.sums for part in parts]), torch.cat([part.opacity for part in parts])
        colour = sums[:, :3].unflatten(0, (len(cameras), -1))
        rgb = colour + (1.0 - opacity.unflatten(0, (len(cameras), -1)))[..., None] * background
        share = opacity.clamp_min(1e-6)
        mean = sums[:, 3] / share
        # Sums are relative to the distance of the world's origin, where float32 is finest.
        depth = rays.cosines * (sums[:, 3] + opacity * rays.origins.norm(dim=-1)) / share
        return FieldRender(
            rgb=rgb.reshape(*shape, 3),
            alpha=opacity.reshape(*shape, 1),
            depth=depth.reshape(*shape, 1),
            z_variance=(sums[:, 4] / share - mean.square()).clamp_min(0.0).reshape(*shape, 1),
            normals=sums[:, 5:].reshape(*shape, 3) if sums.shape[1] > 5 else None,
            sample_weights=torch.cat([part.weights for part in parts]),
            sample_normals=_cat_or_none([part.normals for part in parts]),
            sample_directions=torch.cat([part.directions for part in parts]),
        )

    def _trace(
        self,
        rays: Rays,  # R of them
        samples: Samples,  # P of them
        *,
        views: Tensor,  # [R] which camera a ray belongs to
    ) -> _RayValues:
        """Evaluate the field at visible samples, and blend."""
        directions = rays.directions[samples.ray_ids]
        values = self.values_at(samples.points, directions)
        colour = values.albedo
        if self.shade is not None:
            colour = self.shade(values, samples.points, views[samples.ray_ids])
        behind_origin = (samples.distances - rays.origins.norm(dim=-1)[samples.ray_ids])[:, None]
        channels = [colour, behind_origin, behind_origin.square()]
        if values.normals is not None:
            channels.append(values.normals)
        blended = composite(values.density, torch.cat(channels, dim=-1), samples, backend=self.backend)
        return _RayValues(
            sums=blended.sums,
            opacity=blended.opacity,
            weights=blended.weights,
            normals=values.normals,
            directions=directions,
        )

    @torch.no_grad()
    def find_visible(self, rays: Rays, offsets: Tensor) -> Samples:
        """Return samples in occupied cells that absorb some light and that light reaches."""
        sampling, backend = self.sampling, self.backend
        samples = march(
            rays, self.occupied, sampling.radius, step=sampling.step_length, offsets=offsets, backend=backend
        )
        density = torch.cat([self.density_of(points) for points in samples.points.split(POINTS_AT_ONCE)])
        return samples.keep(visible(density, samples, sampling.empty_alpha, backend=backend))


@dataclass(frozen=True, kw_only=True)
class _RayValues:
    """Blended values of rays."""

    sums: Tensor  # [R, C] rgb, distance and its square less the origin's, normals
    opacity: Tensor  # [R]
    weights: Tensor  # [P]
    normals: Tensor | None  # [P, 3]
    directions: Tensor  # [P, 3]


def _cat_or_none(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
