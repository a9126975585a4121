"""Every representation that a config can name, and what a run has to know of each.

A new one is a module with its ``Scene``, a function that restores its representation from a saved state, an entry
here, and its name in ``RunConfig.representation``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sdi_gs.contracts import Representation, Scene, StartScene
from sdi_gs.errors import UserError
from sdi_gs.representations.gaussian_scene import GaussianScene, restore_gaussians
from sdi_gs.representations.initial_gaussians import kind_of_start
from sdi_gs.representations.ngp.scene import NgpScene, restore_ngp
from sdi_gs.settings.run import RunConfig


class MakeScene(Protocol):
    """How a scene is built; see ``make_scene`` for the arguments."""

    def __call__(
        self,
        config: RunConfig,
        *,
        generator: torch.Generator,
        device: torch.device,
        saved: dict[str, Any] | None = None,
        start: StartScene | None = None,
    ) -> Scene:
        """Return the scene."""
        ...


class RestoreRepresentation(Protocol):
    """How a representation is read from a scene's state."""

    def __call__(self, config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Representation:
        """Return the representation."""
        ...


@dataclass(frozen=True, kw_only=True)
class RepresentationEntry:
    """One representation."""

    description: str
    """What it is in a message: "a field"."""
    make: MakeScene
    restore: RestoreRepresentation
    needs_rasterizer: bool
    """Whether gsplat's kernels must be compiled before it renders on CUDA."""
    casts_rays: bool
    """Whether ``compute.rays_at_once`` bounds its memory."""
    run_to_start_from: Callable[[RunConfig], Path | None] | None
    """Return the run whose scene this config starts from, None if it starts otherwise.

    None instead of a function if the representation always starts anew.
    """


def _run_to_start_from(config: RunConfig) -> Path | None:
    is_run = kind_of_start(config.gaussians) == "run"
    return Path(config.gaussians.init_from or "") if is_run else None


CATALOG: dict[str, RepresentationEntry] = {
    "gaussians": RepresentationEntry(
        description="a cloud of Gaussians",
        make=GaussianScene,
        restore=restore_gaussians,
        needs_rasterizer=True,
        casts_rays=False,
        run_to_start_from=_run_to_start_from,
    ),
    "ngp": RepresentationEntry(
        description="a field",
        make=NgpScene,
        restore=restore_ngp,
        needs_rasterizer=False,
        casts_rays=True,
        run_to_start_from=None,
    ),
}
"""The entries by the names in ``RunConfig.representation``, under which a checkpoint holds their tensors too."""


def entry_of(config: RunConfig) -> RepresentationEntry:
    """Return the entry of the representation that a config names."""
    return CATALOG[config.representation]


def make_scene(
    config: RunConfig,
    *,
    generator: torch.Generator,
    device: torch.device,
    saved: dict[str, Any] | None = None,
    start: StartScene | None = None,
) -> Scene:
    """Build the configured scene at its start, or ready for the ``saved`` state that it will load.

    ``generator`` is on ``device``. ``start`` is the result of the run that the config starts from, if it does.
    Raises UserError for a start that cannot be had or exceeds the cap, and for a state of another representation.
    """
    if saved is not None:
        _require_same(config, saved)
    return entry_of(config).make(config, generator=generator, device=device, saved=saved, start=start)


def restore_representation(config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Representation:
    """Return what a trainer's ``state`` holds, for rendering.

    Raises UserError if it is not of the config's representation.
    """
    _require_same(config, state)
    return entry_of(config).restore(config, state, device=device)


def _require_same(config: RunConfig, state: dict[str, Any]) -> None:
    if config.representation not in state:
        raise UserError(
            f"the checkpoint holds no {config.representation}, the representation that its settings name: "
            "it belongs to another run"
        )
