"""Open whatever can be scored: a run, a checkpoint, a splat file, a mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from sdi_gs.errors import UserError
from sdi_gs.evaluation.foreign_scenes import mesh_scene
from sdi_gs.files import is_there
from sdi_gs.runs.loading import SavedScene, load
from sdi_gs.runs.showing import shown_scene
from sdi_gs.settings.cameras import LookConfig
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.contents import contents_of


def open_scored(
    path: Path,
    *,
    device: torch.device | str = "cpu",
    frame: Frame = "viewer",
    look: LookConfig | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SavedScene:
    """Return the scene at a path, files as the usual cameras show them; remarks on that are said.

    Raises UserError for a path that is nothing of this kind, and for a ``look`` at a run or a mesh.
    """
    look = look or LookConfig()
    if is_there(path) and path.is_file() and contents_of(path).kind == "mesh":
        _refuse_look(look, "a mesh is fitted into the cameras' sight")
        return SavedScene(representation=mesh_scene(path, frame=frame), path=path, run=None)
    scene = load(path, device=device, frame=frame)
    if scene.run is not None:
        _refuse_look(look, "a run is scored from its training cameras")
        return scene
    shown = shown_scene(scene, look)
    for remark in shown.remarks:
        say(remark)
    return replace(scene, representation=shown.representation)


def _refuse_look(look: LookConfig, why: str) -> None:
    if look != LookConfig():
        raise UserError(f"--camera.* options are for files: {why}")
