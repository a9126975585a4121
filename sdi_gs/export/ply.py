"""The standard 3D Gaussian Splatting .ply: raw float32 values, channel-major harmonics, RDF axes.

The layout is INRIA's, with the habits of SuperSplat, Spark, spz, Unity and SIBR in mind: one element, always
the same properties in the same order, nothing beside them; remarks go into comment lines.

Letters: N splats, K harmonics per channel above band 0 (0, 3, 8 or 15), P properties of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.export.ply_table import read_vertex_table
from sdi_gs.export.splat_cloud import (
    REST_COEFFICIENTS,
    TRAIN_FROM_VIEWER,
    VIEWER_FROM_TRAIN,
    SplatCloud,
    normalized_quats,
    rotate_cloud,
)
from sdi_gs.files import write_atomically

Frame = Literal["viewer", "train"]

MIN_OPACITY_LOGIT = math.log((1 / 255) / (1 - 1 / 255))
"""Below it a splat is less than one step of an 8-bit screen; nerfstudio and gsplat drop it too."""
OPACITY_LOGIT_LIMIT = math.log((1 - 1e-6) / 1e-6)
"""Opacities are kept within [1e-6, 1 - 1e-6], so that every reader's logit stays finite."""
LOG_SCALE_WINDOW = (-20.0, 10.0)
"""Standard deviations from 2e-9 to 2e4 scene units: squares and products of them stay within float32."""
COMMENT_LENGTH = 1000
"""Longest comment line; splat-transform looks for the end of the header in the first 128 KB."""

_MEANS = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")
_SH_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_OPACITY = "opacity"
_SCALES = ("scale_0", "scale_1", "scale_2")
_QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")
_REQUIRED = (*_MEANS, *_SH_DC, _OPACITY, *_SCALES, *_QUATS)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What became of the splats handed to an export; each dropped one is counted once."""

    total: int
    written: int
    dropped_non_finite: int
    dropped_transparent: int
    dropped_zero_quaternion: int
    clamped_scales: int
    """Splats written with a scale moved into ``LOG_SCALE_WINDOW``."""


def write_splat_ply(
    path: Path,
    splats: SplatCloud,
    *,
    comments: Sequence[str] = (),
    frame: Frame = "viewer",
    overwrite: bool = False,
) -> ExportReport:
    """Write a cloud given in the training world; ``frame`` says which axes the file gets.

    Splats that no viewer could show are dropped and counted. Comments become one ASCII line each.

    Raises UserError for activated values, where nothing is left to write, for a ``path`` that exists (unless
    ``overwrite``), and for a full disk; the file is then not there, or still the old one.
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
    match frame:
        case "viewer":
            kept = rotate_cloud(kept, VIEWER_FROM_TRAIN)
        case "train":
            kept = replace(kept, quats=normalized_quats(kept.quats))
        case _:
            assert_never(frame)
    rows = _rows(kept)
    write_atomically(path, _header(rows, comments), rows.data.cast("B"), overwrite=overwrite)
    return report


def read_splat_ply(path: Path, *, frame: Frame = "viewer", max_splats: int = 10_000_000) -> SplatCloud:
    """Read a cloud into the training world, as float32 on the CPU; ``frame`` says which axes the file has.

    Properties may come in any order and type, and others beside them. Splats that are not finite or have no
    rotation are left out; quaternions come out normalised.

    Raises UserError where the file is missing, cut short, ASCII, larger than ``max_splats``, not of splats, or
    of activated values.
    """
    table = read_vertex_table(path, required=_REQUIRED, max_rows=max_splats)
    names = set(table.dtype.names or ())
    rest = [f"f_rest_{i}" for i in range(sum(name.startswith("f_rest_") for name in names))]
    if len(rest) not in [3 * k for k in REST_COEFFICIENTS] or not names.issuperset(rest):
        raise UserError(
            f"cannot read {path}: it has {len(rest)} f_rest_* properties, splats have 0, 9, 24 or 45 "
            "in a row from f_rest_0; export it anew"
        )
    cloud = SplatCloud(
        means=_columns(table, _MEANS),
        log_scales=_columns(table, _SCALES),
        quats=_columns(table, _QUATS),
        opacity_logit=_columns(table, [_OPACITY])[:, 0],
        sh_dc=_columns(table, _SH_DC),
        sh_rest=_columns(table, rest).reshape(len(table), 3, len(rest) // 3).transpose(1, 2).contiguous(),
    )
    cloud = cloud.select(_finite(cloud) & _has_rotation(cloud))
    _refuse_activated(cloud, f"cannot read {path}")
    if not len(cloud):
        raise UserError(f"cannot read {path}: none of its {len(table)} splats is finite; export it anew")
    match frame:
        case "viewer":
            return rotate_cloud(cloud, TRAIN_FROM_VIEWER)
        case "train":
            return replace(cloud, quats=normalized_quats(cloud.quats))
        case _:
            assert_never(frame)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32)


def _refuse_activated(cloud: SplatCloud, what: str) -> None:
    """UserError where the values have been through exp and sigmoid (the rule of supersplat-viewer#253).

    Such a file opens without complaint as a fog of giant splats, so the refusal leans to the safe side: it
    also meets raw clouds whose every deviation is over 1 scene unit or whose every opacity is in [0.5, 0.73].
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
    """The splats worth writing, their values clamped, and the counts of all others out of ``total``."""
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
    """Which splats [N] hold no NaN and no infinity."""
    parts = (cloud.means, cloud.log_scales, cloud.quats, cloud.sh_dc, cloud.sh_rest.flatten(1))
    # Zero times a number is zero, times anything else NaN: one pass, where isfinite takes several.
    zero = 0.0 * cloud.opacity_logit + sum((0.0 * part).sum(dim=-1) for part in parts)
    return zero == 0.0


def _has_rotation(cloud: SplatCloud) -> Tensor:
    """Which splats [N] have a quaternion that can be normalised."""
    return (cloud.quats != 0).any(dim=-1)


def _rows(cloud: SplatCloud) -> np.ndarray:
    """The body of the file, [N, P] little-endian float32."""
    columns = [
        cloud.means,
        torch.zeros_like(cloud.means),  # Normals: nobody uses them, but SIBR's readers count the bytes.
        cloud.sh_dc,
        cloud.sh_rest.transpose(1, 2).flatten(1),  # [N, 3 K]: all of red, then green, then blue.
        cloud.opacity_logit[:, None],
        cloud.log_scales,
        cloud.quats,
    ]
    return np.ascontiguousarray(torch.cat(columns, dim=1).numpy(), dtype="<f4")


def _header(rows: np.ndarray, comments: Sequence[str]) -> bytes:
    others = len(_NORMALS) + len(_REQUIRED)
    rest = [f"f_rest_{i}" for i in range(rows.shape[1] - others)]
    names = [*_MEANS, *_NORMALS, *_SH_DC, *rest, _OPACITY, *_SCALES, *_QUATS]
    # The comments follow the element line, since spz wants its first three lines to be just these.
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    lines += [f"comment {_ascii_line(comment)}" for comment in comments]
    lines += [f"property float {name}" for name in names]
    return "\n".join([*lines, "end_header", ""]).encode("ascii")


def _ascii_line(text: str) -> str:
    """Text that cannot break a header: one line, other letters as Python escapes, of bounded length."""
    line = " ".join(text.split()).encode("ascii", "backslashreplace").decode("ascii")
    return line[:COMMENT_LENGTH]


def _columns(table: np.ndarray, names: Sequence[str]) -> Tensor:
    """Some properties of a vertex table as float32 [N, len(names)]."""
    values = np.empty((len(table), len(names)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for index, name in enumerate(names):
            values[:, index] = table[name]
    return torch.from_numpy(values)
