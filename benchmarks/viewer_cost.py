"""Cost of the live viewer: speed and memory of training with and without clients.

    python benchmarks/viewer_cost.py [--preset toybox-ideal] [--rounds 5] [--seconds 6] [--crowd 50]

One trainer takes its steps in short blocks, one block of each kind per round in rotating order, so that slow spells of
the machine affect all kinds. A client is ``light_client.py`` in another process: it receives everything and moves its
camera like a browser, but draws nothing, because a software-rendering browser on the same cores would dominate (its own
CPU time is reported). Speeds are steps per second of wall time, relative to the block without a viewer of the same
round; they need a quiet machine. "cpu" is CPU time of the training process per step, all threads, and what the viewer
adds to it per second. ``observe_share`` is the viewer's share of the training thread's time.

Prints a line per kind and, last, one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.runs.events import StepDone
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.training.trainer import Trainer
from sdi_gs.viewer.server import LiveViewer

CLIENT = Path(__file__).with_name("light_client.py")
KINDS: dict[str, list[str] | None] = {
    "no viewer": None,
    "no client": None,
    "idle, splats": [],
    "idle, render": ["--picture", "render"],
    "orbiting, splats": ["--orbit"],
    "orbiting, render": ["--orbit", "--picture", "render"],
}
"""Kinds of blocks: nothing beside training, or a client with these options."""
CROWDS = 4
"""Number of crowds; the first one also pays for one-time costs."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Measurements of some seconds of training."""

    steps: int
    wall_seconds: float
    cpu_seconds: float
    """CPU time of the whole process."""
    observe_seconds: float
    """Seconds of the training thread within the viewer."""
    client: dict[str, Any] | None
    """The client's report."""

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.wall_seconds


@contextmanager
def client_process(address: str, options: list[str], answers: list[str]) -> Iterator[None]:
    """Connect a client while the body runs; its last line is appended to ``answers``."""
    command = [sys.executable, str(CLIENT), address, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the client did not connect")
        try:
            yield
        finally:
            process.stdin.close()
            answers.append(process.stdout.read().strip().splitlines()[-1])


def train_for(trainer: Trainer, seconds: float, viewer: LiveViewer | None) -> Block:
    """Take steps until the time is over; the first one, after a change, does not count."""
    step(trainer, viewer)
    observed, steps = 0.0, 0
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        observed += step(trainer, viewer)
        steps += 1
    return Block(
        steps=steps,
        wall_seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        observe_seconds=observed,
        client=None,
    )


def step(trainer: Trainer, viewer: LiveViewer | None) -> float:
    """Take one step, show it to the viewer, and return the viewer's seconds."""
    report = trainer.train_step()
    before = time.perf_counter()
    if viewer is not None:
        viewer.observe(StepDone(report=report))
    return time.perf_counter() - before


def measure(kind: str, trainer: Trainer, folder: RunFolder, seconds: float) -> Block:
    """Run one block of a kind; its client exists only meanwhile."""
    if kind == "no viewer":
        return train_for(trainer, seconds, None)
    with LiveViewer(trainer, folder, port=0) as viewer:
        options = KINDS[kind]
        if options is None:
            return train_for(trainer, seconds, viewer)
        answers: list[str] = []
        with client_process(f"http://127.0.0.1:{viewer.port}", options, answers):
            block = train_for(trainer, seconds, viewer)
        return replace(block, client=json.loads(answers[0]))


def summary(kind: str, rounds: list[dict[str, Block]]) -> dict[str, Any]:
    """Return medians over the rounds, speeds relative to the block without a viewer of the same round."""
    blocks, plain = ([blocks[each] for blocks in rounds] for each in (kind, "no viewer"))
    ratios = [blocks[kind].steps_per_second / blocks["no viewer"].steps_per_second for blocks in rounds]
    clients = [block.client for block in blocks if block.client is not None]
    return {
        "step_ms": 1e3 * statistics.median(block.wall_seconds / block.steps for block in blocks),
        "cpu_ms_per_step": 1e3 * statistics.median(block.cpu_seconds / block.steps for block in blocks),
        "extra_cpu_share": statistics.median(map(extra_cpu_share, blocks, plain)),
        "speed": statistics.median(ratios),
        "speeds": ratios,
        "observe_share": sum(b.observe_seconds for b in blocks) / sum(b.wall_seconds for b in blocks),
        "client_cpu_share": statistics.mean(c["cpu_seconds"] / c["seconds"] for c in clients) if clients else None,
        "client_mb_per_second": statistics.mean(c["received_mb"] / c["seconds"] for c in clients) if clients else None,
        "renders_per_second": statistics.mean(c["renders_per_second"] for c in clients) if clients else None,
    }


def extra_cpu_share(block: Block, plain: Block) -> float:
    """Return CPU seconds beyond those of as many plain steps, per second of wall time."""
    return (block.cpu_seconds - block.steps * plain.cpu_seconds / plain.steps) / block.wall_seconds


def memory_of_crowds(trainer: Trainer, folder: RunFolder, crowd: int) -> dict[str, Any]:
    """Return resident MiB before the clients and after each crowd, while training continues."""
    with LiveViewer(trainer, folder, port=0) as viewer:
        train_for(trainer, 1.0, viewer)
        before, after = resident_mb(), []
        for _ in range(CROWDS):
            answers: list[str] = []
            options = ["--crowd", str(crowd), "--picture", "render"]
            with client_process(f"http://127.0.0.1:{viewer.port}", options, answers):
                train_for(trainer, 2.0, viewer)
            train_for(trainer, 1.0, viewer)
            after.append(resident_mb())
        left = len(viewer.server.get_clients())
    return {"crowd": crowd, "before_mb": before, "after_each_mb": after, "clients_left": left}


def resident_mb() -> float:
    """Return the resident memory of this process, after garbage collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--preset", default="toybox-ideal")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a block")
    parser.add_argument("--crowd", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    base = preset_named(options.preset).config
    # A cloud that does not grow, so that the steps of all blocks are of one size.
    config = replace(base, prompt="a blue robot", steps=10**6, densify=replace(base.densify, enabled=False))
    with tempfile.TemporaryDirectory() as scratch:
        trainer, folder = prepare_run(config, device=torch.device(options.device), folder=Path(scratch) / "run")
        # Kernels, caches and the first page are made before anything is timed.
        for kind in ("no viewer", "orbiting, render"):
            measure(kind, trainer, folder, 1.0)
        rounds = []
        for turn in range(options.rounds):
            order = list(KINDS)[turn % len(KINDS) :] + list(KINDS)[: turn % len(KINDS)]
            rounds.append({kind: measure(kind, trainer, folder, options.seconds) for kind in order})
        results = {kind: summary(kind, rounds) for kind in KINDS}
        memory = memory_of_crowds(trainer, folder, options.crowd)
    for kind, result in results.items():
        print(
            f"{kind:18s} {result['step_ms']:8.1f} ms/step  speed {result['speed']:.3f}  "
            f"cpu {result['cpu_ms_per_step']:7.1f} ms/step, {100 * result['extra_cpu_share']:5.1f} % of a core more  "
            f"observing {100 * result['observe_share']:.2f} %"
        )
    print(f"memory {memory['before_mb']:.0f} MiB, after each crowd {[round(mb) for mb in memory['after_each_mb']]}")
    print(
        json.dumps(
            {
                "benchmark": "viewer_cost",
                "preset": options.preset,
                "n_gaussians": trainer.scene.representation.num_points,
                "cores": os.cpu_count(),
                "rounds": options.rounds,
                "kinds": results,
                "memory": memory,
                "blocks": [{kind: asdict(block) for kind, block in blocks.items()} for blocks in rounds],
            }
        )
    )


if __name__ == "__main__":
    main()
