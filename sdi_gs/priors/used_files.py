"""The files that a run's prior, LoRAs and textual inversions come from, and their sums: a run uses the same ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.priors.fetch import sha256_of
from sdi_gs.settings.priors import lora_and_weight
from sdi_gs.settings.run import RunConfig


def used_files(config: RunConfig) -> list[tuple[Path, float | None]]:
    """Return a single file's prior, the LoRAs with their weights, and the textual inversions; UserError if one is gone.

    Folders and repositories are not among them: the catalogue's are checked when they are fetched.
    """
    prior = Path(config.prior)
    files: list[tuple[Path, float | None]] = [(prior, None)] if is_there(prior) and prior.is_file() else []
    for text in config.lora:
        name, weight = lora_and_weight(text)
        files.append((Path(name), weight))
    files += [(Path(name), None) for name in config.embedding]
    for file, _ in files:
        if not (is_there(file) and file.is_file()):
            raise UserError(f"there is no file {file}: check --lora FILE[:WEIGHT] and --embedding FILE")
    return files


def with_sums(config: RunConfig) -> RunConfig:
    """Return the config with the sums of its files; UserError if they are not those that it has already."""
    files = used_files(config)
    sums = tuple(sha256_of(file) for file, _ in files)
    if config.prior_sums and config.prior_sums != sums:
        pairs = zip(files, sums, config.prior_sums, strict=False)
        changed = [str(file) for (file, _), now, before in pairs if now != before]
        raise UserError(
            f"{', '.join(changed) or 'the list of files'} changed since this run's config was written: put the file "
            "back, or start a new run"
        )
    return replace(config, prior_sums=sums)


def as_records(config: RunConfig) -> list[dict[str, Any]]:
    """Return the files with weights and sums, for ``summary.json``; without sums where none were recorded."""
    names: list[tuple[str, float | None]] = [lora_and_weight(text) for text in config.lora]
    names += [(name, None) for name in config.embedding]
    if len(config.prior_sums) > len(names):
        names.insert(0, (config.prior, None))
    sums = config.prior_sums or (None,) * len(names)
    return [
        {"file": name, "sha256": sum_of_file} | ({} if weight is None else {"weight": weight})
        for (name, weight), sum_of_file in zip(names, sums, strict=False)
    ]
