"""What `sdi-gs batch` saves, survives and needs: throughput, equal bytes, faults on a Ray cluster, scale, memory.

    python benchmarks/batch.py throughput --prompts 16      # two workers, Ray's, and a shell loop of sdi-gs train
    python benchmarks/batch.py start                        # what a single run pays before its first step, part by part
    python benchmarks/batch.py equality                     # local, Ray and single runs, byte for byte
    python benchmarks/batch.py faults --repeats 5           # kills workers, nodes and the program; a node joins late
    python benchmarks/batch.py scale                        # 10 000 rows on 256 workers, simulated
    python benchmarks/batch.py memory --rows 200            # resident memory of one worker, row after row

Arms of a ratio are interleaved. Everything runs on toybox, an instrument: what is measured is the machinery. The last
line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from sdi_gs.batch.journal import read_lines
from sdi_gs.batch.local_engine import LOGS
from sdi_gs.batch.state import replay

CLASSES = ("robot", "mushroom", "house", "car", "chair", "table", "mug", "tree")
COLOURS = ("blue", "red", "green", "yellow", "purple", "orange", "pink", "white", "black", "brown")
SMALL = ["--preset", "smoke", "--device", "cpu", "--outputs.preview-every", "0"]


def prompts(count: int) -> list[str]:
    """Return so many different prompts, neighbours of different objects; beyond 80 they begin again."""
    texts = [f"a {colour} {name}" for colour, name in product(COLOURS, CLASSES)]
    return [texts[index % len(texts)] for index in range(count)]


def list_of(folder: Path, count: int) -> Path:
    """Write a list of prompts as a table, with a seed for each, so that none is the same twice."""
    path = folder / "list.csv"
    lines = [f"{text},{index // 80}" for index, text in enumerate(prompts(count))]
    path.write_text("\n".join(["prompt,seed", *lines]) + "\n")
    return path


def batch_command(source: Path, out: Path, *options: str) -> list[str]:
    """Return the command of a batch."""
    return [sys.executable, "-m", "sdi_gs", "batch", str(source), "--output-dir", str(out), *options]


def timed(command: Sequence[str], **options: Any) -> tuple[float, float]:
    """Run a command that must succeed; return its wall and CPU seconds, its children's included."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def throughput(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare two local workers, two of Ray's and a loop of single runs, in turns."""
    settings = ["--device", "cpu", *(["--steps", str(arguments.steps)] if arguments.steps else [])]
    engines = {"local": [], "ray": ["--engine", "ray"]}
    if arguments.no_ray:
        del engines["ray"]
    loops = [] if arguments.no_loop else ["loop"]
    walls: dict[str, list[float]] = {arm: [] for arm in (*engines, *loops)}
    cpus: dict[str, list[float]] = {arm: [] for arm in walls}
    rows: dict[str, tuple[list[float], list[float]]] = {arm: ([], []) for arm in engines}

    def note(arm: str, wall: float, cpu: float) -> None:
        walls[arm].append(wall)
        cpus[arm].append(cpu)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = list_of(folder, arguments.prompts)
        # Compiled kernels and toybox's pictures of a prompt are kept on the disk: without this the first arm alone
        # would pay for them.
        single_runs(folder / "warm", arguments.prompts, ["--device", "cpu", "--steps", "2"])
        for repeat in range(arguments.repeats):
            for arm, engine in engines.items():
                out = folder / f"{arm}-{repeat}"
                note(arm, *timed(batch_command(source, out, *settings, *engine, "--workers", "2", *arguments.options)))
                for seconds in seconds_by_worker(out):
                    rows[arm][0].append(seconds[0])
                    rows[arm][1].extend(seconds[1:])
            for arm in loops:
                note(arm, *single_runs(folder / f"{arm}-{repeat}", arguments.prompts, settings))
    ratios = {
        f"{one}/{other}_{name}": statistics.median(b / a for a, b in zip(times[one], times[other], strict=True))
        for one, other in (("local", "loop"), ("ray", "local"))
        if {one, other} <= walls.keys()
        for name, times in (("wall", walls), ("cpu", cpus))
    }
    return {
        "prompts": arguments.prompts,
        "wall_seconds": walls,
        "cpu_seconds": cpus,
        # Prompts per second of the first arm over those of the second. Processes that Ray leaves to others do not count
        # in its CPU seconds.
        "speed": ratios,
        "first_row_seconds": {arm: statistics.median(first) for arm, (first, _) in rows.items()},
        "later_row_seconds": {arm: statistics.median(later) if later else None for arm, (_, later) in rows.items()},
        "bar": "local/loop_wall >= 2.0 and ray/local_wall >= 0.95 on two free cores",
    }


def seconds_by_worker(out: Path) -> list[list[float]]:
    """Return the seconds of each worker's rows in the order in which they were finished."""
    found: dict[str, list[float]] = {}
    for values in read_lines(out / "batch.jsonl"):
        if values["event"] == "finished":
            found.setdefault(values["worker"], []).append(values["seconds"])
    return list(found.values())


def single_runs(folder: Path, count: int, settings: Sequence[str]) -> tuple[float, float]:
    """Make the prompts one after the other by ``sdi-gs train``; return the wall and CPU seconds of all."""
    command = [sys.executable, "-m", "sdi_gs", "train", *settings, "--seed", "0"]
    runs = [
        timed([*command, "--prompt", text, "--output-dir", str(folder / str(index))])
        for index, text in enumerate(prompts(count))
    ]
    return sum(wall for wall, _ in runs), sum(cpu for _, cpu in runs)


def start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the CPU seconds that a worker pays once and every single run anew.

    Those of a run without its steps; what is added where no compiled kernels, or no pictures of its prompt, are kept.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [
            sys.executable,
            "-m",
            "sdi_gs",
            "train",
            "--device",
            "cpu",
            "--steps",
            "2",
            "--outputs.turntable-frames",
            "0",
        ]
        command += ["--prompt", prompts(1)[0]]
        cold = {"warm": {}, "pictures": {"SDI_GS_CACHE": ""}, "kernels": {"NUMBA_CACHE_DIR": str(folder / "kernels")}}
        seconds: dict[str, list[float]] = {arm: [] for arm in cold}
        timed([*command, "--output-dir", str(folder / "first")])
        for repeat, arm in product(range(arguments.repeats), cold):
            out = folder / f"{arm}-{repeat}"
            if arm == "kernels":
                shutil.rmtree(folder / "kernels", ignore_errors=True)
            _, cpu = timed([*command, "--output-dir", str(out)], env={**os.environ, **cold[arm]})
            seconds[arm].append(cpu)
    best = {arm: min(found) for arm, found in seconds.items()}
    return {
        "run_without_steps": best["warm"],
        "pictures": best["pictures"] - best["warm"],
        "kernels": best["kernels"] - best["warm"],
        "cpu_seconds": seconds,
    }


def equality(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the splats of a local batch, a Ray batch and single runs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = list_of(folder, arguments.prompts)
        timed(batch_command(source, folder / "local", *SMALL, "--workers", "2"))
        timed(batch_command(source, folder / "ray", *SMALL, "--engine", "ray", "--workers", "2"))
        same = 0
        for known in replay(folder / "local").rows:
            single = folder / "single" / known.row.key
            own = ["--prompt", known.row.prompt, "--seed", str(known.row.seed), "--output-dir", str(single)]
            timed([sys.executable, "-m", "sdi_gs", "train", *SMALL, *own])
            files = [known.row.folder(folder / name) / "splats.ply" for name in ("local", "ray")]
            same += len({path.read_bytes() for path in (*files, single / "splats.ply")}) == 1
    return {"prompts": arguments.prompts, "equal": same, "bar": "all equal"}


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Watch the resident memory of one worker while it makes row after row."""
    readings: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder, options = Path(scratch), [*SMALL, "--steps", "4", "--outputs.turntable-frames", "0"]
        source, out = list_of(folder, arguments.rows), folder / "out"
        command = batch_command(source, out, *options, "--workers", "1")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
            while program.poll() is None:
                time.sleep(0.1)
                if (out / "batch.jsonl").is_file():
                    done = (out / "batch.jsonl").read_bytes().count(b'{"event": "finished"')
                    resident = _resident_of_child(program.pid)
                    if resident is not None:
                        readings[done] = max(resident, readings.get(done, 0.0))
        if program.returncode:
            raise RuntimeError(f"the batch ended with {program.returncode}; see {out / LOGS}")
    early, late = (_around(readings, row) for row in (arguments.rows // 10, arguments.rows - 1))
    return {
        "rows": arguments.rows,
        "mib_early": early,
        "mib_late": late,
        "growth": late / early - 1.0,
        "by_row": {row: round(mib) for row, mib in islice(sorted(readings.items()), 0, None, 10)},
        "bar": "growth <= 0.03",
    }


def _around(readings: dict[int, float], row: int) -> float:
    """Return the largest reading while the row, or one of the two before it, was made."""
    return max(mib for done, mib in readings.items() if row - 2 <= done <= row)


def _resident_of_child(pid: int) -> float | None:
    """Return the MiB that the program's worker holds; None before there is one."""
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except (OSError, ValueError):
            continue
        if int(fields["PPid"]) == pid and "VmRSS" in fields:
            return int(fields["VmRSS"].split()[0]) / 1024
    return None


def scale(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the simulated batch."""
    from batch_scale import simulated

    bar = "idle_share <= 0.02, replay_seconds <= 2"
    return {**simulated(arguments.rows, arguments.workers), "bar": bar}


def faults(arguments: argparse.Namespace) -> dict[str, Any]:
    """Disturb batches on a cluster of two nodes."""
    from batch_faults import disturbed

    return disturbed(arguments.repeats, arguments.prompts, seed=arguments.seed)


def main() -> None:
    """Run the chosen part and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("throughput")
    part.add_argument("--prompts", type=int, default=16)
    part.add_argument("--steps", type=int)
    part.add_argument("--repeats", type=int, default=3)
    part.add_argument("--options", nargs="*", default=[], help="further options of the batches")
    part.add_argument("--no-ray", action="store_true", help="leave the arm of Ray out")
    part.add_argument("--no-loop", action="store_true", help="leave the arm of single runs out")
    part.set_defaults(run=throughput)
    part = parts.add_parser("start")
    part.add_argument("--repeats", type=int, default=3)
    part.set_defaults(run=start)
    part = parts.add_parser("equality")
    part.add_argument("--prompts", type=int, default=4)
    part.set_defaults(run=equality)
    part = parts.add_parser("faults")
    part.add_argument("--repeats", type=int, default=5)
    part.add_argument("--prompts", type=int, default=6)
    part.add_argument("--seed", type=int, default=0)
    part.set_defaults(run=faults)
    part = parts.add_parser("scale")
    part.add_argument("--rows", type=int, default=10_000)
    part.add_argument("--workers", type=int, default=256)
    part.set_defaults(run=scale)
    part = parts.add_parser("memory")
    part.add_argument("--rows", type=int, default=200)
    part.set_defaults(run=memory)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    print(json.dumps({"part": arguments.part, **arguments.run(arguments)}))


if __name__ == "__main__":
    main()
