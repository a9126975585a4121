"""Damaged and extreme inputs by the thousand, tried on the program: ``python benchmarks/fuzz.py --minutes 30``.

Every kind of input is tried in turn, in a process of its own that is watched from here: an exception, a wrong exit code
or message, a lost or left-over file, more than 20 CPU seconds and more than 4 GiB are faults. Each is printed with the
number that makes it again: ``--kind ply --first 1234 --count 1``. Prints one JSON object last; exit code 1 for faults.

``--tally FILE`` goes on from the counts in the file, and tries the faults in it again first.
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
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzzing.attempt import attempt, generator_of
from fuzzing.splat_commands import SHORT_RUN
from fuzzing.tally import HANG_CPU_SECONDS, Tally, load_tallies, save_tallies, summary_of
from fuzzing.targets import TARGETS, target_named

HANG_WALL_SECONDS, MOST_MIB = 600.0, 4096.0
"""Bounds on one input; that on wall time is for what waits instead of computing, and wide for a busy machine."""
SLICE_SECONDS = 120.0
"""Time of a kind before the next one has its turn."""


def work(kind: str, seed: int, first: int, folder: Path) -> None:
    """Try inputs from ``first`` on, for as long as this process lives; a line of JSON before and after each."""
    from sdi_gs.commands.main import main

    target = target_named(kind)
    # Records have a descriptor of their own: whatever the program, a library or a child prints is none.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    (folder / "good").mkdir(exist_ok=True)
    good = target.prepare(folder / "good")
    if not (folder / "warm").exists():
        # Compiles the kernels, whose time is none of the first input's.
        main([*SHORT_RUN, "--steps", "2", "--output-dir", str(folder / "warm")])
    index = first
    while True:
        print(json.dumps({"begin": index}), file=out, flush=True)
        place = folder / "inputs" / str(index)
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


def turn(kind: str, seed: int, tally: Tally, *, until: float, count: int, folder: Path) -> None:
    """Try inputs of one kind until a point of time, at most ``count``; ``folder`` keeps its good inputs."""
    folder.mkdir(exist_ok=True)
    last = tally.following + count
    command = [sys.executable, __file__, "--work", str(folder), "--kind", kind, "--seed", str(seed)]
    command += ["--first", str(tally.following)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for record in lines_of(process, tally, until):
            if "begin" in record:
                continue
            if record["index"] is None:
                raise SystemExit(f"no inputs of {kind} can be made: {record['fault']}; run {' '.join(command)}")
            tally.following = record["index"] + 1
            tally.add(record)
            if tally.following >= last:
                break
    finally:
        process.kill()
        process.wait()
        # A process that was ended leaves the input that it was at.
        shutil.rmtree(folder / "inputs", ignore_errors=True)


def try_faults_again(tallies: dict[str, Tally], seed: int, *, end: float, folder: Path) -> None:
    """Try the inputs of all faults, and keep those that are faults still."""
    for kind, tally in tallies.items():
        for fault in list(tally.faults):
            again = Tally(following=fault["index"])
            turn(kind, seed, again, until=end, count=1, folder=folder / kind)
            tally.replace_fault(fault, again)


def try_kinds(kinds: list[str], tallies: dict[str, Tally], options: argparse.Namespace, *, end: float) -> None:
    """Try all kinds in turn until a point of time, or until each had its number of inputs."""
    with tempfile.TemporaryDirectory() as folder:
        try_faults_again(tallies, options.seed, end=end, folder=Path(folder))
        ends = {kind: tallies[kind].following + options.count for kind in kinds}
        while kinds and time.monotonic() < end:
            for kind in list(kinds):
                share = (end - time.monotonic()) / len(kinds)
                until = time.monotonic() + max(min(SLICE_SECONDS, share), 1.0)
                left = ends[kind] - tallies[kind].following
                turn(kind, options.seed, tallies[kind], until=until, count=left, folder=Path(folder) / kind)
                save_tallies(options.tally, tallies, seed=options.seed)
                if tallies[kind].following >= ends[kind]:
                    kinds.remove(kind)


def main() -> int:
    """Try all kinds in turn, or one; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="time for all kinds together")
    parser.add_argument("--kind", choices=TARGETS, action="append", help="one kind; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=10**9, help="inputs of each kind at most")
    parser.add_argument("--tally", type=Path, help="file of counts, to go on from and to write")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kind or list(TARGETS)
    if options.work is not None:
        work(kinds[0], options.seed, options.first, options.work)
    started = time.monotonic()
    tallies = load_tallies(options.tally, kinds, seed=options.seed, first=options.first)
    try_kinds(list(kinds), tallies, options, end=started + 60.0 * options.minutes)
    print(json.dumps(summary_of(tallies, seconds=time.monotonic() - started, seed=options.seed)))
    return 1 if any(tally.faults for tally in tallies.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
