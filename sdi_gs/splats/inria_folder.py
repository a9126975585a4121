"""INRIA's layout of a trained scene: a folder with point_cloud/iteration_N/point_cloud.ply, cfg_args and cameras.json.

SIBR's viewer and the programs built on 3D Gaussian Splatting open such folders; this one reads the last iteration.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, refuse_existing
from sdi_gs.files.origin import Origin
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS, SplatCodec
from sdi_gs.splats.ply import read_splat_ply, write_splat_ply
from sdi_gs.splats.screening import ExportReport
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud, frame_from_train, rotation_matrices

NUM_VIEWS, VIEW_SIZE, VIEW_ELEVATION_DEG = 24, 512, 15.0
"""The ring of cameras that is written, this many pixels a side."""
_ITERATION = re.compile(r"iteration_(\d{1,18})")


def write_inria_folder(
    path: Path, splats: SplatCloud, *, options: ExportOptions, origin: Origin, overwrite: bool = False
) -> ExportReport:
    """Write a cloud given in the training world as a new folder (UserError as ``SplatWriter``).

    A folder that exists is never replaced, whatever ``overwrite`` says.
    """
    refuse_existing(path)
    iteration = f"point_cloud/iteration_{origin.step or 0}"
    aside = path.with_name(f".{secrets.token_hex(4)}-{path.name[:50]}")
    try:
        with disk_errors(path):
            (aside / iteration).mkdir(parents=True)
        report = write_splat_ply(
            aside / iteration / "point_cloud.ply", splats, comments=origin.lines(), frame=options.frame
        )
        with disk_errors(path):
            degree = REST_COEFFICIENTS.index(splats.sh_rest.shape[1])
            (aside / "cfg_args").write_text(_cfg_args(degree))
            views = _views(origin.cameras or CameraConfig(), origin.unit, options.frame)
            (aside / "cameras.json").write_text(json.dumps(views))
            aside.rename(path)
    finally:
        with suppress(OSError):
            shutil.rmtree(aside)
    return report


def read_inria_folder(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read the last iteration of a folder (UserError as ``SplatReader``)."""
    found = _last_iteration(path)
    if found is None:
        raise UserError(f"cannot read {path}: it has no point_cloud/iteration_N/point_cloud.ply; give a .ply of splats")
    return read_splat_ply(found, frame=frame, max_splats=max_splats)


def _last_iteration(path: Path) -> Path | None:
    """Return the splats of the highest iteration that has some; None where there are none."""
    with disk_errors(path, "read"):
        folders = path / "point_cloud"
        found = [(entry, _ITERATION.fullmatch(entry.name)) for entry in folders.iterdir()] if folders.is_dir() else []
        numbered = [(int(match[1]), entry / "point_cloud.ply") for entry, match in found if match is not None]
        return max(((number, file) for number, file in numbered if file.is_file()), default=(0, None))[1]


def _cfg_args(degree: int) -> str:
    """Return the arguments that INRIA's programs read back, as Python prints a Namespace."""
    return (
        f"Namespace(data_device='cuda', eval=False, images='images', model_path='.', resolution=-1, "
        f"sh_degree={degree}, source_path='.', white_background=True)"
    )


def _views(cameras: CameraConfig, unit: float, frame: Frame) -> list[dict[str, Any]]:
    """Return a ring of cameras at the mean distance of training: positions, and rotations from OpenCV's axes."""
    distance, fov = cameras.middle
    focal = 0.5 * VIEW_SIZE / math.tan(0.5 * math.radians(fov))
    turn = frame_from_train(frame)
    file_from_train = np.eye(3) if turn is None else rotation_matrices(torch.tensor([turn], dtype=torch.float64))[0]
    height = math.radians(VIEW_ELEVATION_DEG)
    views = []
    for index in range(NUM_VIEWS):
        azimuth = 2.0 * math.pi * index / NUM_VIEWS
        outward = np.array(
            [math.cos(height) * math.cos(azimuth), math.cos(height) * math.sin(azimuth), math.sin(height)]
        )
        right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
        down = np.cross(-outward, right)
        rotation = np.asarray(file_from_train) @ np.stack([right, down, -outward], axis=1)
        place = np.asarray(file_from_train) @ outward * (distance * unit)
        name = f"ring_{index:02d}"
        view: dict[str, Any] = {"id": index, "img_name": name, "width": VIEW_SIZE, "height": VIEW_SIZE}
        views.append(view | {"position": place.tolist(), "rotation": rotation.tolist(), "fy": focal, "fx": focal})
    return views


def _recognizes(path: Path, head: bytes) -> bool:
    return path.is_dir() and _last_iteration(path) is not None


CODEC = SplatCodec(read=read_inria_folder, write=write_inria_folder, recognizes=_recognizes)
