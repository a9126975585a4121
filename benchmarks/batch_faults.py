"""Batches on a Ray cluster of two nodes on this machine, disturbed at random moments; part of ``benchmarks/batch.py``.

Each fault is done to a batch of its own: a worker is killed, a node's raylet is killed, the program is killed, or the
second node joins only after the batch has begun. Then the same command is given once more if it did not end well. A
fault that came after the batch's end is none: it is done again, to another batch.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from batch import SMALL, batch_command, list_of, timed

from sdi_gs.batch.journal import JOURNAL, read_lines
from sdi_gs.batch.state import replay

KINDS = ("worker", "raylet", "program")
LONG = ["--steps", "200", "--outputs.checkpoint-every", "20", "--outputs.turntable-frames", "0"]
SECONDS = 900.0
"""Longest time of one batch."""


def disturbed(repeats: int, num_prompts: int, *, seed: int) -> dict[str, Any]:
    """Disturb ``repeats`` batches in each way, and one by a late node; return what became of them."""
    rng, results = random.Random(seed), list[dict[str, Any]]()
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = list_of(folder, num_prompts)
        timed(batch_command(source, folder / "calm", *SMALL, *LONG, "--workers", "2"))
        wanted, span = splats_of(folder / "calm"), span_of(folder / "calm")
        for repeat, kind in [*product(range(repeats), KINDS), (0, "late node")]:
            result, late = None, -1
            while result is None:
                late += 1
                out = folder / f"{kind}-{repeat}-{late}"
                result = one_batch(kind, source, out, rng.uniform(0.0, span), rng, wanted)
            results.append({"fault": kind, "too_late_before": late, **result})
            print(results[-1], file=sys.stderr, flush=True)
    good = sum(result["complete"] and result["equal"] and not result["made_twice"] for result in results)
    return {"batches": len(results), "good": good, "results": results, "bar": "good == batches"}


def one_batch(
    kind: str, source: Path, out: Path, delay: float, rng: random.Random, wanted: dict[str, bytes]
) -> dict[str, Any] | None:
    """Run one batch on a cluster of its own and disturb it in one way, some seconds after its first checkpoint.

    None if it had ended before.
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = None if kind == "late node" else cluster.add_node(num_cpus=1)
        command = batch_command(source, out, *SMALL, *LONG, "--engine", "ray", "--ray-address", str(cluster.address))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as program:
            wait_for_event(out, "checkpoint")
            time.sleep(delay)
            workers = actors(cluster)
            if program.poll() is not None or not workers:
                program.communicate(timeout=SECONDS)
                return None
            match kind:
                case "worker":
                    os.kill(rng.choice(workers), signal.SIGKILL)
                case "raylet":
                    cluster.remove_node(second, allow_graceful=False)
                case "program":
                    program.kill()
                case _:
                    cluster.add_node(num_cpus=1)
            _, said = program.communicate(timeout=SECONDS)
        commands = 1
        if program.returncode:
            commands = 2
            said += subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS).stderr
    finally:
        cluster.shutdown()
    events = [values for values in read_lines(out / JOURNAL) if values["event"] not in ("batch", "row")]
    finished = Counter(values["key"] for values in events if values["event"] == "finished")
    complete, equal = replay(out).count("finished") == len(wanted), splats_of(out) == wanted
    if not complete or not equal:
        print(said, file=sys.stderr, flush=True)
    return {
        "seconds": round(delay, 1),
        "commands": commands,
        "complete": complete,
        "lost": sum(values["event"] == "lost" for values in events),
        "made_twice": sum(count > 1 for count in finished.values()),
        "machines": len({values.get("machine") for values in events}),
        "equal": equal,
    }


def splats_of(out: Path) -> dict[str, bytes]:
    """Return the splats of a batch by the rows' keys."""
    return {path.parent.name: path.read_bytes() for path in out.glob("runs/*/splats.ply")}


def wait_for_event(out: Path, event: str) -> None:
    """Wait until a batch's journal has an event of this name."""
    end = time.monotonic() + SECONDS
    while not (out / JOURNAL).is_file() or f'"{event}"' not in (out / JOURNAL).read_text():
        if time.monotonic() > end:
            raise TimeoutError(f"no {event} in {out} after {SECONDS:.0f} s")
        time.sleep(0.1)


def span_of(out: Path) -> float:
    """Return the seconds between a batch's first checkpoint and its end."""
    times = [datetime.fromisoformat(values["time"]) for values in read_lines(out / JOURNAL) if is_saved(values)]
    return (times[-1] - times[0]).total_seconds()


def is_saved(values: Mapping[str, Any]) -> bool:
    """Return whether an event leaves something of a row on the disk."""
    return values["event"] in ("checkpoint", "finished")


def actors(cluster: Any) -> list[int]:
    """Return the processes of a cluster's workers that make rows."""
    raylets = {one.process.pid for node in cluster.list_all_nodes() for one in node.all_processes["raylet"]}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name, parent = (path / "cmdline").read_bytes(), (path / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if name.startswith(b"ray::RayWorker") and int(parent) in raylets:
            found.append(int(path.name))
    return found
