"""The splats that an export writes: a scene's own, or fitted to a field, and no more of them than asked for.

Letters: N splats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files.origin import UNKNOWN, Origin
from sdi_gs.pictures.framing import Framing, framing_of_cloud, in_sight_of, training_framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.contributions import contributions
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.loading import AnyScene, RunOrigin, SavedScene, representation_of
from sdi_gs.runs.provenance import origin_of
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import AS_IT_IS, ExportOptions
from sdi_gs.splats.screening import LOG_SCALE_WINDOW, showable
from sdi_gs.splats.splat_cloud import SplatCloud
from sdi_gs.training.splats_of_field import psnr_of, splats_of_field

FIELD_SPLATS = 6000
"""Gaussians sampled from a field where no number is given, as many as a run of Gaussians starts from."""
WEIGHED_VIEWS, WEIGHED_SIZE = 48, 128
"""Views over which contributions are summed, from all around, and their side in pixels."""
COMPARED_VIEWS, COMPARED_SIZE, COMPARED_ELEVATION_DEG = 12, 256, 15.0
"""The ring of views by which fewer splats are compared with all of them."""


@dataclass(frozen=True, kw_only=True)
class SplatsToExport:
    """Splats on the host in the training world, and what is known of them."""

    cloud: SplatCloud
    origin: Origin
    about: str
    """Where they come from, for the end of a line: ", after 400 steps"."""


def splats_to_export(
    scene: AnyScene, options: ExportOptions, *, after_step: Callable[[int], None] | None = None
) -> SplatsToExport:
    """Return the splats of a scene as the options ask for them.

    A field's are sampled on its surface and fitted to its renders; ``after_step`` gets the number of finished steps.

    Raises UserError for a scene with neither splats nor a density, for ``fit_steps`` where nothing is fitted, and where
    no splat would be left.
    """
    saved = scene if isinstance(scene, SavedScene) else None
    run = None if saved is None else saved.run
    about = "" if saved is None else f", of {saved.path}" if run is None else f", after {run.step} steps"
    representation = representation_of(scene)
    cloud, usual = representation.splats(), _usual_framing(run)
    if cloud is None:
        fitted = splats_of_field(
            representation,
            usual,
            count=options.max_splats or FIELD_SPLATS,
            steps=options.fit_steps,
            seed=0 if run is None else run.config.seed,
            after_step=after_step,
        )
        cloud, about = fitted.gaussians.splats(), f"{about}, {fitted.line()}"
    elif options.fit_steps != AS_IT_IS.fit_steps:
        raise UserError(f"--fit-steps is for fields, not for {representation.describe()}: leave it out")
    thinned, remark = thinned_out(cloud.cpu(), options, usual, is_seen=run is not None)
    return SplatsToExport(cloud=thinned, origin=origin_of_scene(scene), about=about + remark)


def origin_of_scene(scene: AnyScene) -> Origin:
    """Return what is known of where a scene comes from."""
    run = scene.run if isinstance(scene, SavedScene) else None
    return UNKNOWN if run is None else origin_of(run.config, run.step)


def thinned_out(cloud: SplatCloud, options: ExportOptions, usual: Framing, *, is_seen: bool) -> tuple[SplatCloud, str]:
    """Return the splats that the options leave, and a remark on how close their pictures come; nothing if they are all.

    ``is_seen`` is whether ``usual`` shows them as they are. Splats below ``drop_below`` go first, then those that add
    least to views from all around. Raises UserError where none is left.
    """
    if options.max_splats is None and options.drop_below is None:
        return cloud, ""
    shown = cloud.select(showable(cloud))
    framing = usual if is_seen or not len(shown) else framing_of_cloud(shown, usual)
    seen = in_sight_of(shown, framing, usual) if framing != usual else shown
    # As a writer moves them.
    seen = replace(seen, log_scales=seen.log_scales.clamp(*LOG_SCALE_WINDOW))
    kept = torch.sigmoid(shown.opacity_logit) >= (options.drop_below or 0.0)
    if not bool(kept.any()):
        limit = "none" if options.drop_below is None else f"{options.drop_below:g}"
        raise UserError(
            f"none of {len(cloud)} splats is visible at --drop-below {limit}: lower it, or train for longer"
        )
    if options.max_splats is not None and int(kept.sum()) > options.max_splats:
        rest = gaussians_from_splats(seen.select(kept))
        weights = contributions(rest, usual.all_around(WEIGHED_VIEWS, WEIGHED_SIZE))
        kept[kept.nonzero()[:, 0]] = _largest(weights, options.max_splats)
    if bool(kept.all()):
        return cloud, ""
    views = usual.ring(COMPARED_VIEWS, COMPARED_SIZE, elevation_deg=COMPARED_ELEVATION_DEG)
    wanted = render_views(gaussians_from_splats(seen), views).rgb
    likeness = psnr_of(gaussians_from_splats(seen.select(kept)), views, wanted)
    return shown.select(kept), f"; {int(kept.sum())} kept of {len(cloud)}, {likeness:.1f} dB of PSNR against all"


def _largest(
    values: Tensor,  # [N]
    count: int,
) -> Tensor:  # [N] bool
    """Return which values are the ``count`` largest ones, the first of equal ones."""
    chosen = torch.zeros(len(values), dtype=torch.bool)
    chosen[torch.argsort(values, descending=True, stable=True)[:count]] = True
    return chosen


def framing_of_scene(scene: AnyScene) -> Framing:
    """Return cameras that show a scene as it is: a run's own, or those that see all of a file."""
    run = scene.run if isinstance(scene, SavedScene) else None
    usual, cloud = _usual_framing(run), representation_of(scene).splats()
    return usual if run is not None or cloud is None else framing_of_cloud(cloud.cpu(), usual)


def _usual_framing(run: RunOrigin | None) -> Framing:
    return training_framing(CameraConfig() if run is None else run.config.cameras)
