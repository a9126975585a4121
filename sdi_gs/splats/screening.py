"""Which splats are written to a file and which are kept on reading: the same rules for every format.

Letters: N splats.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
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
COLOUR_LIMIT = 1e4
"""Largest coefficient of a colour; a screen shows up to 1.8."""
MAX_DISTANCE = 1e10
"""Largest coordinate, scene units: squares and cubes stay within float32, and no survey in millimetres goes so far."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """Counts of written and dropped splats; each dropped one is counted once."""

    total: int
    written: int
    dropped_non_finite: int
    """Without a meaning: NaN anywhere, infinity as a place, size or colour."""
    dropped_transparent: int
    dropped_zero_quaternion: int
    clamped_scales: int
    """Splats written with a scale moved into ``LOG_SCALE_WINDOW``."""

    def left_out(self) -> str | None:
        """Return one line on the splats that were not written; None where all were."""
        counts = {
            "not finite": self.dropped_non_finite,
            "transparent": self.dropped_transparent,
            "without rotation": self.dropped_zero_quaternion,
        }
        dropped = sum(counts.values())
        return f"{dropped} of {self.total} Gaussians are left out{listed(counts)}" if dropped else None


def listed(counts: Mapping[str, int]) -> str:
    """Return counts above 0 in brackets, for messages."""
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items() if count)})"


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
    finite = cloud.select(_has_meaning(cloud))
    _refuse_activated(finite, f"cannot write {path}")
    kept, report = _presentable(finite, total=len(cloud))
    # A large cloud would lie in memory twice more while it is turned.
    del cloud, finite
    if not len(kept):
        raise UserError(
            f"cannot write {path}: none of the {report.total} splats can be shown "
            f"({report.dropped_non_finite} not finite, {report.dropped_transparent} transparent, "
            f"{report.dropped_zero_quaternion} without rotation); train for longer or with another seed"
        )
    return in_frame(kept, frame), report


def screened_after_reading(cloud: SplatCloud, path: Path, frame: Frame, *, is_raw: bool = False) -> SplatCloud:
    """Return the usable splats of a file, rotated from the axes of ``frame`` to the training world.

    A number that has a meaning is moved into the window of its kind: an infinite logit is opaque, an infinitely thin
    axis is flat. A splat with one that has none is left out: NaN, an infinite place or size, no rotation. A warning
    reports how many of how many.

    Raises UserError where no splat is left, and for activated values unless ``is_raw``: where the format itself leaves
    no doubt.
    """
    meaning, turned = _has_meaning(cloud), _has_rotation(cloud)
    near = (cloud.means.abs() <= MAX_DISTANCE).all(dim=-1)
    kept = cloud.select(meaning & turned & near)
    if not is_raw:
        _refuse_activated(kept, f"cannot read {path}")
    left_out = {
        "not finite": ~meaning,
        f"farther than {MAX_DISTANCE:g}": meaning & ~near,
        "without rotation": meaning & near & ~turned,
    }
    counts = {reason: int(rows.sum()) for reason, rows in left_out.items()}
    if not len(kept):
        raise UserError(
            f"cannot read {path}: none of its {len(cloud)} splats is finite{listed(counts)}; export it anew"
        )
    within, clamped = _within_windows(kept)
    dropped = sum(counts.values())
    parts = [f"{dropped} of its {len(cloud)} splats are left out{listed(counts)}"] if dropped else []
    if any(clamped.values()):
        parts.append(f"numbers out of range are moved into it{listed(clamped)}")
    if parts:
        warnings.warn(f"{path}: {'; '.join(parts)}", stacklevel=3)
    return from_frame(within, frame)


def showable(cloud: SplatCloud) -> Tensor:  # [N]
    """Return which splats have a meaning, a rotation and an opacity that a screen shows."""
    return _has_meaning(cloud) & _has_rotation(cloud) & (cloud.opacity_logit >= MIN_OPACITY_LOGIT)


def _within_windows(kept: SplatCloud) -> tuple[SplatCloud, dict[str, int]]:
    """Return splats with every number in the window of its kind, and how many splats were changed, by kind.

    A finite logit beyond the limit is not counted: no screen shows the difference.
    """
    log_scales = kept.log_scales.clamp(*LOG_SCALE_WINDOW)
    sh_dc, sh_rest = (part.clamp(-COLOUR_LIMIT, COLOUR_LIMIT) for part in (kept.sh_dc, kept.sh_rest))
    bright = (sh_dc != kept.sh_dc).any(dim=-1) | (sh_rest != kept.sh_rest).flatten(1).any(dim=-1)
    clamped = {
        "opacities": int(kept.opacity_logit.isinf().sum()),
        "scales": int((log_scales != kept.log_scales).any(dim=-1).sum()),
        "colours": int(bright.sum()),
    }
    opacity_logit = kept.opacity_logit.clamp(-OPACITY_LOGIT_LIMIT, OPACITY_LOGIT_LIMIT)
    within = replace(kept, log_scales=log_scales, opacity_logit=opacity_logit, sh_dc=sh_dc, sh_rest=sh_rest)
    return within, clamped


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32)


def _refuse_activated(cloud: SplatCloud, what: str) -> None:
    """Raise UserError where exp and sigmoid have been applied to the values (the rule of supersplat-viewer#253).

    Viewers show such a file as a fog of giant splats, without an error. Positive logarithms alone are no sign of it:
    surveys in millimetres have them. Splats wider than the whole cloud are one. The check still has false positives:
    raw clouds that are such a fog, or whose opacities all lie in (0.5, 0.73].
    """
    if not len(cloud):
        return
    if bool((cloud.log_scales > 0).all()) and _is_fog(cloud):
        raise UserError(
            f"{what}: all scales are positive, and as logarithms they make splats wider than the cloud itself, so they "
            "look like standard deviations; splat files hold their logarithms (take the log first)"
        )
    alpha = (cloud.opacity_logit >= 0) & (cloud.opacity_logit <= 1)
    # Alphas of 0 alone would be an object that nobody sees; logits of 0 are half opaque.
    if bool(alpha.all()) and bool((cloud.opacity_logit > 0).any()):
        raise UserError(
            f"{what}: all opacities lie in [0, 1], so they look like alphas; "
            "splat files hold their logits (take log(a / (1 - a)) first)"
        )


def _is_fog(cloud: SplatCloud) -> bool:
    """Return whether the widest splats but 2 %, read as logarithms, are wider than where the cloud's bulk lies.

    Standard deviations are a hundredth of an object's size, and their exponentials are at least 1 and soon exceed it.
    One splat, or splats in one place, give no size to compare with.
    """
    means = cloud.means.double()
    bulk = (means - means.median(dim=0).values).abs().median(dim=0).values.max()
    widest = cloud.log_scales.double().amax(dim=-1)
    return bool(0.0 < bulk < widest.kthvalue(max(1, round(0.98 * len(cloud)))).values.exp())


def _presentable(finite: SplatCloud, *, total: int) -> tuple[SplatCloud, ExportReport]:
    """Return the visible splats with clamped values, and the counts of all others out of ``total``."""
    opaque, turned = finite.opacity_logit >= MIN_OPACITY_LOGIT, _has_rotation(finite)
    kept, clamped = _within_windows(finite.select(opaque & turned))
    report = ExportReport(
        total=total,
        written=len(kept),
        dropped_non_finite=total - len(finite),
        dropped_transparent=int((~opaque).sum()),
        dropped_zero_quaternion=int((opaque & ~turned).sum()),
        clamped_scales=clamped["scales"],
    )
    return kept, report


def _has_meaning(cloud: SplatCloud) -> Tensor:
    """Return which splats [N] hold no NaN, and infinity only as an opacity or as the logarithm of no thickness."""
    parts = (cloud.means, cloud.quats, cloud.sh_dc, cloud.sh_rest.flatten(1))
    # Zero times a finite number is zero, times any other NaN: one pass, where isfinite takes several.
    zero = sum((0.0 * part).sum(dim=-1) for part in parts)
    sized = (cloud.log_scales < torch.inf).all(dim=-1)
    return (zero == 0.0) & sized & ~cloud.opacity_logit.isnan()


def _has_rotation(cloud: SplatCloud) -> Tensor:
    """Return which splats [N] have a quaternion that can be normalised."""
    return (cloud.quats != 0).any(dim=-1)
