"""Load scenes from a run, from one of its checkpoints, or from a splat file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdi_gs.contracts import Representation, Scene, StartScene
from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.pictures.views import ring_cameras
from sdi_gs.representations.catalog import entry_of, restore_representation
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    config_in_force,
    is_checkpoint,
    latest_checkpoint,
    load_checkpoint,
)
from sdi_gs.runs.checkpoint_contents import scene_of, state_of
from sdi_gs.runs.folder import RunFolder, open_run_folder
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.run import RunConfig
from sdi_gs.splats.contents import Contents, contents_of
from sdi_gs.splats.formats import read_splats, readable_nouns, readable_suffixes
from sdi_gs.splats.splat_cloud import SplatCloud

START_VIEWS, START_SIZE, START_ELEVATION_DEG = 8, 128, 15.0
"""The ring of views, this many pixels a side, in which a start has to look like the run that it is made from."""


@dataclass(frozen=True, kw_only=True)
class RunOrigin:
    """The run that a scene comes from."""

    folder: RunFolder
    config: RunConfig
    """What was in force at the checkpoint."""
    step: int
    """Finished steps at the checkpoint."""
    representation: str
    """The representation by its name in the config, or the class of a scene of one's own."""


@dataclass(frozen=True, kw_only=True)
class SavedScene:
    """A representation, and where it comes from."""

    representation: Representation
    path: Path
    run: RunOrigin | None
    """None for a file."""

    def splats(self) -> SplatCloud:
        """Return its splats on the host; raises UserError for a representation without."""
        cloud = self.representation.splats()
        if cloud is None:
            kind = "" if self.run is None else f"a run of representation {self.run.representation}, "
            raise UserError(
                f"{self.path} is {kind}{self.representation.describe()} without splats: make some with "
                f"sdi-gs export {self.path}, or export a mesh with --format glb"
            )
        return cloud.cpu()

    @property
    def prompt(self) -> str | None:
        """The run's prompt; None for a file."""
        return self.run.config.prompt if self.run is not None else None


AnyScene = SavedScene | Scene | Representation
"""What can be exported and scored: a loaded scene, one that is being trained, or what either shows."""


def representation_of(scene: AnyScene) -> Representation:
    """Return the representation of a scene."""
    shown: Any = getattr(scene, "representation", scene)
    return shown


def load(
    path: Path | str, *, device: torch.device | str = "cpu", frame: Frame = "viewer", scene: Scene | None = None
) -> SavedScene:
    """Load a run folder at its latest checkpoint, one of its checkpoints, or a splat file whose axes ``frame`` names.

    A checkpoint is given as its folder or as a file in it. A run of a scene of your own needs such a ``scene``, which
    its state is loaded into. Raises UserError for any other path, and for a damaged checkpoint or file.
    """
    path = Path(path)
    if not is_there(path):
        raise UserError(f"{path} does not exist: give a run folder, a checkpoint of one, a {readable_suffixes()} file")
    found = contents_of(path)
    if found.splat_format is not None:
        cloud = read_splats(path, found.splat_format, frame=frame)
        return SavedScene(representation=gaussians_from_splats(cloud, device=device), path=path, run=None)
    if not path.is_dir() and found.kind != "checkpoint":
        raise UserError(f"cannot open {path}: it is {found.seen}; {_way_to_show(path, found)}")
    if frame != "viewer":
        raise UserError(f"frame {frame} names the axes of a file, and {path} is {found.seen}: leave it out")
    representation, run = load_run_scene(path, device=device, scene=scene)
    return SavedScene(representation=representation, path=path, run=run)


def _way_to_show(path: Path, found: Contents) -> str:
    """Return the advice for a file of something that is no finished scene."""
    if found.kind in ("mesh", "points"):
        return f"start a run from it: sdi-gs train --init-from {path}"
    return found.advice or f"give {readable_nouns()}, a run folder or a checkpoint of one"


def load_run_scene(
    path: Path, *, device: torch.device | str = "cpu", scene: Scene | None = None
) -> tuple[Representation, RunOrigin]:
    """Load what a run optimised, at its latest checkpoint or the one at ``path``.

    ``scene`` is for a run of a scene of your own. Raises UserError for a path that is neither a run nor a checkpoint
    of one, for a damaged checkpoint, and for a ``scene`` of another class than the run's.
    """
    chosen = checkpoint_folder(path) if is_checkpoint(path) else None
    folder = open_run_folder(chosen.parent.parent if chosen is not None else path)
    checkpoint = load_checkpoint(chosen or latest_checkpoint(folder.checkpoints))
    require_scene(path, checkpoint, scene)
    state = state_of(checkpoint)
    config = config_in_force(checkpoint)
    if scene is None:
        name, representation = config.representation, restore_representation(config, state, device=torch.device(device))
    else:
        scene.load_state(state)
        name, representation = type(scene).__qualname__, scene.representation
    return representation, RunOrigin(folder=folder, config=config, step=checkpoint.step, representation=name)


def load_start(config: RunConfig, *, device: torch.device) -> StartScene | None:
    """Load the run that a config's scene starts from; None if it does not start from a run."""
    run_to_start_from = entry_of(config).run_to_start_from
    path = None if run_to_start_from is None else run_to_start_from(config)
    if path is None:
        return None
    representation, origin = load_run_scene(path, device=device)
    views = ring_cameras(origin.config.cameras, START_VIEWS, START_SIZE, elevation_deg=START_ELEVATION_DEG)
    return StartScene(representation=representation, cameras=views)


def require_scene(path: Path, checkpoint: Checkpoint, scene: Scene | None) -> None:
    """Raise UserError unless ``scene`` is of the class that the checkpoint was trained with; None: a configured one."""
    trained, given = scene_of(checkpoint), None if scene is None else type(scene).__qualname__
    if trained == given:
        return
    if trained is None:
        raise UserError(
            f"{path} is a run of representation {config_in_force(checkpoint).representation}, not of a {given}: "
            "load it without scene="
        )
    raise UserError(
        f"{path} is a run of a scene of one's own, {trained}, which only the code that defines it can load: "
        f"pass scene={trained}(...) to sdi_gs.load or sdi_gs.prepare_resume"
        + ("" if given is None else f", not a {given}")
    )
