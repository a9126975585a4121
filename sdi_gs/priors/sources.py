"""Catalogue entries of priors: facts for lists, hub repositories, and a loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdi_gs.errors import UserError
from sdi_gs.priors.layout import missing_part

if TYPE_CHECKING:
    import torch

    from sdi_gs.contracts import DiffusionPrior, PredictionType
    from sdi_gs.settings.run import RunConfig


class PriorLoader(Protocol):
    """Function that loads the prior of a catalogue entry; heavy imports happen when it is called."""

    def __call__(self, entry: CatalogEntry, config: RunConfig, *, device: torch.device | str) -> DiffusionPrior:
        """Return the loaded prior; raises UserError for a model that is not available."""
        ...


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A repository on the hub at a fixed commit."""

    repo_id: str
    """``owner/name``."""
    revision: str | None
    """Commit, so that a name always means the same weights; None for the newest."""
    known_sha256: Mapping[str, str] = field(default_factory=dict)
    """Published sha256 sums of files, which a download must match."""
    pickle: str | None = None
    """File with the whole model, where there are pickles only: fetching converts it, once."""

    @property
    def text(self) -> str:
        """The source as people read it: repository, commit, and the file where it is a single one."""
        file = "" if self.pickle is None else f", {self.pickle}"
        return f"{self.repo_id}@{self.revision}{file}"


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """A prior known by name: facts for lists, and the function that loads it."""

    name: str
    """Name that ``--prior`` takes."""
    summary: str
    """One line for lists."""
    sources: tuple[HubSource, ...]
    """Mirrors in the order in which they are tried; empty if there is nothing to download."""
    licence: str
    """Licence of the weights."""
    download_bytes: int
    """Size of the safetensors of all components in float32; 0 if there is nothing to download."""
    prediction_type: PredictionType
    """What the network predicts, for lists; loading reads it from the model's own config."""
    load: PriorLoader
    """Function that loads it, called as ``load(entry, config, device=device)``."""
    check_prompt: Callable[[str], object] | None = None
    """Raises UserError for a prompt that the prior does not know, without loading it; None if it takes any."""
    is_instrument: bool = False
    """Whether it knows only toybox: made to measure the method, not to generate arbitrary objects."""
    knows_cameras: bool = False
    """Whether it can be given the camera instead of a view word, as the loaded prior's own ``knows_cameras``."""
    views_per_group: int = 1
    """Views of one object that it denoises together, as the loaded prior's own ``views_per_group``."""
    packaged: Path | None = None
    """The folder in Stable Diffusion 2.1's layout that comes with this package."""

    def packaged_folder(self) -> Path:
        """Return the folder that came with the package; UserError if it is missing or incomplete."""
        assert self.packaged is not None
        missing = missing_part(self.packaged)
        if missing is not None:
            raise UserError(
                f"{self.name} comes with this package, but the model in {self.packaged} lacks its {missing}: "
                f"install the package again, or use toybox-ideal, which needs no weights"
            )
        return self.packaged
