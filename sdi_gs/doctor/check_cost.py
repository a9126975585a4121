"""What a training step takes of a device: peak memory beside what was counted ahead, and where its time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from memory_counting.counting import META, count_step, prior_of_networks

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.doctor.distilled import PROMPT
from sdi_gs.doctor.rig import Rig
from sdi_gs.doctor.rows import Row, at_most, shown, skipped
from sdi_gs.doctor.sd21_models import MODEL, Sd21Weights, load_sd21, random_networks, weights_at_hand
from sdi_gs.doctor.stopwatch import timed_parts
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

MEMORY_LIMIT = 0.10
"""Of the prediction, which counts tensors; measured is what torch's allocator gave out for tensors."""
MIB = 2**20

Measure = Callable[[torch.device], int | None]


def peak_of_tensors(device: torch.device) -> int | None:
    """The most bytes of tensors since the count was last reset; None where torch does not count them."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def check_cost(rig: Rig, *, measure: Measure = peak_of_tensors) -> Iterator[Row]:
    """The time of both runs' steps by part, and Stable Diffusion's memory; ``measure`` reads the peak."""
    toybox = replace(rig.toybox, prompt=PROMPT)
    yield from _step_rows(rig, toybox, load_prior(toybox.prior, toybox.ideal_prior, device=rig.device))
    weights = weights_at_hand(miniature=rig.size.miniature)
    config, tier = rig.stable_diffusion_on_tier()
    config = replace(config, prompt=PROMPT)
    dtype = torch.float16 if rig.device.type == "cuda" else torch.float32
    held = _restart_peak(rig.device)
    prior = load_sd21(weights, device=rig.device, dtype=dtype)
    _restart_peak(rig.device)
    yield from _step_rows(
        rig, config, prior, note="; ".join(filter(None, (tier and f"tier {tier.name}", weights.words)))
    )
    peak = measure(rig.device)
    yield from _memory_rows(weights, config, dtype, None if peak is None else peak - held)


def _restart_peak(device: torch.device) -> int:
    """Count the peak anew; returns the bytes of tensors that are there already, 0 where torch counts none."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _step_rows(rig: Rig, config: RunConfig, prior: DiffusionPrior, *, note: str = "") -> Iterator[Row]:
    """Milliseconds of each part of a step in the middle of a run, and steps per second."""
    trainer = Trainer(config, prior, device=rig.device)
    # Half-way the inversion has half of its steps, which is about the mean over a run.
    trainer.step = config.steps // 2
    for _ in range(rig.size.warm_up_steps):
        trainer.train_step()
    with timed_parts(trainer) as laps:
        for _ in range(rig.size.timed_steps):
            laps.start()
            trainer.train_step()
    parts = laps.seconds()
    total = sum(parts.values())
    for part, seconds in parts.items():
        share = f"{100.0 * seconds / total:.0f} % of the step"
        yield shown(f"{prior.name}: {part}", 1000.0 * seconds / rig.size.timed_steps, unit="ms", note=share)
    views = f"{config.views_per_step} views of {prior.image_size} pixels"
    yield shown(
        f"{prior.name}: speed",
        rig.size.timed_steps / total,
        unit="steps/s",
        note="; ".join(filter(None, (views, note))),
    )


def _memory_rows(weights: Sd21Weights, config: RunConfig, dtype: torch.dtype, peak: int | None) -> Iterator[Row]:
    """The peak of tensors as counted ahead, as measured, and how far these are apart."""
    counted = count_step(config, _without_data(weights, dtype)).peak_bytes
    yield shown(f"{MODEL}: predicted peak memory", counted / MIB, unit="MiB")
    what = f"{MODEL}: measured peak memory"
    if peak is None:
        yield skipped(what, "torch counts the memory of CUDA tensors only")
        return
    yield shown(what, peak / MIB, unit="MiB")
    yield at_most(f"{MODEL}: prediction off", abs(peak / counted - 1.0), MEMORY_LIMIT, unit="share")


def _without_data(weights: Sd21Weights, dtype: torch.dtype) -> LatentDiffusionPrior:
    """The same networks without numbers, for counting."""
    networks = random_networks(weights, device=META, dtype=dtype)
    return prior_of_networks(networks, model=MODEL)
