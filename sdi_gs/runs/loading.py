"""Scenes from where they lie: a run, one of its checkpoints, or a splat file of any origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch

from sdi_gs.errors import UserError
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.splat_conversion import gaussians_from_cloud
from sdi_gs.runs.checkpoint import (
    checkpoint_folder,
    config_in_force,
    is_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    unpack_state,
)
from sdi_gs.runs.folder import RunFolder, open_run_folder
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.run import RunConfig
from sdi_gs.splats.formats import read_splats, readable_suffixes


@dataclass(frozen=True, kw_only=True)
class RunOrigin:
    """The run that a scene comes from."""

    folder: RunFolder
    config: RunConfig
    """What was in force at the checkpoint."""
    step: int
    """Finished steps at the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class SavedScene:
    """A cloud or a field, and where it comes from."""

    representation: Gaussians | Ngp
    path: Path
    run: RunOrigin | None
    """None for a bare file."""

    @property
    def gaussians(self) -> Gaussians:
        """The cloud; UserError where it is a field."""
        if not isinstance(self.representation, Gaussians):
            raise UserError(
                f"{self.path} is a run of representation ngp, a field without splats: start splats from it with "
                "sdi-gs train --init-from, or export a mesh with --format glb"
            )
        return self.representation

    @property
    def num_gaussians(self) -> int:
        """0 for a field."""
        return len(self.representation) if isinstance(self.representation, Gaussians) else 0

    @property
    def prompt(self) -> str | None:
        """The run's prompt; None for a bare file."""
        return self.run.config.prompt if self.run is not None else None


def load_scene(path: Path, *, device: torch.device | str = "cpu", frame: Frame = "viewer") -> SavedScene:
    """A run folder at its latest checkpoint, one of its checkpoints, or a splat file whose axes ``frame`` names.

    A checkpoint may be given as its folder or as a file in it. Raises UserError where ``path`` is none of these,
    and where the checkpoint or the file is damaged.
    """
    if path.is_dir() or is_checkpoint(path):
        representation, run = load_run_scene(path, device=device)
        return SavedScene(representation=representation, path=path, run=run)
    if not path.exists():
        raise UserError(f"{path} does not exist: give a run folder, a checkpoint of one, a {readable_suffixes()} file")
    gaussians = gaussians_from_cloud(read_splats(path, frame=frame), device=device)
    return SavedScene(representation=gaussians, path=path, run=None)


def load_run_scene(path: Path, *, device: torch.device | str = "cpu") -> tuple[Gaussians | Ngp, RunOrigin]:
    """What a run optimised, at its latest checkpoint, or of the one that ``path`` names.

    Raises UserError where ``path`` is neither a run nor a checkpoint within one, and for a damaged checkpoint.
    """
    chosen = checkpoint_folder(path) if is_checkpoint(path) else None
    folder = open_run_folder(chosen.parent.parent if chosen is not None else path)
    checkpoint = load_checkpoint(chosen or latest_checkpoint(folder.checkpoints))
    state = unpack_state(checkpoint.tensors, checkpoint.meta["state"])
    config = config_in_force(checkpoint)
    representation = saved_representation(config, state, device=torch.device(device))
    return representation, RunOrigin(folder=folder, config=config, step=checkpoint.step)


def saved_representation(config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Gaussians | Ngp:
    """What a trainer's ``state`` holds, for looking at; UserError where it is not of the config's representation."""
    require_same_kind(config, state)
    match config.representation:
        case "gaussians":
            return Gaussians({name: value.to(device) for name, value in state["gaussians"].items()})
        case "ngp":
            ngp = Ngp(config.ngp, generator=torch.Generator(device).manual_seed(0), device=device)
            ngp.load_state(state["ngp"])
            return ngp
        case _:
            assert_never(config.representation)


def require_same_kind(config: RunConfig, state: dict[str, Any]) -> None:
    """UserError where a trainer's ``state`` is not of the representation that its settings name."""
    if config.representation not in state:
        raise UserError(
            f"the checkpoint holds no {config.representation}, the representation that its settings name: "
            "it belongs to another run"
        )
