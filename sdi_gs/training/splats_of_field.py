"""Splats in place of a field: Gaussians on its surface, fitted to its own renders.

Letters: V views, B of them in a step, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.errors import UserError
from sdi_gs.pictures.framing import Framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import Gaussians, gaussian_optimizers, set_learning_rates
from sdi_gs.representations.optimizers import take_step
from sdi_gs.representations.surface_sampling import surface_gaussians
from sdi_gs.settings.gaussians import GaussiansConfig

VIEWS, VIEWS_PER_STEP, VIEW_SIZE = 48, 4, 128
"""Views that the fit compares, of them in a step, and their side in pixels."""
CALIBRATION_VIEWS, HELD_OUT_VIEWS, RING_ELEVATION_DEG = 8, 12, 15.0
"""Rings of views that the sampling is calibrated with, and that the result is measured on."""
RATES = GaussiansConfig(
    means_lr=1e-3, means_lr_final=1e-4, scales_lr_final=1e-3, opacities_lr_final=5e-3, sh0_lr=1e-2, sh0_lr_final=1e-3
)
"""Learning rates of the fit; it starts close to its end."""


@dataclass(frozen=True, kw_only=True)
class FieldFit:
    """Gaussians that look like a field."""

    gaussians: Gaussians
    sampled_psnr: float
    """dB, of the Gaussians that were sampled, before the fit; over held-out views against the field's renders."""
    psnr: float
    """The same after the fit."""
    steps: int

    def line(self) -> str:
        """Return the fit as a part of a line."""
        fitted = f"{self.psnr:.1f} dB after {self.steps} steps of fitting" if self.steps else "not fitted"
        return f"sampled on the surface at {self.sampled_psnr:.1f} dB of PSNR against its renders, {fitted}"


def splats_of_field(
    representation: Representation,
    framing: Framing,
    *,
    count: int,
    steps: int,
    seed: int,
    after_step: Callable[[int], None] | None = None,
) -> FieldFit:
    """Return ``count`` Gaussians fitted to a field's renders by ``steps`` steps of Adam on the squared error.

    The same arguments give the same bits on a CPU. ``after_step`` gets the number of finished steps.

    Raises UserError for a representation without a density, and for a field that is nearly empty.
    """
    field = representation.density()
    if field is None:
        raise UserError(
            f"cannot make splats: {representation.describe()} has neither splats nor a density to sample them from; "
            "render it instead"
        )
    device = representation.device
    sampled = surface_gaussians(
        field.density_of,
        field.albedo_of,
        lambda cameras, background: representation.render(cameras, background).rgb.detach(),
        framing.ring(CALIBRATION_VIEWS, VIEW_SIZE, elevation_deg=RING_ELEVATION_DEG).to(device),
        count=count,
        radius=field.box.radius,
        generator=torch.Generator(device).manual_seed(seed),
    )
    gaussians = Gaussians(sampled.params)
    held_out = framing.ring(HELD_OUT_VIEWS, VIEW_SIZE, elevation_deg=RING_ELEVATION_DEG)
    wanted = render_views(representation, held_out).rgb
    before = psnr_of(gaussians, held_out, wanted)
    if steps:
        views = framing.all_around(VIEWS, VIEW_SIZE)
        fit(gaussians, views, render_views(representation, views, (0.0, 0.0, 0.0)), steps, seed, after_step)
    after = psnr_of(gaussians, held_out, wanted) if steps else before
    return FieldFit(gaussians=gaussians, sampled_psnr=before, psnr=after, steps=steps)


def fit(
    gaussians: Gaussians,
    views: CameraBatch,  # V of them
    wanted: RenderOutput,  # V pictures over black
    steps: int,
    seed: int,
    after_step: Callable[[int], None] | None,
) -> None:
    """Move the Gaussians so that they look like the pictures, over black and over white; none is added or removed."""
    generator, device = torch.Generator().manual_seed(seed), gaussians.device
    optimizers = gaussian_optimizers(gaussians, RATES)
    for step in range(steps):
        set_learning_rates(optimizers, RATES, step / steps)
        chosen = torch.randperm(len(views), generator=generator)[:VIEWS_PER_STEP]
        shade = float(step % 2)
        rendered = gaussians.render(_rows(views, chosen).to(device), torch.full((len(chosen), 3), shade, device=device))
        target = wanted.rgb[chosen] + (1.0 - wanted.alpha[chosen]) * shade
        (rendered.rgb - target.to(device)).square().mean().backward()
        take_step(optimizers)
        if after_step is not None:
            after_step(step + 1)


def _rows(
    views: CameraBatch,
    chosen: Tensor,  # [B] numbers of views
) -> CameraBatch:
    return CameraBatch(
        world_from_camera=views.world_from_camera[chosen],
        intrinsics=views.intrinsics[chosen],
        azimuth_deg=views.azimuth_deg[chosen],
        elevation_deg=views.elevation_deg[chosen],
        width=views.width,
        height=views.height,
    )


def psnr_of(
    gaussians: Representation,
    cameras: CameraBatch,  # V of them
    wanted: Tensor,  # [V, H, W, 3] over white
) -> float:
    """Return the peak signal-to-noise ratio of the renders, dB, over all views together."""
    error = (render_views(gaussians, cameras).rgb - wanted).double().square().mean()
    return -10.0 * math.log10(max(float(error), 1e-12))
