"""Batches on a Ray cluster of two nodes on this machine, disturbed at random moments; part of ``benchmarks/batch.py``.

Each fault is done to a batch of its own: a worker is killed, a node's raylet is killed, the program is killed, or the
second node joins only after the batch has begun. Then the same command is given once more if it did not end well.
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
from pathlib import Path
from typing import Any

from batch import SMALL, batch_command, list_of, timed

from sdi_gs.batch.journal import read_lines
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
        wanted = splats_of(folder / "calm")
        for repeat in range(repeats):
            for kind in KINDS:
                out = folder / f"{kind}-{repeat}"
                results.append({"fault": kind, **one_batch(kind, source, out, rng, wanted)})
                print(results[-1], file=sys.stderr, flush=True)
        results.append({"fault": "late node", **one_batch("late node", source, folder / "late", rng, wanted)})
        print(results[-1], file=sys.stderr, flush=True)
    good = sum(result["complete"] and result["equal"] and not result["made_twice"] for result in results)
    return {"batches": len(results), "good": good, "results": results, "bar": "good == batches"}


def one_batch(kind: str, source: Path, out: Path, rng: random.Random, wanted: dict[str, bytes]) -> dict[str, Any]:
    """Run one batch on a cluster of its own and disturb it in one way."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = None if kind == "late node" else cluster.add_node(num_cpus=1)
        command = batch_command(source, out, *SMALL, *LONG, "--engine", "ray", "--ray-address", str(cluster.address))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as program:
            wait_for_event(out, "checkpoint")
            time.sleep(rng.uniform(0.0, 8.0))
            match kind:
                case "worker":
                    os.kill(rng.choice(actors()), signal.SIGKILL)
                case "raylet":
                    cluster.remove_node(second, allow_graceful=False)
                case "program":
                    program.kill()
                case _:
                    cluster.add_node(num_cpus=1)
            program.communicate(timeout=SECONDS)
        commands = 1
        if program.returncode:
            commands = 2
            subprocess.run(command, check=False, capture_output=True, timeout=SECONDS)
    finally:
        cluster.shutdown()
    events = [values for values in read_lines(out / "batch.jsonl") if values["event"] not in ("batch", "row")]
    finished = Counter(values["key"] for values in events if values["event"] == "finished")
    return {
        "commands": commands,
        "complete": replay(out).count("finished") == len(wanted),
        "lost": sum(values["event"] == "lost" for values in events),
        "made_twice": sum(count > 1 for count in finished.values()),
        "machines": len({values.get("machine") for values in events}),
        "equal": splats_of(out) == wanted,
    }


def splats_of(out: Path) -> dict[str, bytes]:
    """Return the splats of a batch by the rows' keys."""
    return {path.parent.name: path.read_bytes() for path in out.glob("runs/*/splats.ply")}


def wait_for_event(out: Path, event: str) -> None:
    """Wait until a batch's journal has an event of this name."""
    end = time.monotonic() + SECONDS
    while not (out / "batch.jsonl").is_file() or f'"{event}"' not in (out / "batch.jsonl").read_text():
        if time.monotonic() > end:
            raise TimeoutError(f"no {event} in {out} after {SECONDS:.0f} s")
        time.sleep(0.1)


def actors() -> list[int]:
    """Return the processes of Ray's workers that make rows."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::RayWorker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
