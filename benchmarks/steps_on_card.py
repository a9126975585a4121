"""Time and memory of a Stable Diffusion 2.1 training step on a CUDA card, tier by tier and lever by lever.

    python benchmarks/steps_on_card.py --record docs/reports/gpu-measured.json     # on a card; minutes
    python benchmarks/steps_on_card.py --miniature --device cpu            # the same code in minutes, anywhere

Steps are those that ``memory_prediction.py`` counts (four views, Perp-Neg, 200 000 Gaussians), taken at three places of
the run with the run's mean number of predictor calls. Weights are random unless the real ones were fetched; they cost
the same. Levers are timed in turn with a step without them. No other program should use the card or the host's cores:
the number of busy cores at the start is recorded. ``--kernels`` also records the time of the card's kernels alone,
which does not depend on the host. The last line printed is one JSON object; ``memory_prediction.py --docs`` puts the
record beside the counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from memory_cases import BASE, LEVERS, cases, usual, with_changes
from torch.profiler import ProfilerActivity, profile

from sdi_gs.doctor.check_setup import synchronize
from sdi_gs.doctor.full_report import machine_facts
from sdi_gs.doctor.sd21_models import load_sd21, weights_at_hand
from sdi_gs.runs.provenance import versions
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

PLACES = (0.17, 0.5, 0.83)
"""Places of the timed steps in the part of the run with inversion."""


class Bench:
    """A prior on a device, and steps with it."""

    def __init__(self, device: torch.device, *, miniature: bool, with_kernels: bool = False) -> None:
        self.device, self.miniature, self.with_kernels = device, miniature, with_kernels
        self.weights = weights_at_hand(miniature=miniature)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.prior = load_sd21(self.weights, device=device, dtype=dtype)
        self.own_size = self.prior.image_size

    def trainer(self, config: RunConfig, size: int) -> Trainer:
        """Return a run at its beginning; the networks accept pictures of any size."""
        self.prior.image_size = size if not self.miniature else self.own_size
        if self.miniature:
            few = {"gaussians": replace(config.gaussians, num_initial=500), "views_per_step": 1}
            config = replace(config, guidance=replace(config.guidance, inversion_steps=1, perp_neg=False), **few)
        return Trainer(config, self.prior, device=self.device)

    def row(self, config: RunConfig, size: int) -> dict[str, Any]:
        """Measure seconds, calls and peaks of steps throughout a run."""
        trainer = self.trainer(config, size)
        trainer.step = config.steps // 2
        trainer.train_step()
        seconds: list[float] = []
        calls: list[int] = []
        self._restart_peak()
        began = config.guidance.random_fraction
        steps = [int((began + (1.0 - began) * place) * config.steps) for place in PLACES]
        for step in steps:
            trainer.step = step
            took, number = self.timed(trainer)
            seconds.append(took)
            calls.append(number)
        row = {"seconds": sum(seconds) / len(seconds), "calls": sum(calls) / len(calls), **self._peaks()}
        if self.with_kernels:
            kernels = 0.0
            for step in steps:
                trainer.step = step
                kernels += self.kernel_seconds(trainer)
            row["kernel_seconds"] = kernels / len(steps)
        return row

    def kernel_seconds(self, trainer: Trainer) -> float:
        """Return the seconds of a step in which the card computes or copies."""
        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as told:
            trainer.train_step()
            synchronize(self.device)
        return sum(event.self_device_time_total for event in told.key_averages()) / 1e6

    def timed(self, trainer: Trainer) -> tuple[float, int]:
        """Return seconds and predictor calls of one step."""
        synchronize(self.device)
        started = time.perf_counter()
        report = trainer.train_step()
        synchronize(self.device)
        return time.perf_counter() - started, report.predictor_calls

    def lever(self, changes: dict[str, Any], *, repeats: int) -> dict[str, float]:
        """Return median seconds of a step with and without a lever, measured in turn, and the peaks."""
        result: dict[str, list[float]] = {"with": [], "without": []}
        peaks: dict[str, dict[str, Any]] = {}
        first: dict[str, float] = {}
        for _ in range(2):
            for name, own in (("without", {}), ("with", changes)):
                config = with_changes(usual(), BASE | own)
                trainer = self.trainer(config, 512)
                trainer.step = config.steps // 2
                first.setdefault(f"first_step_{name}", self.timed(trainer)[0])
                self._restart_peak()
                for _ in range(repeats):
                    trainer.step = config.steps // 2
                    result[name].append(self.timed(trainer)[0])
                peaks[name] = self._peaks()
        told = first | {f"seconds_{name}": median(values) for name, values in result.items()}
        return told | {f"tensor_bytes_{name}": peak["tensor_bytes"] for name, peak in peaks.items()}

    def _restart_peak(self) -> None:
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peaks(self) -> dict[str, int | None]:
        if self.device.type != "cuda":
            return {"tensor_bytes": None, "reserved_bytes": None, "card_bytes": None}
        free, whole = torch.cuda.mem_get_info(self.device)
        return {
            "tensor_bytes": torch.cuda.max_memory_allocated(self.device),
            "reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            "card_bytes": whole - free,
        }


def wanted_cases(only: Sequence[str]) -> list[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Return the counted rows to measure: tiers, published runs, a million Gaussians, small pictures, fields."""
    return [
        (table, size, config, labels)
        for table, size, config, labels in cases()
        if table in only
        and (table != "steps" or (labels["views"] == 4 and labels["perp_neg"]))
        and (table != "clouds" or labels == {"views": 4, "gaussians": 1_000_000})
        and (table != "fields" or (labels["field"] == "preset" and labels["rays_at_once"]))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--miniature", action="store_true", help="narrow networks: a dry run")
    parser.add_argument("--tables", nargs="*", default=["tiers", "published", "steps", "clouds", "fields"])
    parser.add_argument("--levers", nargs="*", choices=list(LEVERS), default=list(LEVERS))
    parser.add_argument("--repeats", type=int, default=2, help="steps of each lever in each of two turns")
    parser.add_argument("--kernels", action="store_true", help="add what the card's kernels take: half a minute a row")
    parser.add_argument("--record", type=Path, help="file that is written after every row; what is in it is not redone")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = Bench(device, miniature=arguments.miniature, with_kernels=arguments.kernels)
    report: dict[str, Any] = {
        "machine": machine_facts(device),
        "versions": versions(),
        "weights": bench.weights.words,
        "cores": os.cpu_count(),
        "cores_busy_before": os.getloadavg()[0],
        "rows": [],
        "levers": {},
    }
    if arguments.record is not None and arguments.record.exists():
        recorded = json.loads(arguments.record.read_text(encoding="utf-8"))
        here, there = (facts["machine"].get("name", "a CPU") for facts in (report, recorded))
        if here != there:
            parser.error(f"{arguments.record} was recorded on {there}, this is {here}: give another file")
        report |= recorded

    def keep() -> None:
        if arguments.record is not None:
            arguments.record.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    for table, size, config, labels in wanted_cases(arguments.tables):
        key = {"table": table, "size": size, **labels}
        if any(key.items() <= known.items() for known in report["rows"]):
            continue
        row = key | bench.row(config, size)
        print(json.dumps(row), flush=True)
        report["rows"].append(row)
        keep()
    for name in (name for name in arguments.levers if name not in report["levers"]):
        report["levers"][name] = bench.lever(LEVERS[name], repeats=arguments.repeats)
        print(name, json.dumps(report["levers"][name]), flush=True)
        keep()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
