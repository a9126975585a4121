"""The disk space that a run will take, estimated from its settings before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors
from sdi_gs.priors.catalog import is_instrument
from sdi_gs.runs.finish import SHEET_VIEWS
from sdi_gs.runs.saving import KEPT, PREVIEW_VIEWS
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.voxels import VoxelsConfig
from sdi_gs.training.replay import bytes_per_view, most_kept_views

FLOAT = 4
"""Bytes of a float32, in which everything is saved."""
COPIES = 3
"""Of every parameter in a checkpoint: itself and Adam's two averages."""
PARAMETERS = 14
"""Of a Gaussian without view-dependent colour."""
PLY_COLUMNS = 17
"""Floats of a Gaussian in a .ply, with its normal."""
FEATURES = 2
"""Of an entry of the field's tables."""
BYTES_OF_A_STEP = 250
"""In the log."""
BYTES_OF_TEXTS = 50_000
"""Settings, summary, and the part of the checkpoints that is text."""
SHEET_BYTES, FILM_BYTES = 0.5, 0.02
"""Of a pixel, in a sheet of pictures and in a film."""


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """Bytes that runs will leave."""

    least: int
    """If no Gaussian is added."""
    most: int
    """If as many are added as the settings allow."""


def numbers_of_voxels(voxels: VoxelsConfig) -> int:
    """Return the numbers of a grid at its finest: density and colour at every vertex."""
    return voxels.resolution**3 * (1 + 3 * (voxels.sh_degree + 1) ** 2)


def disk_space_of(config: RunConfig) -> DiskSpace:
    """Estimate the bytes that a run with these settings leaves."""
    size, side = config.outputs.turntable_size, _side(config)
    every = config.outputs.preview_every
    previews = config.total_steps // every if every else 0
    pictures = SHEET_BYTES * (SHEET_VIEWS * size**2 + previews * PREVIEW_VIEWS * side**2)
    film = FILM_BYTES * config.outputs.turntable_frames * size**2
    targets = most_kept_views(config) * bytes_per_view(side, _latent_numbers(config, side), pictures=False)
    fixed = int(pictures + film) + BYTES_OF_A_STEP * config.total_steps + BYTES_OF_TEXTS + KEPT * targets
    if config.representation == "ngp":
        grid = config.ngp.grid
        field = FLOAT * FEATURES * grid.num_levels * 2**grid.log2_table_size
        whole = fixed + KEPT * COPIES * field
        return DiskSpace(least=whole, most=whole)
    if config.representation == "voxels":
        whole = fixed + KEPT * COPIES * FLOAT * numbers_of_voxels(config.voxels)
        return DiskSpace(least=whole, most=whole)
    each = FLOAT * (KEPT * COPIES * PARAMETERS + PLY_COLUMNS)
    start = config.gaussians.num_initial
    grown = max(start, config.densify.max_gaussians) if config.densify.enabled else start
    return DiskSpace(least=fixed + each * min(start, grown), most=fixed + each * grown)


def require_disk_space(configs: Iterable[RunConfig], out: Path) -> tuple[DiskSpace, int]:
    """Return the bytes that runs will leave in ``out`` and those that are free there.

    Raises UserError if even the least does not fit.
    """
    # Rows of a batch differ in prompt and seed, and few of them in more.
    spaces = [disk_space_of(config) for config in configs]
    needed = DiskSpace(least=sum(space.least for space in spaces), most=sum(space.most for space in spaces))
    there = out.absolute()
    while not there.exists():
        there = there.parent
    with disk_errors(there, "read"):
        free = shutil.disk_usage(there).free
    if needed.least > free:
        raise UserError(
            f"{len(spaces)} runs leave at least {gigabytes(needed.least)} in {out}, where {gigabytes(free)} are free: "
            "free some space, choose another --output-dir, or make fewer at a time"
        )
    return needed, free


def gigabytes(count: int) -> str:
    """Return a count of bytes in GB, or in MB if there are few."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _side(config: RunConfig) -> int:
    """Return the side in pixels of the prior's pictures, without loading it."""
    return config.ideal_prior.image_size if is_instrument(config.prior) else 512


def _latent_numbers(config: RunConfig, side: int) -> int:
    """Return the numbers of a view's latents: four channels, of an eighth of the sides for Stable Diffusion."""
    return 4 * (side // (config.ideal_prior.pool if is_instrument(config.prior) else 8)) ** 2
