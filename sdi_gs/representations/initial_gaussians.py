"""The Gaussians that a run starts from: a ball, a shell, a file's contents, or another run's result.

Letters: N Gaussians.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from sdi_gs.contracts import StartScene
from sdi_gs.errors import UserError
from sdi_gs.representations.gaussians import SH_C0, Gaussians, gaussians_from_splats
from sdi_gs.representations.mesh_files import sample_mesh
from sdi_gs.representations.neighbours import neighbour_distances
from sdi_gs.representations.point_files import read_points
from sdi_gs.representations.surface_sampling import surface_gaussians
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.gaussians import MAX_INITIAL, Axes, GaussiansConfig, InitialCloud
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.formats import read_splats
from sdi_gs.splats.splat_cloud import SplatCloud, from_frame

SMALLEST_RADIUS = 1e-12
"""Radius of a cloud of points, scene units, below which they coincide: their squares vanish in float32."""
NEIGHBOURS = 3
"""Neighbours whose mean distance is a point's width (3DGS, and every text-to-3D system that starts from points)."""
WIDTH_LIMITS = (1e-3, 0.1)
"""Widths are kept within these shares of the points' radius, against points that coincide or stray."""

_STARTS = "give splats, points, a mesh, a run's folder or a checkpoint of one"


def initial_gaussians(
    config: GaussiansConfig, *, generator: torch.Generator, device: torch.device, start: StartScene | None = None
) -> Gaussians:
    """Return the configured start; ``start`` is the loaded run if it is one.

    Raises UserError for a file that is missing, damaged, empty, of another kind or not finite, and for a start that
    is nearly empty or has neither splats nor a density. Raises ValueError for a run that was not loaded.
    """
    path = Path(config.init_from or "")
    # A run that was loaded is a run, whatever its name leads to.
    init = "run" if start is not None else kind_of_start(config)
    match init:
        case "ball":
            return gaussian_ball(config, generator=generator, device=device)
        case "shell":
            return gaussian_shell(config, generator=generator, device=device)
        case "splats":
            splats = read_splats(path, frame=_frame_of(config.init_axes or "viewer"), max_splats=MAX_INITIAL)
            # A run trains one colour per Gaussian, so higher harmonics are dropped.
            splats, usual_fit = replace(splats, sh_rest=splats.sh_rest[:, :0]), False
        case "points":
            splats = _splats_at_points(path, *read_points(path), config, generator, device)
            splats, usual_fit = from_frame(splats, _frame_of(config.init_axes or "world")), True
        case "mesh":
            points, rgb = sample_mesh(path, config.num_initial, generator=generator)
            splats = _splats_at_points(path, points, rgb, config, generator, device)
            splats, usual_fit = from_frame(splats, _frame_of(config.init_axes or "y-up")), True
        case "run":
            if start is None:
                raise ValueError(f"the run {path} is not loaded: pass start= (sdi_gs.runs.loading.load_start)")
            return _gaussians_of_run(start, config, generator=generator, device=device)
        case _:
            assert_never(init)
    if usual_fit if config.init_fit is None else config.init_fit:
        splats = _fitted(splats, config.initial_radius)
    return gaussians_from_splats(splats, device=device)


def kind_of_start(config: GaussiansConfig) -> InitialCloud:
    """Return what ``init_from`` holds; a ball if nothing is set. UserError where that is not ``config.init``."""
    if config.init_from is None:
        return config.init or "ball"
    path = Path(config.init_from)
    if config.init is not None:
        _require_kind(path, config.init)
        return config.init
    found = contents_of(path)
    match found.kind:
        case "splats" | "points" | "mesh" | "run":
            return found.kind
        case "checkpoint":
            return "run"
        case "other":
            raise UserError(f"cannot start from {path}: it is {found.seen}; {found.advice or _STARTS}")
        case _:
            assert_never(found.kind)


def _require_kind(path: Path, init: InitialCloud) -> None:
    """Raise UserError where a file is not of the kind that was asked for."""
    found = contents_of(path)
    # A .ply of splats or of a mesh has vertices, which can be taken as points.
    is_ply = found.mesh_type == "ply" or (found.splat_format is not None and found.splat_format.name == "ply")
    if init == "points" and is_ply:
        return
    kind = "run" if found.kind == "checkpoint" else found.kind
    if kind == init:
        return
    way = f"use --init {kind}, or leave --init out" if kind != "other" else found.advice or _STARTS
    raise UserError(f"cannot start from {path} as {init}: it is {found.seen}; {way}")


def gaussian_ball(config: GaussiansConfig, *, generator: torch.Generator, device: torch.device) -> Gaussians:
    """Return a uniform grey ball; each Gaussian is as wide as half the mean spacing."""
    count = config.num_initial
    directions = _directions(count, generator=generator, device=device)
    radii = torch.rand(count, 1, generator=generator, device=device) ** (1.0 / 3.0)
    spacing = config.initial_radius * (4.0 / 3.0 * math.pi / count) ** (1.0 / 3.0)
    widths = torch.full((count,), 0.5 * spacing, dtype=torch.float64, device=device)
    return round_gaussians(directions * radii * config.initial_radius, widths, config, generator=generator)


def gaussian_shell(config: GaussiansConfig, *, generator: torch.Generator, device: torch.device) -> Gaussians:
    """Return a uniform grey sphere; each Gaussian is as wide as the mean spacing, since a surface has no depth."""
    count = config.num_initial
    directions = _directions(count, generator=generator, device=device)
    # N squares of one spacing's side have the area of the sphere.
    widths = torch.full((count,), config.initial_radius * math.sqrt(4.0 * math.pi / count), device=device)
    return round_gaussians(directions * config.initial_radius, widths, config, generator=generator)


def round_gaussians(
    means: Tensor,  # [N, 3] scene units
    widths: Tensor,  # [N] standard deviations, scene units
    config: GaussiansConfig,
    *,
    generator: torch.Generator,
    rgb: Tensor | None = None,  # [N, 3] in [0, 1]
) -> Gaussians:
    """Return round Gaussians of the configured opacity at given places; nearly grey without ``rgb``."""
    count, device = len(means), means.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    opacity = math.log(config.initial_opacity / (1.0 - config.initial_opacity))
    return Gaussians(
        {
            "means": means,
            "scales": torch.log(widths.double()).to(means)[:, None].repeat(1, 3),
            "quats": torch.nn.functional.normalize(normal(count, 4), dim=-1),
            "opacities": torch.full((count,), opacity, device=device),
            "sh0": normal(count, 1, 3) * (config.initial_colour_spread / SH_C0)
            if rgb is None
            else (rgb[:, None] - 0.5) / SH_C0,
        }
    )


def _gaussians_of_run(
    start: StartScene, config: GaussiansConfig, *, generator: torch.Generator, device: torch.device
) -> Gaussians:
    """Return a run's splats as they are, or Gaussians on the surface of its density that look like it."""
    representation = start.representation
    splats = representation.splats()
    if splats is not None:
        # A copy, since training changes its tensors in place.
        return gaussians_from_splats(splats, device=device).detached_copy()
    field = representation.density()
    if field is None:
        raise UserError(
            f"cannot start from {config.init_from}: {representation.describe()} has neither splats nor a density; "
            "start from another run"
        )
    sampled = surface_gaussians(
        field.density_of,
        field.albedo_of,
        lambda cameras, background: representation.render(cameras, background).rgb,
        start.cameras.to(device),
        count=config.num_initial,
        radius=field.box.radius,
        generator=generator,
    )
    return Gaussians(sampled.params)


def _directions(count: int, *, generator: torch.Generator, device: torch.device) -> Tensor:  # [count, 3]
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, device=device), dim=-1)


def _splats_at_points(
    path: Path,
    points: Tensor,  # [N, 3]
    rgb: Tensor | None,  # [N, 3]
    config: GaussiansConfig,
    generator: torch.Generator,
    device: torch.device,
) -> SplatCloud:
    """Return round Gaussians as wide as the mean distance to their nearest neighbours."""
    if len(points) <= NEIGHBOURS:
        raise UserError(
            f"cannot start from {path}: {len(points)} points are too few, it takes {NEIGHBOURS + 1} or more"
        )
    radius = float((points - _middle(points)).norm(dim=-1).max())
    if not radius > SMALLEST_RADIUS:
        raise UserError(f"cannot start from {path}: all of its {len(points)} points coincide")
    points = points.to(device)
    low, high = (share * radius for share in WIDTH_LIMITS)
    widths = neighbour_distances(points, NEIGHBOURS).mean(dim=-1).clamp(low, high)
    gaussians = round_gaussians(
        points, widths, config, generator=generator, rgb=None if rgb is None else rgb.to(device)
    )
    return gaussians.splats().cpu()


def _frame_of(axes: Axes) -> Frame:
    return "train" if axes == "world" else axes


def _fitted(splats: SplatCloud, radius: float) -> SplatCloud:
    """Move and scale splats so that their box's middle is the origin and the farthest centre lies at ``radius``."""
    offsets = splats.means - _middle(splats.means)
    factor = radius / offsets.norm(dim=-1).max().clamp_min(1e-12)
    return replace(splats, means=offsets * factor, log_scales=splats.log_scales + factor.log())


def _middle(points: Tensor) -> Tensor:  # [3]
    return 0.5 * (points.amin(dim=0) + points.amax(dim=0))
