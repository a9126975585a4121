"""A finished cloud as pictures in a folder of their own: film, contact sheet, frames."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

import numpy as np
import torch

from sdi_gs.files import disk_errors, refuse_existing
from sdi_gs.pictures.images import save_contact_sheet, save_png, to_uint8
from sdi_gs.pictures.turntable import save_turntable
from sdi_gs.pictures.views import render_views, ring_cameras, split_cameras
from sdi_gs.runs.loading import SavedScene
from sdi_gs.settings.cameras import CameraConfig


def render_to_folder(
    scene: SavedScene,
    *,
    out: Path | None,
    size: int,
    num_frames: int,
    num_views: int,
    elevation_deg: float,
    background: tuple[float, float, float],
    save_frames: bool = False,
) -> list[Path]:
    """Write a film of ``num_frames`` and a sheet of ``num_views`` (none where 0); returns what was written.

    A bare file is seen from the default camera distance. Raises UserError where ``out`` exists.
    """
    cameras = scene.run.config.cameras if scene.run is not None else CameraConfig()
    folder = _new_folder(out, scene)
    written = []
    if num_views:
        ring = ring_cameras(cameras, num_views, size, elevation_deg=elevation_deg)
        labels = [f"{azimuth:.0f} deg" for azimuth in ring.azimuth_deg.tolist()]
        written.append(folder / "contact_sheet.png")
        save_contact_sheet(written[-1], render_views(scene.representation, ring, background).rgb, labels=labels)
    if num_frames:
        ring = ring_cameras(cameras, num_frames, size, elevation_deg=elevation_deg)
        # Bytes and not floats: a film has many pixels.
        parts = [to_uint8(render_views(scene.representation, part, background).rgb) for part in split_cameras(ring)]
        frames = torch.from_numpy(np.concatenate(parts))
        written.append(folder / "turntable.mp4")
        save_turntable(written[-1], frames)
        if save_frames:
            for index, frame in enumerate(frames):
                written.append(folder / f"frame_{index:04d}.png")
                save_png(written[-1], frame)
    return written


def _new_folder(out: Path | None, scene: SavedScene) -> Path:
    """The folder asked for, or the next free one in a run or beside a file."""
    if out is not None:
        refuse_existing(out)
        folder = out
    else:
        source = scene.path
        stem = scene.run.folder.path / "render" if scene.run else source.with_name(f"{source.stem}-render")
        folder = next(path for n in count(1) if not os.path.lexists(path := stem.with_name(f"{stem.name}-{n}")))
    with disk_errors(folder):
        folder.mkdir(parents=True)
    return folder
