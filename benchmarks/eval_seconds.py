"""CPU seconds of ``sdi-gs eval`` without any weights: one run, and several in one process (docs/eval.md).

    python benchmarks/eval_seconds.py outputs/a-blue-robot-1 --times 20

The same run is scored several times, as the rows of a batch are. Each line is a process of its own; the last line
printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def cpu_seconds(runs: list[Path]) -> float:
    """Return the CPU seconds of one process that scores these runs with all that needs no weights."""
    before = _children()
    environment = {**os.environ, "HF_HUB_CACHE": os.devnull}
    command = [sys.executable, "-m", "sdi_gs", "eval", *map(str, runs), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the seconds of one run and of several."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--times", type=int, default=20, help="runs that one process scores")
    parser.add_argument("--repeats", type=int, default=3, help="processes with one run, of which the quickest counts")
    options = parser.parse_args()
    one = min(cpu_seconds([options.run]) for _ in range(options.repeats))
    print(f"one run: {one:.1f} CPU seconds")
    many = cpu_seconds([options.run] * options.times)
    print(f"{options.times} runs in one process: {many:.1f} CPU seconds, {many / options.times:.1f} each")
    found: dict[str, Any] = {"one": round(one, 2), "times": options.times, "many": round(many, 2)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
