"""Rows of a batch: one object to make each. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdi_gs.runs.folder import slug

RUNS = "runs"
"""Folder in a batch's folder that holds the run folders."""

_HASH_DIGITS = 12
"""48 bits: two of 10 000 rows share a key once in five million batches."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One object to make: a prompt, a seed, and settings of its own over those of the batch."""

    index: int
    """Position in the batch, from 0."""
    key: str
    """``<slug>-<hash>``: the name of the run folder, the same for the same prompt, seed and settings."""
    prompt: str
    """The sentence to turn into an object."""
    seed: int
    """Seed of every random draw of the run."""
    name: str = ""
    """Name that the source gives the row; empty if it gives none."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The row's own settings by dotted name, such as {"guidance.noise": "random"}; they win over the batch's."""
    line: int
    """Line of the source that the row comes from, from 1."""

    def folder(self, out: Path) -> Path:
        """Return the row's run folder in the batch's folder."""
        return out / RUNS / self.key

    @property
    def given(self) -> dict[str, Any]:
        """The settings that the row gives by dotted name, prompt and seed included."""
        return {**self.settings, "prompt": self.prompt, "seed": self.seed}

    def as_json(self) -> dict[str, Any]:
        """Return plain values; ``row_from_json`` reads them."""
        return {
            "key": self.key,
            "index": self.index,
            "line": self.line,
            "prompt": self.prompt,
            "seed": self.seed,
            "name": self.name,
            "settings": dict(self.settings),
        }


def new_row(
    *, index: int, line: int, prompt: str, seed: int, name: str = "", settings: Mapping[str, Any] | None = None
) -> Row:
    """Return a row with its key; rows of the same prompt, seed and settings get the same key, whatever their name."""
    own = dict(settings or {})
    key = f"{slug(prompt)}-{_hash_of(prompt, seed, own)}"
    return Row(index=index, key=key, prompt=prompt, seed=seed, name=name, settings=own, line=line)


def row_from_json(values: Mapping[str, Any]) -> Row:
    """Return the row of ``Row.as_json``'s values; raises KeyError for missing ones."""
    return Row(
        index=values["index"],
        key=values["key"],
        prompt=values["prompt"],
        seed=values["seed"],
        name=values.get("name", ""),
        settings=values.get("settings", {}),
        line=values["line"],
    )


def _hash_of(prompt: str, seed: int, settings: Mapping[str, Any]) -> str:
    text = json.dumps([prompt, seed, settings], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
