"""Which splats are written to a file and which are kept on reading: the same rules for every format.

Letters: N splats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.splat_cloud import SplatCloud, from_frame, in_frame

MIN_OPACITY_LOGIT = math.log((1 / 255) / (1 - 1 / 255))
"""Less than one step of an 8-bit screen; nerfstudio and gsplat also drop such splats."""
OPACITY_LOGIT_LIMIT = math.log((1 - 1e-6) / 1e-6)
"""Opacities are kept within [1e-6, 1 - 1e-6], so that every reader's logit stays finite."""
LOG_SCALE_WINDOW = (-20.0, 10.0)
"""Standard deviations from 2e-9 to 2e4 scene units: squares and products of them stay within float32."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Counts of written and dropped splats; each dropped one is counted once."""

    total: int
    written: int
    dropped_non_finite: int
    dropped_transparent: int
    dropped_zero_quaternion: int
    clamped_scales: int
    """Splats written with a scale moved into ``LOG_SCALE_WINDOW``."""


def require_at_most(max_splats: int, count: int, path: Path, *, what: str = "splats") -> None:
    """Raise UserError where a file holds more splats than the reader takes."""
    if count > max_splats:
        raise UserError(
            f"cannot read {path}: its {count} {what} are more than the {max_splats} that this program takes; "
            "thin them out first"
        )


def screened_for_writing(splats: SplatCloud, path: Path, frame: Frame) -> tuple[SplatCloud, ExportReport]:
    """Return the splats to write, float32 on the CPU in the axes of ``frame``, and the counts of the others.

    Raises UserError for activated values and where no splat is left.
    """
    cloud = replace(splats, **{name: _float32(getattr(splats, name)) for name in splats.__dataclass_fields__})
    finite = cloud.select(_finite(cloud))
    _refuse_activated(finite, f"cannot write {path}")
    kept, report = _presentable(finite, total=len(cloud))
    if not len(kept):
        raise UserError(
            f"cannot write {path}: none of the {report.total} splats can be shown "
            f"({report.dropped_non_finite} not finite, {report.dropped_transparent} transparent, "
            f"{report.dropped_zero_quaternion} without rotation); train for longer or with another seed"
        )
    return in_frame(kept, frame), report


def screened_after_reading(cloud: SplatCloud, path: Path, frame: Frame) -> SplatCloud:
    """Return the usable splats of a file, rotated from the axes of ``frame`` to the training world.

    Raises UserError for activated values and where no splat is finite.
    """
    kept = cloud.select(_finite(cloud) & _has_rotation(cloud))
    _refuse_activated(kept, f"cannot read {path}")
    if not len(kept):
        raise UserError(f"cannot read {path}: none of its {len(cloud)} splats is finite; export it anew")
    return from_frame(kept, frame)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32)


def _refuse_activated(cloud: SplatCloud, what: str) -> None:
    """Raise UserError where exp and sigmoid have been applied to the values (the rule of supersplat-viewer#253).

    Viewers show such a file as a fog of giant splats, without an error. The check has false positives: raw clouds whose
    deviations all exceed 1 scene unit, or whose opacities all lie in [0.5, 0.73].
    """
    if not len(cloud):
        return
    if bool((cloud.log_scales > 0).all()):
        raise UserError(
            f"{what}: all scales are positive, so they look like standard deviations; "
            "splat files hold their logarithms (take the log first)"
        )
    if bool(((cloud.opacity_logit >= 0) & (cloud.opacity_logit <= 1)).all()):
        raise UserError(
            f"{what}: all opacities lie in [0, 1], so they look like alphas; "
            "splat files hold their logits (take log(a / (1 - a)) first)"
        )


def _presentable(finite: SplatCloud, *, total: int) -> tuple[SplatCloud, ExportReport]:
    """Return the visible splats with clamped values, and the counts of all others out of ``total``."""
    opaque, turned = finite.opacity_logit >= MIN_OPACITY_LOGIT, _has_rotation(finite)
    kept = finite.select(opaque & turned)
    log_scales = kept.log_scales.clamp(*LOG_SCALE_WINDOW)
    report = ExportReport(
        total=total,
        written=len(kept),
        dropped_non_finite=total - len(finite),
        dropped_transparent=int((~opaque).sum()),
        dropped_zero_quaternion=int((opaque & ~turned).sum()),
        clamped_scales=int((log_scales != kept.log_scales).any(dim=-1).sum()),
    )
    opacity_logit = kept.opacity_logit.clamp(-OPACITY_LOGIT_LIMIT, OPACITY_LOGIT_LIMIT)
    return replace(kept, log_scales=log_scales, opacity_logit=opacity_logit), report


def _finite(cloud: SplatCloud) -> Tensor:
    """Return which splats [N] hold neither NaN nor infinity."""
    parts = (cloud.means, cloud.log_scales, cloud.quats, cloud.sh_dc, cloud.sh_rest.flatten(1))
    # Zero times a finite number is zero, times any other NaN: one pass, where isfinite takes several.
    zero = 0.0 * cloud.opacity_logit + sum((0.0 * part).sum(dim=-1) for part in parts)
    return zero == 0.0


def _has_rotation(cloud: SplatCloud) -> Tensor:
    """Return which splats [N] have a quaternion that can be normalised."""
    return (cloud.quats != 0).any(dim=-1)
