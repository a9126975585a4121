"""Measure on one CUDA card, within ten minutes, what the pages on cost give as counted; nothing else may use the card.

    python benchmarks/one_card.py --record card.json
    python benchmarks/one_card.py --device cpu --miniature --parts tiers fast   # the same code without a card, minutes

Each row has a measured figure beside the counted one: seconds and memory of a step on every tier at 512 pixels, of a
round of ``sd21-fast`` and of the published field with Triton's kernels and with torch operations; what each way of
launching takes; launches of a step with and without CUDA graphs; the host's time of an operation. The tests of the
kernels run first. What does not fit into the time is named. Weights are random unless the real ones were fetched; they
cost the same. ``steps_on_card.py`` measures more, in longer. The last line is one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from memory_cases import usual
from operators import on_card
from steps_on_card import Bench
from torch.profiler import ProfilerActivity, profile

import sdi_gs
from sdi_gs.doctor.check_setup import synchronize
from sdi_gs.doctor.full_report import machine_facts
from sdi_gs.runs.predicted_memory import predicted
from sdi_gs.runs.predicted_run import step_seconds
from sdi_gs.runs.provenance import versions
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TIERS, tier_named, under_tier

Part = Literal["tests", "tiers", "fast", "field", "ways", "launches"]
WAYS: dict[str, dict[str, Any]] = {
    "CUDA graphs": {"cuda_graphs": True},
    "fused Adam": {"fused_adam": True},
    "channels last": {"channels_last": True},
    "VAE in float16": {"vae_precision": "float16"},
}
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaGraphLaunch")
"""Calls of CUDA's library that launch something."""
TESTS = ("tests/representations/ngp/test_gpu.py", "tests/priors/test_graphed_unet.py")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    device: str = "cuda"
    miniature: bool = False
    """Narrow networks: a dry run."""
    minutes: float = 9.0
    """No part begins after this time."""
    parts: tuple[Part, ...] = field(default_factory=lambda: get_args(Part))
    record: Path | None = None
    """File that is written after every row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A measured figure, and the counted one if there is one."""

    what: str
    unit: str
    measured: float
    counted: float | None = None


class Card:
    """A device with Stable Diffusion's networks on it."""

    def __init__(self, settings: Settings) -> None:
        self.bench = Bench(torch.device(settings.device), miniature=settings.miniature)
        self.facts = machine_facts(self.bench.device)

    def counted(self, seconds: dict[str, float] | None) -> float | None:
        """Return the seconds that were counted for this card; None for a card that was not counted."""
        own = [value for name, value in (seconds or {}).items() if name in self.facts.get("name", "")]
        return own[0] if own else None

    def step(self, config: RunConfig, *, place: float = 0.5, repeats: int = 3) -> float:
        """Return the shortest seconds of a step that computes targets."""
        trainer = self.bench.trainer(config, 512)
        per_target = config.replay.steps_per_target
        times = []
        for _ in range(repeats + 1):
            trainer.step = int(place * config.steps) // per_target * per_target
            times.append(self.bench.timed(trainer)[0])
        return min(times[1:])


def tests(card: Card) -> Iterator[Row]:
    """Run the kernels' tests that need a card; the figure is the number of those that fail."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    yield Row(what="tests of kernels and graphs", unit="exit code", measured=done.returncode, counted=0)


def tiers(card: Card) -> Iterator[Row]:
    """Measure the usual step on every tier."""
    for tier in TIERS:
        row, counted = card.bench.row(usual(compute=tier.compute), 512), predicted(tier, 512)
        yield Row(
            what=f"step, tier {tier.name}",
            unit="s",
            measured=row["seconds"],
            counted=card.counted(counted["seconds"]),
        )
        if row["card_bytes"] is not None:
            gib = (row["card_bytes"] / 2**30, counted["peak_bytes"] / 2**30)
            yield Row(what=f"memory, tier {tier.name}", unit="GiB", measured=gib[0], counted=gib[1])


def fast(card: Card) -> Iterator[Row]:
    """Measure a round of ``sd21-fast``, and what a whole run of it would take."""
    config = sdi_gs.preset("sd21-fast", prompt="a corgi")
    config = replace(config, compute=under_tier(config.compute, tier_named("40").compute))
    trainer, rounds = card.bench.trainer(config, 512), []
    for _ in range(3):
        trainer.step = config.steps // 2 // config.replay.steps_per_target * config.replay.steps_per_target
        rounds.append([card.bench.timed(trainer)[0] for _ in range(config.replay.steps_per_target)])
    best = min(rounds[1:], key=sum)
    yield Row(what="sd21-fast, step with new targets", unit="s", measured=best[0])
    yield Row(what="sd21-fast, step on kept targets", unit="s", measured=min(best[1:]))
    mean, counted = sum(best) / len(best), card.counted(step_seconds(config, tier_named("40")))
    minutes = config.steps / 60.0
    yield Row(
        what="sd21-fast, whole run",
        unit="min",
        measured=mean * minutes,
        counted=None if counted is None else counted * minutes,
    )


def field_steps(card: Card) -> Iterator[Row]:
    """Measure a late step of the published field, by its kernels and by torch operations."""
    config = sdi_gs.preset("sdi-paper-ngp", prompt="a corgi")
    for kernels in ("auto", "torch"):
        compute = replace(tier_named("40").compute, field_kernels=kernels)
        counted = card.counted(step_seconds(config, tier_named("40"))) if kernels == "auto" else None
        seconds = card.step(replace(config, compute=compute))
        yield Row(what=f"published field, kernels {kernels}", unit="s", measured=seconds, counted=counted)


def ways(card: Card) -> Iterator[Row]:
    """Measure what each way of launching takes of the usual step."""
    plain = card.step(usual(compute=tier_named("40").compute))
    for name, changes in WAYS.items():
        if card.bench.device.type == "cuda" or not changes.get("cuda_graphs"):
            with_it = card.step(usual(compute=replace(tier_named("40").compute, **changes)))
            yield Row(what=f"{name}, step over one without", unit="1", measured=with_it / plain)


def launches(card: Card) -> Iterator[Row]:
    """Count a step's launches on tier 24 as CUDA sees them, and the host's time of an operation."""
    preset = sdi_gs.preset("sd21-base", prompt="a corgi")
    counted = on_card(preset, "24")["launches"]
    graphs = (False, True) if card.bench.device.type == "cuda" else (False,)
    for graphed in graphs:
        compute = replace(tier_named("24").compute, cuda_graphs=graphed)
        trainer = card.bench.trainer(usual(compute=compute), 512)
        trainer.step = trainer.config.steps // 2
        trainer.train_step()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as told:
            trainer.step = trainer.config.steps // 2
            trainer.train_step()
            synchronize(card.bench.device)
        found = sum(event.count for event in told.key_averages() if event.key in LAUNCHES)
        outside = sum(number for part, number in counted.items() if part not in ("unet", "graphs"))
        total = outside + counted["graphs" if graphed else "unet"]
        yield Row(
            what=f"launches of a step{' with graphs' if graphed else ''}", unit="1", measured=found, counted=total
        )
    # One row of small latents: the card waits for the host.
    prior = card.bench.prior
    small = torch.zeros(1, 4, 8, 8, device=card.bench.device)
    text = prior.embed_prompts(["a corgi"])
    prior.configure(ComputeConfig())
    times = []
    for _ in range(5):
        synchronize(card.bench.device)
        begun = time.perf_counter()
        prior.predict_noise(small, 500, text)
        synchronize(card.bench.device)
        times.append(time.perf_counter() - begun)
    yield Row(what="host's time of an operation", unit="us", measured=1e6 * min(times) / OPERATIONS, counted=40.0)


OPERATIONS = 690
"""Launches of one call of the U-Net."""
PARTS: dict[Part, Callable[[Card], Iterator[Row]]] = {
    "tests": tests,
    "tiers": tiers,
    "fast": fast,
    "field": field_steps,
    "ways": ways,
    "launches": launches,
}


def main(settings: Settings) -> None:
    """Measure part by part, and print."""
    begun, card = time.perf_counter(), Card(settings)
    report: dict[str, Any] = {
        "benchmark": "one_card",
        "machine": card.facts,
        "versions": versions(),
        "weights": card.bench.weights.words,
        "rows": [],
        "left_out": [],
    }
    for part in settings.parts:
        if time.perf_counter() - begun > 60.0 * settings.minutes:
            report["left_out"].append(part)
            continue
        for row in PARTS[part](card):
            counted = "" if row.counted is None else f", counted {row.counted:.4g}"
            print(f"{row.what}: {row.measured:.4g} {row.unit}{counted}", flush=True)
            report["rows"].append(asdict(row))
            if settings.record is not None:
                settings.record.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
