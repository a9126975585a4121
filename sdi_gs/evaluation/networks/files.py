"""The files of a network: a folder or file as it is, or the hub's cache; and what the manifest records of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.evaluation.networks.published import KNOWN, HubFiles, KnownNetwork, known_network
from sdi_gs.files import is_there
from sdi_gs.priors.fetch import SourceUnavailableError, files_of, readable_size, sha256_of
from sdi_gs.priors.hub_names import hub_name

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""Ends of files with weights; those without safetensors are read by torch's restricted reader, which runs no code."""
_ANY = ("*.json", "*.txt", "*.safetensors", "pytorch_model.bin")
_SUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class NetworkFiles:
    """The files of one network on this disk."""

    source: str
    """What the user gave."""
    name: str
    """The hub's id, or the path."""
    revision: str | None
    """Commit on the hub; None for a path."""
    weights: tuple[Path, ...]
    """The files with weights, in the order of their names."""
    others: tuple[Path, ...]
    """Configs and vocabularies."""

    def other(self, name: str) -> Path | None:
        """Return the file of that name beside the weights, or None."""
        return next((file for file in self.others if file.name == name), None)

    def sums(self) -> dict[str, str]:
        """Return the sha256 of each file with weights; the hub's cache names large files by theirs."""
        found = {}
        for file in self.weights:
            blob = file.resolve().name
            found[file.name] = blob if _SUM.fullmatch(blob) else sha256_of(file)
        return found


def network_files(source: str) -> NetworkFiles | None:
    """Return the files of a known name, a path or a hub id, without using the network; None if they are not here.

    Raises UserError for a source that is none of these, and for a path without weights.
    """
    if is_there(Path(source)):
        return _of_path(source, Path(source))
    wanted = _hub_files(source)
    folders = []
    for files in wanted:
        try:
            folders.append((files, files_of(files.repo_id, files.revision, files.wanted, local_files_only=True)))
        except SourceUnavailableError:
            return None
    found = [_matching(folder, files.wanted) for files, folder in folders]
    weights = tuple(file for file in found[0] if file.suffix in WEIGHTS)
    if not weights or any(not files for files in found):
        return None
    return NetworkFiles(
        source=source,
        name=wanted[0].repo_id,
        revision=folders[0][1].name,
        weights=_preferred(weights),
        others=tuple(file for files in found for file in files if file.suffix not in WEIGHTS),
    )


def fetch_network(network: KnownNetwork, say: Callable[[str], None] = lambda _: None) -> Path:
    """Download a known network into the hub's cache and return the folder of its weights."""
    say(f"{network.name}: asking for {network.files[0].repo_id}, {readable_size(network.download_bytes)}")
    folders = [files_of(files.repo_id, files.revision, files.wanted, local_files_only=False) for files in network.files]
    return folders[0]


def how_to_get(source: str) -> str:
    """Return the command that brings a network's files."""
    return f"sdi-gs priors fetch {source}" if known_network(source) else f"hf download {source}"


def _hub_files(source: str) -> tuple[HubFiles, ...]:
    known = known_network(source)
    if known is not None:
        return known.files
    named = hub_name(source)
    if named is None or named.file is not None:
        raise UserError(
            f"{source} is no network for scores: give {', '.join(network.name for network in KNOWN)}, a folder, a file "
            "or a hub id (owner/name)"
        )
    return (HubFiles(repo_id=named.repo_id, revision=named.revision, wanted=_ANY),)


def _of_path(source: str, path: Path) -> NetworkFiles:
    folder = path if path.is_dir() else path.parent
    listed = sorted(file for file in folder.iterdir() if file.is_file())
    weights = tuple(file for file in listed if file.suffix in WEIGHTS) if path.is_dir() else (path,)
    if not weights:
        raise UserError(f"{path} has no weights: no file that ends in {', '.join(WEIGHTS)}")
    others = tuple(file for file in listed if file.suffix in {".json", ".txt"})
    return NetworkFiles(source=source, name=str(path), revision=None, weights=_preferred(weights), others=others)


def _preferred(weights: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the safetensors where there are both, which hold the same."""
    safe = tuple(file for file in weights if file.suffix == ".safetensors")
    return safe or weights


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(file for file in folder.iterdir() if any(fnmatch(file.name, pattern) for pattern in patterns))
