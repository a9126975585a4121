"""Damaged and extreme inputs by the thousand, tried on the program: ``python benchmarks/fuzz.py --minutes 30``.

Every kind of input is tried in turn, in a process of its own that is watched from here: an exception, a wrong exit code
or message, a lost or left-over file, more than 20 CPU seconds and more than 4 GiB are faults. Each is printed with the
number that makes it again: ``--kind ply --first 1234 --count 1``. Prints one JSON object last; exit code 1 for faults.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzzing.attempt import attempt, generator_of
from fuzzing.targets import TARGETS, target_named

HANG_CPU_SECONDS, HANG_WALL_SECONDS, MOST_MIB = 20.0, 600.0, 4096.0
"""Bounds on one input; that on wall time is for what waits instead of computing, and wide for a busy machine."""
SLICE_SECONDS = 60.0
"""Time of a kind before the next one has its turn."""


@dataclass(kw_only=True)
class Tally:
    """What was seen of one kind."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    peak_mib: float = 0.0
    slowest_seconds: float = 0.0
    faults: list[dict[str, Any]] = field(default_factory=list)


def work(kind: str, seed: int, first: int, folder: Path) -> None:
    """Try inputs from ``first`` on, for as long as this process lives; a line of JSON before and after each."""
    from sdi_gs.commands.main import main

    target, out = target_named(kind), sys.stdout
    good = target.prepare(folder)
    index = first
    while True:
        print(json.dumps({"begin": index}), file=out, flush=True)
        place = folder / str(index)
        outcome = attempt(target, good, generator_of(kind, seed, index), place, index, main=main)
        shutil.rmtree(place)
        print(json.dumps(asdict(outcome)), file=out, flush=True)
        index += 1


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process; 0 once it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far; 0 once it is gone."""
    try:
        # Behind the name, which may hold blanks: user and system time are the 14th and 15th field.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines_of(process: subprocess.Popen[bytes], tally: Tally, until: float) -> Iterator[dict[str, Any]]:
    """Yield what a worker prints, and a fault if it takes too long or too much memory, until a point of time."""
    pipe = process.stdout
    assert pipe is not None
    running, since, spent = None, time.monotonic(), 0.0
    while True:
        if select.select([pipe], [], [], 0.05)[0]:
            line = pipe.readline()
            if not line:
                yield {"index": running, "fault": f"the process ended with {process.wait()}"}
                return
            record = json.loads(line)
            running, since, spent = record.get("begin", running), time.monotonic(), cpu_seconds(process.pid)
            yield record
            if "begin" not in record and time.monotonic() > until:
                return
        used = rss_mib(process.pid)
        tally.peak_mib = max(tally.peak_mib, used)
        waited, computed = time.monotonic() - since, cpu_seconds(process.pid) - spent
        # Before the first input the program is imported and good inputs are made.
        hangs = running is not None and computed > HANG_CPU_SECONDS
        if used > MOST_MIB or hangs or waited > HANG_WALL_SECONDS:
            yield {"index": running, "fault": f"{used:.0f} MiB, {computed:.0f} CPU seconds, {waited:.0f} s"}
            return


def turn(kind: str, seed: int, first: int, tally: Tally, *, until: float, count: int) -> int:
    """Try inputs of one kind until a point of time, at most ``count``; return the index of the next."""
    following, last = first, first + count
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--work", folder, "--kind", kind, "--seed", str(seed)]
        process = subprocess.Popen([*command, "--first", str(first)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            for record in lines_of(process, tally, until):
                if "begin" in record:
                    continue
                following = (first if record["index"] is None else record["index"]) + 1
                count_in(tally, record)
                if following >= last:
                    break
        finally:
            process.kill()
            process.wait()
    return following


def count_in(tally: Tally, record: dict[str, Any]) -> None:
    """Add one input to what was seen."""
    tally.inputs += 1
    seconds = record.get("seconds", 0.0)
    tally.slowest_seconds = max(tally.slowest_seconds, seconds)
    if not record["fault"] and seconds > HANG_CPU_SECONDS:
        record["fault"] = f"{seconds:.0f} CPU seconds"
    if record["fault"]:
        tally.faults.append(record)
        print(json.dumps(record, indent=1), file=sys.stderr, flush=True)
    else:
        tally.accepted += record["code"] == 0
        tally.refused += record["code"] == 2


def main() -> int:
    """Try all kinds in turn, or one; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="time for all kinds together")
    parser.add_argument("--kind", choices=TARGETS, action="append", help="one kind; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=10**9, help="inputs of each kind at most")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kind or list(TARGETS)
    if options.work is not None:
        work(kinds[0], options.seed, options.first, options.work)
    started = time.monotonic()
    end = started + 60.0 * options.minutes
    tallies = {kind: Tally() for kind in kinds}
    places: dict[str, int] = {kind: options.first for kind in kinds}
    open_kinds = list(kinds)
    while open_kinds and time.monotonic() < end:
        for kind in list(open_kinds):
            share = (end - time.monotonic()) / len(open_kinds)
            until = time.monotonic() + max(min(SLICE_SECONDS, share), 1.0)
            left = options.first + options.count - places[kind]
            places[kind] = turn(kind, options.seed, places[kind], tallies[kind], until=until, count=left)
            if places[kind] >= options.first + options.count:
                open_kinds.remove(kind)
    faults = Counter({kind: len(tally.faults) for kind, tally in tallies.items()})
    found = {kind: {**asdict(tally), "faults": faults[kind]} for kind, tally in tallies.items()}
    total = sum(tally.inputs for tally in tallies.values())
    print(json.dumps({"inputs": total, "seconds": round(time.monotonic() - started), "seed": options.seed, **found}))
    return 1 if faults.total() else 0


if __name__ == "__main__":
    raise SystemExit(main())
