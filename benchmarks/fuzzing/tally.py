"""What was seen of each kind of inputs, in memory and in a file from which a later call goes on counting."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HANG_CPU_SECONDS = 20.0


@dataclass(kw_only=True)
class Tally:
    """What was seen of one kind."""

    following: int = 0
    """Number of the next input."""
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    peak_mib: float = 0.0
    slowest_seconds: float = 0.0
    mended: int = 0
    """Faults that were tried again and are none any more."""
    faults: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Count one input, and print it if it is a fault."""
        self.inputs += 1
        seconds = record.get("seconds", 0.0)
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if not record["fault"] and seconds > HANG_CPU_SECONDS:
            record["fault"] = f"{seconds:.0f} CPU seconds"
        if record["fault"]:
            self.faults.append(record)
            print(json.dumps(record, indent=1), file=sys.stderr, flush=True)
        else:
            self.accepted += record["code"] == 0
            self.refused += record["code"] == 2

    def replace_fault(self, fault: dict[str, Any], again: Tally) -> None:
        """Take a fault out, and count in what its input does now."""
        self.faults.remove(fault)
        self.faults += again.faults
        self.mended += not again.faults
        self.accepted += again.accepted
        self.refused += again.refused
        self.peak_mib = max(self.peak_mib, again.peak_mib)
        self.slowest_seconds = max(self.slowest_seconds, again.slowest_seconds)


def load_tallies(file: Path | None, kinds: Sequence[str], *, seed: int, first: int) -> dict[str, Tally]:
    """Return a tally of each kind, as it is in the file or new; all of those in the file are among them."""
    tallies: dict[str, Tally] = {}
    if file is not None and file.exists():
        saved = json.loads(file.read_text())
        if saved["seed"] != seed:
            raise SystemExit(f"{file} counts inputs of seed {saved['seed']}: give that, or another file")
        tallies = {kind: Tally(**tally) for kind, tally in saved["kinds"].items()}
    return tallies | {kind: Tally(following=first) for kind in kinds if kind not in tallies}


def save_tallies(file: Path | None, tallies: dict[str, Tally], *, seed: int) -> None:
    """Write all tallies to the file, whole or not at all."""
    if file is not None:
        aside = file.with_name(f"{file.name}.new")
        aside.write_text(json.dumps({"seed": seed, "kinds": {kind: asdict(tally) for kind, tally in tallies.items()}}))
        os.replace(aside, file)


def summary_of(tallies: dict[str, Tally], *, seconds: float, seed: int) -> dict[str, Any]:
    """Return the counts of each kind and the sum of inputs, faults as numbers."""
    found = {}
    for kind, tally in tallies.items():
        found[kind] = asdict(tally) | {"faults": len(tally.faults)}
        del found[kind]["following"]
    total = sum(tally.inputs for tally in tallies.values())
    return {"inputs": total, "seconds": round(seconds), "seed": seed, **found}
