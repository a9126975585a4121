"""The initial Gaussians and their learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from sdi_gs.settings.bounds import ADAM_BETAS, RATE, Range, check_settings

InitialCloud = Literal["ball", "shell", "splats", "points", "mesh", "run"]
Axes = Literal["world", "viewer", "y-up"]

MAX_INITIAL = 10_000_000
"""Most Gaussians to start from; ten million take 10 GB with their gradients and Adam's averages."""

TRAINED = ("means", "scales", "quats", "opacities", "sh0")
"""Parameters of Gaussians with a learning rate, ``<name>_lr``, and one for the run's end, ``<name>_lr_final``."""


@dataclass(frozen=True, kw_only=True)
class GaussiansConfig:
    """The initial Gaussians and the learning rate of each of their parameters."""

    init: Annotated[InitialCloud | None, tyro.conf.arg(aliases=("--init",))] = None
    """Where the Gaussians start: a grey ball or sphere, the content of a file (splats, points, a mesh's surface), or a
    run.

    None for a ball or, with ``init_from``, for the kind that is found there."""
    init_from: Annotated[str | None, tyro.conf.arg(aliases=("--init-from",), metavar="FILE|RUN")] = None
    """A .ply of splats or points, any mesh that trimesh reads, or the folder of a run: its splats, or its field."""
    init_axes: Axes | None = None
    """Axes of the file: z up and front +x (world), RDF as in exported splats (viewer), or y up and front +z (y-up).

    None for the usual ones: viewer for splats, world for points, y-up for a mesh (glTF)."""
    init_fit: bool | None = None
    """Whether a file's Gaussians are centred and scaled into ``initial_radius``; None: points and meshes are, splats
    are not."""
    num_initial: Annotated[int, Range(1, MAX_INITIAL)] = 6000
    """Gaussians at the start (text-to-3D systems use 4 096 to 100 000); files of splats or points have their own."""
    initial_radius: Annotated[float, Range(0.0, 1e6, low_open=True)] = 0.8
    """Radius of the ball that they fill uniformly, scene units (0.5 to 0.8 in text-to-3D systems)."""
    initial_opacity: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.1
    """Opacity of each at the start (0.1 in DreamGaussian and LucidDreamer); splats have their own."""
    initial_colour_spread: Annotated[float, Range(0.0, 10.0)] = 0.05
    """Standard deviation of the initial colours around grey, in RGB units; files with colours keep theirs."""
    axis_ratio_cap: Annotated[float | None, Range(1.0, 1e6)] = None
    """Hard limit on the ratio of the longest to the middle axis, enforced after every step; None for no limit."""
    smallest_scale: Annotated[float | None, Range(0.0, 1e6, low_open=True)] = None
    """Hard lower limit on every axis, scene units, enforced after every step; None for no limit.

    Half a pixel at the object's distance keeps views that disagree from growing slats that show each its own colour."""
    means_lr: Annotated[float, RATE] = 4e-3
    """Adam step of the centres at the start, scene units."""
    means_lr_final: Annotated[float, RATE] = 4e-4
    """Adam step of the centres at the end; exponential in between."""
    scales_lr: Annotated[float, RATE] = 1e-2
    """Adam step of the log scales at the start."""
    scales_lr_final: Annotated[float | None, RATE] = None
    """Adam step of the log scales at the end, exponential in between; None for no change."""
    quats_lr: Annotated[float, RATE] = 5e-3
    """Adam step of the quaternions at the start."""
    quats_lr_final: Annotated[float | None, RATE] = None
    """Adam step of the quaternions at the end, exponential in between; None for no change."""
    opacities_lr: Annotated[float, RATE] = 5e-2
    """Adam step of the logit opacities at the start (0.05 in DreamGaussian and LucidDreamer)."""
    opacities_lr_final: Annotated[float | None, RATE] = None
    """Adam step of the logit opacities at the end, exponential in between; None for no change."""
    sh0_lr: Annotated[float, RATE] = 3e-2
    """Adam step of the colour coefficients at the start."""
    sh0_lr_final: Annotated[float | None, RATE] = None
    """Adam step of the colour coefficients at the end, exponential in between; None for no change."""
    adam_betas: Annotated[tuple[float, float], ADAM_BETAS] = (0.9, 0.99)
    """Adam's averaging constants (the published SDI config)."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.init in ("ball", "shell") and self.init_from is not None:
            raise ValueError(
                f"init {self.init} does not start from a file, got init_from {self.init_from!r}: use splats, points, "
                "mesh or run, or leave init out"
            )
        if self.init not in (None, "ball", "shell") and not self.init_from:
            raise ValueError(f"init {self.init!r} needs init_from, the file or run to start from")
