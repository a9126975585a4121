"""Check "cost": where the time of a training step goes, and its peak memory beside the shipped prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.distilled import PROMPT
from sdi_gs.doctor.rows import Row, at_most, shown, skipped
from sdi_gs.doctor.sd21_models import MODEL, load_sd21, weights_at_hand
from sdi_gs.doctor.stopwatch import timed_parts
from sdi_gs.priors.catalog import load_prior
from sdi_gs.runs.predicted_memory import predicted_of_check
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

MEMORY_LIMIT = 0.10
"""Share of the prediction. It counts tensors; torch's allocator measures the bytes that it handed out for tensors."""
MIB = 2**20

Measure = Callable[[torch.device], int | None]


def peak_of_tensors(device: torch.device) -> int | None:
    """Return the most bytes of tensors since the last reset; None for a CPU, where torch does not count them."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def check_cost(
    setup: CheckSetup,
    *,
    measure: Measure = peak_of_tensors,
    predict: Callable[[RunConfig], int | None] = predicted_of_check,
) -> Iterator[Row]:
    """Time both runs' steps by part, and compare Stable Diffusion's peak memory with the prediction.

    ``measure`` reads the peak, ``predict`` returns the predicted one, both in bytes. Without a prediction the measured
    peak has no verdict.
    """
    toybox = replace(setup.toybox, prompt=PROMPT)
    yield from _step_rows(setup, toybox, load_prior(toybox, device=setup.device))
    weights = weights_at_hand(miniature=setup.size.miniature)
    config, tier = setup.stable_diffusion_on_tier()
    config = replace(config, prompt=PROMPT)
    dtype = torch.float16 if setup.device.type == "cuda" else torch.float32
    held = _restart_peak(setup.device)
    prior = load_sd21(weights, device=setup.device, dtype=dtype)
    _restart_peak(setup.device)
    yield from _step_rows(
        setup, config, prior, note="; ".join(filter(None, (tier and f"tier {tier.name}", weights.words)))
    )
    peak = measure(setup.device)
    # The table counts the published networks.
    yield from memory_rows(
        predicted=None if weights.miniature else predict(config), measured=None if peak is None else peak - held
    )


def _restart_peak(device: torch.device) -> int:
    """Reset the peak and return the bytes of the tensors that exist already; 0 for a CPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _step_rows(setup: CheckSetup, config: RunConfig, prior: DiffusionPrior, *, note: str = "") -> Iterator[Row]:
    """Time steps in the middle of a run: milliseconds of each part, and steps per second."""
    trainer = Trainer(config, prior, device=setup.device)
    # Half-way the inversion has half of its steps, which is about the mean over a run.
    trainer.step = config.steps // 2
    for _ in range(setup.size.warm_up_steps):
        trainer.train_step()
    # Whole rounds, of which only the first step computes targets.
    per_target = config.replay.steps_per_target
    steps = math.ceil(setup.size.timed_steps / per_target) * per_target
    with timed_parts(trainer) as stopwatch:
        for _ in range(steps):
            stopwatch.start()
            trainer.train_step()
    parts = stopwatch.seconds()
    total = sum(parts.values())
    for part, seconds in parts.items():
        share = f"{100.0 * seconds / total:.0f} % of the step"
        yield shown(f"{prior.name}: {part}", 1000.0 * seconds / steps, unit="ms", note=share)
    views = f"{config.views_per_step} views of {prior.image_size} pixels"
    yield shown(
        f"{prior.name}: speed",
        steps / total,
        unit="steps/s",
        note="; ".join(filter(None, (views, note))),
    )


def memory_rows(*, predicted: int | None, measured: int | None) -> Iterator[Row]:
    """Show both peaks in MiB, where they exist, and compare them."""
    if predicted is not None:
        yield shown(f"{MODEL}: predicted peak memory", predicted / MIB, unit="MiB")
    what = f"{MODEL}: measured peak memory"
    if measured is None:
        yield skipped(what, "torch counts the memory of CUDA tensors only")
        return
    note = "" if predicted is not None else "no prediction for these settings"
    yield shown(what, measured / MIB, unit="MiB", note=note)
    if predicted is not None:
        yield at_most(f"{MODEL}: prediction off", abs(measured / predicted - 1.0), MEMORY_LIMIT, unit="share")
