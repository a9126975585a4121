"""Diffuse shading: a colour, a point light and ambient light, mixed as in the published run.

Letters: B views, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.settings.ngp import ShadingConfig


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """Lighting of each view."""

    lit: Tensor  # [B] bool, whether the lamp shows
    textured: Tensor  # [B] bool, whether colours show
    lamps: Tensor  # [B, 3] world


def draw_lighting(
    config: ShadingConfig,
    cameras: CameraBatch,  # B of them
    progress: float,
    *,
    generator: torch.Generator,
) -> Lighting | None:
    """Draw the lights and materials of training views; None if all show plain albedo."""
    if not config.enabled or progress < config.albedo_only or config.albedo_probability >= 1.0:
        return None
    device, count = cameras.world_from_camera.device, len(cameras)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    lit = uniform(count) >= config.albedo_probability
    textureless = lit & (uniform(count) < config.textureless_probability)
    towards = cameras.world_from_camera[:, :3, 3] + torch.randn((count, 3), generator=generator, device=device)
    low, high = config.lamp_distance
    lamps = F.normalize(towards, dim=-1) * (low + (high - low) * uniform(count, 1))
    return Lighting(lit=lit, textured=~textureless, lamps=lamps)


def shade(
    config: ShadingConfig,
    lighting: Lighting,
    albedo: Tensor,  # [P, 3]
    normals: Tensor,  # [P, 3] unit
    points: Tensor,  # [P, 3] world
    views: Tensor,  # [P] int64, which view a point belongs to
) -> Tensor:  # [P, 3]
    """Multiply the albedo of lit views by ambient and Lambertian light."""
    to_lamp = F.normalize(lighting.lamps[views] - points, dim=-1)
    light = config.ambient + config.diffuse * (normals * to_lamp).sum(dim=-1, keepdim=True).clamp_min(0.0)
    colour = torch.where(lighting.textured[views, None], albedo, 1.0)
    return torch.where(lighting.lit[views, None], colour * light, colour)
