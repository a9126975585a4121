"""The catalogue of representations: build, load and optimise the one that a config names.

The rows are in ``sdi_gs.settings.representations``; each names a module that defines ``ENTRY``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

from sdi_gs.contracts import Representation, Scene, StartScene
from sdi_gs.errors import UserError
from sdi_gs.settings.representations import REPRESENTATIONS
from sdi_gs.settings.run import RunConfig


class MakeScene(Protocol):
    """Builds a scene; see ``make_scene`` for the arguments."""

    def __call__(
        self,
        config: RunConfig,
        *,
        generator: torch.Generator,
        device: torch.device,
        saved: dict[str, Any] | None,
        start: StartScene | None,
    ) -> Scene:
        """Return the scene."""
        ...


class RestoreRepresentation(Protocol):
    """Reads a representation from a scene's state."""

    def __call__(self, config: RunConfig, state: dict[str, Any], *, device: torch.device) -> Representation:
        """Return the representation."""
        ...


@dataclass(frozen=True, kw_only=True)
class RepresentationEntry:
    """A representation that settings can name."""

    noun: str
    """Its name in messages: "a field"."""
    make: MakeScene
    """Called as ``make_scene`` is."""
    restore: RestoreRepresentation
    """Called as ``restore_representation`` is."""
    needs_rasterizer: bool = False
    """Whether gsplat's kernels must be compiled before it renders on CUDA."""
    casts_rays: bool = False
    """Whether ``compute.rays_at_once`` bounds its memory."""
    run_to_start_from: Callable[[RunConfig], Path | None] | None = None
    """Returns the run whose scene a config starts from, None if it starts otherwise.

    None instead of a function if the representation always starts anew.
    """


def entry_of(config: RunConfig) -> RepresentationEntry:
    """Return the entry of the representation that a config names."""
    return import_module(REPRESENTATIONS[config.representation]).ENTRY


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
