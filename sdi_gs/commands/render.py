"""``sdi-gs render``: pictures of a finished scene in a folder of their own: film, contact sheet, frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sdi_gs.commands.common import pick_device, print_paths
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.files import make_new_folder, make_numbered_folder
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BackgroundName
from sdi_gs.settings.bounds import Range, check_settings
from sdi_gs.settings.cameras import LookConfig
from sdi_gs.settings.frames import Frame

if TYPE_CHECKING:
    import numpy as np

    from sdi_gs.runs.loading import SavedScene

MAX_PIXELS = 250_000_000
"""Pixels of one contact sheet: 9 bytes each for views, sheet and PNG. A film's are never held at once."""


@dataclass(frozen=True, kw_only=True)
class Render:
    """Render an object: a turntable film, a contact sheet and, with --save-frames, every frame."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder (its latest checkpoint is shown), a checkpoint, or a splat file."""
    out: Path | None = None
    """Folder for the pictures, new or empty; the next free <source>-render-<n> if not given."""
    size: Annotated[int, Range(16, 4096)] = 512
    """Side of the pictures in pixels."""
    frames: Annotated[int, Range(0, 3600)] = 60
    """Frames of the film; 0 for no film."""
    views: Annotated[int, Range(0, 256)] = 8
    """Views on the contact sheet; 0 for no sheet."""
    elevation: Annotated[float, Range(-90.0, 90.0)] = 15.0
    """Height of the camera above the horizon, degrees."""
    background: BackgroundName = "white"
    """Colour behind the object."""
    save_frames: bool = False
    """Also write every frame of the film as a picture."""
    camera: LookConfig = LookConfig()
    frame: Frame = "viewer"
    """Axes that a splat file has: those of splat viewers, or those of training."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.frames == self.views == 0:
            raise ValueError("frames and views are both 0: there is nothing to render")
        if self.views * self.size**2 > MAX_PIXELS:
            raise ValueError(
                f"{self.views} views of {self.size} x {self.size} pixels are more than {MAX_PIXELS / 1e6:.0f} million "
                "pixels, which must fit into memory: lower --size or --views"
            )


def render(options: Render) -> int:
    """Render a scene and print the paths of the pictures."""
    from sdi_gs.runs.loading import load

    scene = load(options.source, device=pick_device(options.device), frame=options.frame)
    print_paths(render_to_folder(scene, options))
    return 0


def render_to_folder(scene: SavedScene, options: Render) -> list[Path]:
    """Write film, sheet and frames as the options say; return the paths.

    Raises UserError if ``out`` exists, or is named like a file.
    """
    import numpy as np
    import torch

    from sdi_gs.pictures.images import save_contact_sheet
    from sdi_gs.pictures.turntable import save_turntable
    from sdi_gs.pictures.views import pictures
    from sdi_gs.runs.showing import shown_scene

    shown = shown_scene(scene, options.camera)
    for remark in shown.remarks:
        say(remark)
    background = BACKGROUND_COLOURS[options.background]
    folder = _new_folder(options.out, scene)
    written = []
    if options.views:
        ring = shown.framing.ring(options.views, options.size, elevation_deg=options.elevation)
        labels = [f"{azimuth:.0f} deg" for azimuth in ring.azimuth_deg.tolist()]
        views = np.concatenate(list(pictures(shown.representation, ring, background)))
        written.append(folder / "contact_sheet.png")
        save_contact_sheet(written[-1], torch.from_numpy(views), labels=labels)
    if options.frames:
        ring = shown.framing.ring(options.frames, options.size, elevation_deg=options.elevation)
        parts = pictures(shown.representation, ring, background)
        saved: list[Path] = []
        written.append(folder / "turntable.mp4")
        save_turntable(written[-1], _saved(parts, folder, saved) if options.save_frames else parts)
        written += saved
    return written


def _saved(parts: Iterable[np.ndarray], folder: Path, saved: list[Path]) -> Iterator[np.ndarray]:
    """Write every picture on its way to the film, and add its path to ``saved``."""
    import torch

    from sdi_gs.pictures.images import save_png

    for part in parts:
        for picture in part:
            saved.append(folder / f"frame_{len(saved):04d}.png")
            save_png(saved[-1], torch.from_numpy(picture))
        yield part


def _new_folder(out: Path | None, scene: SavedScene) -> Path:
    """Make the folder asked for, or the next free one in a run or beside a file."""
    if out is None:
        source = scene.path
        return make_numbered_folder(
            scene.run.folder.path / "render" if scene.run else source.with_name(f"{source.stem}-render")
        )
    if out.suffix.lower() in (".mp4", ".gif", ".mov", ".webm", ".png", ".jpg", ".jpeg"):
        raise UserError(f"--out {out} is a folder for film, sheet and frames, and no file: leave {out.suffix} out")
    make_new_folder(out)
    return out
