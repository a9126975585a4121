"""antimatter15's .splat: 32 bytes per splat without a header, activated values, one colour, RDF axes.

A row is three float32 of position, three float32 of standard deviation, the bytes R, G, B and alpha, and the bytes
of a quaternion w, x, y, z as 128 q + 128, all little-endian (github.com/antimatter15/splat, convert.py and main.js).

Letters: N splats.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file, write_atomically
from sdi_gs.files.origin import Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS, SplatCodec
from sdi_gs.splats.screening import (
    LOG_SCALE_WINDOW,
    OPACITY_LOGIT_LIMIT,
    ExportReport,
    require_at_most,
    screened_after_reading,
    screened_for_writing,
)
from sdi_gs.splats.splat_cloud import SplatCloud, rgb_from_sh_dc, sh_dc_from_rgb

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])
ROW_BYTES = _ROW.itemsize


def write_dot_splat(
    path: Path,
    splats: SplatCloud,
    *,
    frame: Frame = "viewer",
    overwrite: bool = False,
) -> ExportReport:
    """Write a cloud given in the training world, largest and most opaque splats first, since viewers stream the file.

    The format has no room for harmonics above band 0. Splats that no viewer can show are dropped and
    counted. Raises UserError as ``write_splat_ply``.
    """
    kept, report = screened_for_writing(splats, path, frame)
    opacity = torch.sigmoid(kept.opacity_logit.double())
    weight = kept.log_scales.double().sum(dim=-1).exp() * opacity
    rows = np.empty(len(kept), dtype=_ROW)
    rows["means"] = kept.means.numpy()
    rows["scales"] = kept.log_scales.exp().numpy()
    rows["rgba"] = _bytes(255.0 * torch.cat([rgb_from_sh_dc(kept.sh_dc.double()), opacity[:, None]], dim=1))
    rows["quats"] = _bytes(128.0 * kept.quats.double() + 128.0)
    ordered = rows[torch.argsort(weight, descending=True, stable=True).numpy()]
    write_atomically(path, ordered.data.cast("B"), overwrite=overwrite)
    return report


def read_dot_splat(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read a cloud into the training world, as float32 on the CPU; ``frame`` names the file's axes.

    Splats that are not finite or have no rotation are dropped; quaternions are normalised.

    Raises UserError where the file is missing, empty, truncated, no .splat, or holds more than ``max_splats``.
    """
    with disk_errors(path, "read"):
        require_file(path)
        size = path.stat().st_size
        count, left_over = divmod(size, ROW_BYTES)
        if left_over or not count:
            raise UserError(
                f"cannot read {path}: a .splat has {ROW_BYTES} bytes per splat, and {size} bytes are "
                f"{f'{count} splats and {left_over} bytes more' if size else 'no splat'}; the file is cut short or "
                "of another format: copy or export it anew"
            )
        require_at_most(max_splats, count, path)
        rows = np.fromfile(path, dtype=_ROW, count=count)
    _refuse_negative_scales(rows["scales"], path)
    rgba = torch.from_numpy(rows["rgba"] / 255.0)
    scales = torch.from_numpy(rows["scales"].astype(np.float32))
    # 0 is a deviation too small for a float32; an alpha of 0 or 255 has no finite logit.
    cloud = SplatCloud(
        means=torch.from_numpy(rows["means"].astype(np.float32)),
        log_scales=scales.clamp_min(math.exp(LOG_SCALE_WINDOW[0])).log(),
        quats=torch.from_numpy((rows["quats"].astype(np.float32) - 128.0) / 128.0),
        opacity_logit=torch.logit(rgba[:, 3]).clamp(-OPACITY_LOGIT_LIMIT, OPACITY_LOGIT_LIMIT).float(),
        sh_dc=sh_dc_from_rgb(rgba[:, :3]).float(),
        sh_rest=torch.zeros(count, 0, 3),
    )
    return screened_after_reading(cloud, path, frame)


def _bytes(
    values: Tensor,  # [N, 4] in [0, 255], or slightly outside
) -> np.ndarray:
    """Return the nearest bytes, [N, 4]."""
    return values.round().clamp(0.0, 255.0).to(torch.uint8).numpy()


def _refuse_negative_scales(
    scales: np.ndarray,  # [N, 3]
    path: Path,
) -> None:
    """Raise UserError for negative standard deviations: the only check that a file without a header allows."""
    splats, axes = np.nonzero(scales < 0)
    if len(splats):
        raise UserError(
            f"cannot read {path}: scale_{axes[0]} of its splat {splats[0]} is {scales[splats[0], axes[0]]:g}, and "
            "the standard deviations in a .splat are never negative; the file is damaged or of another format: "
            "give a .splat or a .ply of splats"
        )


def _loss(cloud: SplatCloud) -> str | None:
    if not cloud.sh_rest.shape[1]:
        return None
    return "a .splat holds one colour per Gaussian: what changed with the direction of view is left out"


def _recognizes(path: Path, head: bytes) -> bool:
    """Return whether all rows at the start of a file look like splats: usual deviations, quaternions of length 1."""
    rows = np.frombuffer(head[: len(head) // ROW_BYTES * ROW_BYTES], dtype=_ROW)
    if not len(rows) or path.stat().st_size % ROW_BYTES:
        return False
    sizes = np.abs(np.concatenate([rows["means"], rows["scales"]], axis=1))
    lengths = np.linalg.norm((rows["quats"] - 128.0) / 128.0, axis=1)
    # Text and other tables of numbers make huge or tiny floats of these bytes. Rounding moves a length by 0.02.
    usual = (rows["scales"] >= 0.0) & (sizes[:, 3:] < 1e6)
    return bool(usual.all() and (sizes[:, :3] < 1e9).all() and (np.abs(lengths - 1.0) < 0.05).all())


def _write(
    path: Path, cloud: SplatCloud, /, *, options: ExportOptions, origin: Origin, overwrite: bool
) -> ExportReport:
    # The format has no room for an origin.
    return write_dot_splat(path, cloud, frame=options.frame, overwrite=overwrite)


CODEC = SplatCodec(read=read_dot_splat, write=_write, recognizes=_recognizes, loss=_loss)
