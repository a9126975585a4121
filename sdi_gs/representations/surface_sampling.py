"""Gaussians on the surface of a density field, such as a NeRF: the warm start of a splat run.

Random straight lines, uniform over all lines through the scene, are traced through the field; a flat Gaussian is put
where a line is absorbed. Lines hit a surface in proportion to its area and exposure, so hidden surfaces get none.

Letters: P points, R rays, S samples along a ray, N Gaussians, B cameras, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.errors import UserError
from sdi_gs.representations.gaussian_density import gaussian_density
from sdi_gs.representations.gaussians import SH_C0, Gaussians
from sdi_gs.representations.neighbours import neighbour_distances

NEIGHBOURS = 8
"""Neighbours whose mean distance is a Gaussian's width, before calibration; 3 would show random clumps."""
FLATTEST = 0.15
"""Least ratio of a Gaussian's thickness to its width; thinner ones vanish when seen from the side."""
MAX_OPACITY = 0.99
CALIBRATION_ROUNDS = 4
RAYS_AT_ONCE = 4096
MAX_RAYS_PER_GAUSSIAN = 200
"""Rays per Gaussian after which the field counts as empty: fewer than one ray in 200 hits it."""

FACTORS: dict[str, tuple[float, ...]] = {
    "width": (0.5, 0.7, 1.0, 1.4),
    "optical": (0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0),
    "inset": (0.0, 0.2, 0.4, 0.6, 0.8),
}
"""Values that calibration tries: factors on all widths and on all optical depths, and how far Gaussians are moved
inwards, in widths, since a Gaussian at a silhouette's edge reaches beyond it."""

DensityOf = Callable[[Tensor], Tensor]  # [P, 3] scene units -> [P] per scene unit, at least 0
AlbedoOf = Callable[[Tensor], Tensor]  # [P, 3] scene units -> [P, 3] in [0, 1]
RenderOf = Callable[[CameraBatch, Tensor], Tensor]  # cameras, backgrounds [B, 3] -> [B, H, W, 3] in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Points at which rays were absorbed."""

    points: Tensor  # [N, 3] scene units
    directions: Tensor  # [N, 3] unit, along the ray
    spreads: Tensor  # [N] standard deviation of the ray's depth of absorption, scene units


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Gaussians that look like a field, and how close they come."""

    params: dict[str, Tensor]
    """Raw values for ``Gaussians``, on the generator's device."""
    mse: float
    """Mean squared error of their render against the field's own over the calibration views."""
    factors: dict[str, float]
    """Chosen factors, by the names in ``FACTORS``."""


@torch.no_grad()
def surface_gaussians(
    density_of: DensityOf,
    albedo_of: AlbedoOf,
    render_of: RenderOf,
    cameras: CameraBatch,
    *,
    count: int,
    radius: float,
    samples_per_ray: int = 128,
    generator: torch.Generator,
) -> WarmStart:
    """Return ``count`` Gaussians that look like a field within ``radius`` of the origin.

    Centres are drawn by absorption along random lines and coloured by the albedo there. Each Gaussian lies flat across
    the density's gradient, as wide as its neighbours are far and as thick as the field is soft. Opacities follow from
    the field's density, shared among the Gaussians that overlap. Factors on all widths, on all optical depths and on
    the positions are then chosen so that the render is nearest to the field's own over ``cameras``.

    Raises UserError if the rays hit next to nothing, or if ``count`` is too small for neighbours.
    """
    if count <= NEIGHBOURS:
        raise UserError(
            f"{count} Gaussians are too few to cover a surface: give more than {NEIGHBOURS} (--gaussians.num-initial)"
        )
    hits = _hits(density_of, count, radius, samples_per_ray, generator)
    spacing = neighbour_distances(hits.points, NEIGHBOURS).mean(dim=-1)
    # Coinciding points would have no width.
    spacing = spacing.clamp_min(0.1 * float(spacing.median()))
    normals = _normals(density_of, hits, 0.5 * spacing)
    albedo = albedo_of(hits.points).clamp(0.0, 1.0)
    density = density_of(hits.points)
    softness = hits.spreads * (normals * hits.directions).sum(dim=-1).abs()
    quats = _quats_along_z(normals)

    def params_for(factors: dict[str, float]) -> dict[str, Tensor]:
        widths = factors["width"] * spacing
        thickness = softness.clamp_min(FLATTEST * widths).minimum(widths)
        params = {
            "means": hits.points,
            "scales": torch.stack([widths, widths, thickness], dim=-1).log(),
            "quats": quats,
            "opacities": torch.zeros_like(widths),
            "sh0": (albedo[:, None] - 0.5) / SH_C0,
        }
        depths = factors["optical"] * _shared_density(params, density) * math.sqrt(2.0 * math.pi) * thickness
        return params | {
            "means": hits.points - (factors["inset"] * widths)[:, None] * normals,
            "opacities": torch.logit((-torch.expm1(-depths)).clamp(1e-4, MAX_OPACITY)),
        }

    return _calibrated(params_for, render_of, cameras)


def _hits(
    density_of: DensityOf,
    count: int,
    radius: float,
    samples_per_ray: int,
    generator: torch.Generator,
) -> Hits:
    """Return the first ``count`` absorptions along random lines."""
    found: list[Hits] = []
    have, shot = 0, 0
    while have < count:
        if shot > MAX_RAYS_PER_GAUSSIAN * count:
            raise UserError(
                f"the field is nearly empty: {have} of {shot} rays through the scene met something, "
                f"{count} are needed for the Gaussians; train it for longer"
            )
        hits = _absorptions(density_of, RAYS_AT_ONCE, radius, samples_per_ray, generator)
        found.append(hits)
        have, shot = have + len(hits.points), shot + RAYS_AT_ONCE
    return Hits(
        points=torch.cat([hits.points for hits in found])[:count],
        directions=torch.cat([hits.directions for hits in found])[:count],
        spreads=torch.cat([hits.spreads for hits in found])[:count],
    )


def _absorptions(
    density_of: DensityOf,
    num_rays: int,
    radius: float,
    samples_per_ray: int,
    generator: torch.Generator,
) -> Hits:
    """Return the absorptions of R random lines, uniform over the lines through the ball."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device)

    directions = torch.nn.functional.normalize(
        torch.randn(num_rays, 3, generator=generator, device=generator.device), dim=-1
    )
    aside, across = _perpendicular(directions)
    turn, reach = 2.0 * math.pi * uniform(num_rays, 1), radius * uniform(num_rays, 1).sqrt()
    middles = reach * (turn.cos() * aside + turn.sin() * across)
    half = (radius**2 - reach.square()).clamp_min(0.0).sqrt()
    step = 2.0 * half / samples_per_ray  # [R, 1]
    places = step * (torch.arange(samples_per_ray, device=step.device) + uniform(num_rays, samples_per_ray)) - half
    weights = _weights(density_of, middles, directions, places, step)
    absorbed = weights.sum(dim=1)
    draw = uniform(num_rays)
    hit = draw < absorbed
    middles, directions, step, half = middles[hit], directions[hit], step[hit], half[hit]
    weights, places, absorbed = weights[hit], places[hit], absorbed[hit, None]
    chosen = (weights.cumsum(dim=1) < draw[hit, None]).sum(dim=1, keepdim=True).clamp_max(samples_per_ray - 1)
    # The place within its step, since hard surfaces are thinner than a step.
    parts = 8
    fine = step / parts * (torch.arange(parts, device=step.device) + uniform(len(step), parts)) + chosen * step - half
    fine_weights = _weights(density_of, middles, directions, fine, step / parts)
    found = fine_weights.sum(dim=1, keepdim=True) > 0.0
    finer = fine.gather(1, torch.multinomial(fine_weights + ~found, 1, generator=generator))
    # The finer samples may miss the surface; then the coarse sample is kept.
    places_hit = torch.where(found, finer, places.gather(1, chosen))
    mean = (weights * places).sum(dim=1, keepdim=True) / absorbed
    spreads = ((weights * (places - mean).square()).sum(dim=1) / absorbed[:, 0]).sqrt()
    return Hits(points=middles + places_hit * directions, directions=directions, spreads=spreads)


def _weights(
    density_of: DensityOf,
    middles: Tensor,  # [R, 3]
    directions: Tensor,  # [R, 3]
    places: Tensor,  # [R, S] distances from the middles
    step: Tensor,  # [R, 1] stretch that a sample stands for
) -> Tensor:  # [R, S]
    """Compute the share of each ray that is absorbed at each sample (emission and absorption, front to back)."""
    points = middles[:, None] + places[..., None] * directions[:, None]
    depths = density_of(points.reshape(-1, 3)).reshape(places.shape) * step
    before = depths.cumsum(dim=1) - depths
    return -torch.expm1(-depths) * torch.exp(-before)


def _normals(
    density_of: DensityOf,
    hits: Hits,
    reach: Tensor,  # [N] distance over which the gradient is taken
) -> Tensor:
    """Compute unit directions [N, 3] of falling density; against the ray where the density is constant."""
    axes = torch.eye(3, device=reach.device)
    slopes = [
        density_of(hits.points - reach[:, None] * axis) - density_of(hits.points + reach[:, None] * axis)
        for axis in axes
    ]
    falling = torch.stack(slopes, dim=-1)
    length = falling.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-6, falling / length.clamp_min(1e-6), -hits.directions)


def _perpendicular(
    directions: Tensor,  # [R, 3] unit
) -> tuple[Tensor, Tensor]:
    """Return two unit vectors [R, 3] that form a right-handed frame with each direction as the third."""
    # The axis that the direction has least of is never parallel to it.
    axis = torch.nn.functional.one_hot(directions.abs().argmin(dim=-1), 3).to(directions)
    first = torch.nn.functional.normalize(torch.linalg.cross(axis, directions), dim=-1)
    return first, torch.linalg.cross(directions, first)


def _quats_along_z(
    normals: Tensor,  # [N, 3] unit
) -> Tensor:
    """Return quaternions [N, 4] wxyz of the shortest rotations from z to the normals."""
    x, y, z = normals.unbind(-1)
    # (1 + z, z-axis x normal), which vanishes at -z: there any half turn about a horizontal axis will do.
    quats = torch.stack([1.0 + z, -y, x, torch.zeros_like(x)], dim=-1)
    flipped = torch.tensor([0.0, 1.0, 0.0, 0.0], device=normals.device)
    return torch.nn.functional.normalize(torch.where((z < -1.0 + 1e-6)[:, None], flipped, quats), dim=-1)


def _shared_density(
    params: dict[str, Tensor],
    density: Tensor,  # [N] of the field at the centres
) -> Tensor:
    """Return peak densities [N] whose sum over the Gaussians that overlap at a centre is about the field's there."""
    shapes = gaussian_density(Gaussians(params))
    ones = replace(shapes, peaks=shapes.peaks * 0.0 + 1.0)
    return density / ones.density_of(params["means"]).clamp_min(1.0)


def _calibrated(
    params_for: Callable[[dict[str, float]], dict[str, Tensor]],
    render_of: RenderOf,
    cameras: CameraBatch,
) -> WarmStart:
    """Return the Gaussians whose render is nearest to the field's own, over black and white in turn.

    One factor after the other is searched while the rest stay, until none changes.
    """
    white = torch.arange(len(cameras)) % 2
    background = white[:, None].expand(-1, 3).to(cameras.world_from_camera)
    wanted = render_of(cameras, background)

    def attempt(factors: dict[str, float]) -> WarmStart:
        params = params_for(factors)
        render = Gaussians(params).render(cameras, background).rgb
        return WarmStart(params=params, mse=float((render - wanted).square().mean()), factors=factors)

    best = attempt({"width": 1.0, "optical": 1.0, "inset": 0.0})
    for _ in range(CALIBRATION_ROUNDS):
        before = best.factors
        for name, values in FACTORS.items():
            tried = [attempt(best.factors | {name: value}) for value in values if value != best.factors[name]]
            best = min([best, *tried], key=lambda start: start.mse)
        if best.factors == before:
            break
    return best
