"""Predict a card's needs from a counted step: peak memory beyond tensors, and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import torch

from memory_counting.cards import CARDS, HOST_SECONDS, Card
from memory_counting.counting import StepCount
from memory_counting.meter import Operation, Part
from sdi_gs.guidance.schedule import annealed_timestep
from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.compute import Precision
from sdi_gs.settings.run import RunConfig

CONTEXT_BYTES = 700 * 2**20
"""Assumed memory before the first tensor: CUDA's context, and the kernels of torch, cuBLAS, cuDNN and gsplat."""

WORKSPACE_BYTES = 64 * 2**20
"""Assumed workspace of cuBLAS, which keeps 8 to 32 MiB per handle."""


@dataclass(frozen=True, kw_only=True)
class StepPrediction:
    """Predicted needs of a training step; not measured."""

    parts: dict[Part, int]
    """Bytes of tensors at the peak, by part."""
    reserved: int
    """Bytes that torch's allocator reserves for them."""
    flops: float
    """Per step, averaged over the run's timesteps."""
    predictor_calls: float
    """Per step, averaged likewise; one call covers all branches of all views."""
    seconds: dict[str, float]
    """Per step by card, averaged likewise."""
    parts_seconds: dict[str, dict[str, float]]
    """By card: "call" and "host", the device's and the host's time of one call of the predictor with the guidance
    around it, and the time of "vae" and of all the "rest"."""

    @property
    def tensor_bytes(self) -> int:
        """Peak bytes of tensors."""
        return sum(self.parts.values())

    @property
    def peak_bytes(self) -> int:
        """Memory that must be free on the card before the program starts."""
        return self.reserved + CONTEXT_BYTES + WORKSPACE_BYTES

    def as_json(self) -> dict[str, Any]:
        """Return nested dicts."""
        return {
            "parts": dict(self.parts),
            "tensor_bytes": self.tensor_bytes,
            "reserved_bytes": self.reserved,
            "peak_bytes": self.peak_bytes,
            "flops": self.flops,
            "predictor_calls": self.predictor_calls,
            "seconds": self.seconds,
            "parts_seconds": self.parts_seconds,
        }


def from_count(count: StepCount, config: RunConfig) -> StepPrediction:
    """Scale a counted step to the mean of its run, and predict its time; a step on kept targets stays as it is."""
    calls = mean_calls(config) if count.predictor_calls else 0.0
    share = calls / max(count.predictor_calls, 1)
    flops = sum(operation.flops * (share if _is_of_calls(operation) else 1.0) for operation in count.operations)
    return StepPrediction(
        parts=count.peak,
        reserved=count.reserved,
        flops=flops,
        predictor_calls=calls,
        seconds={card.name: step_seconds(count, share, card) for card in CARDS},
        parts_seconds={card.name: parts_seconds(count, card) for card in CARDS},
    )


def step_seconds(count: StepCount, unet_share: float, card: Card) -> float:
    """Return seconds of a step: device and host overlap in each part; the U-Net is scaled to the run's mean calls."""
    device, host = _seconds_by_part(count, card)
    return sum(max(seconds, host[part]) * (unet_share if part == "unet" else 1.0) for part, seconds in device.items())


def parts_seconds(count: StepCount, card: Card) -> dict[str, float]:
    """Return the times from which those of other runs follow (``StepPrediction.parts_seconds``)."""
    device, host = _seconds_by_part(count, card)
    calls = max(count.predictor_calls, 1)
    others = {part: max(seconds, host[part]) for part, seconds in device.items() if part != "unet"}
    return {
        "call": device.get("unet", 0.0) / calls,
        "host": host.get("unet", 0.0) / calls,
        "vae": others.pop("vae", 0.0),
        "rest": sum(others.values()),
    }


def _seconds_by_part(count: StepCount, card: Card) -> tuple[dict[Part, float], dict[Part, float]]:
    """Return the device's and the host's seconds of a step's parts; the guidance's algebra is part of the calls."""
    device: dict[Part, float] = {}
    host: dict[Part, float] = {}
    for operation in count.operations:
        part = "unet" if _is_of_calls(operation) else operation.part
        seconds = card.device_seconds(operation.flops, operation.traffic, half=operation.half)
        device[part] = device.get(part, 0.0) + seconds
        host[part] = host.get(part, 0.0) + HOST_SECONDS
    return device, host


def _is_of_calls(operation: Operation) -> bool:
    """Return whether there is as much of an operation as there are calls of the predictor."""
    return operation.part in ("unet", "guidance")


def card_precision(precision: Precision) -> torch.dtype:
    """Return the U-Net's type on a card."""
    match precision:
        case "auto" | "float16":
            return torch.float16
        case "bfloat16":
            return torch.bfloat16
        case "float32":
            return torch.float32
        case _:
            assert_never(precision)


def mean_calls(config: RunConfig) -> float:
    """Return predictor calls per step, averaged over a run without its random start."""
    guidance, generator, schedule = config.guidance, torch.Generator(), scaled_linear_schedule()
    steps = range(0, config.steps, max(config.steps // 1000, 1))
    timesteps = [
        annealed_timestep(
            step,
            config.steps,
            t_max=guidance.t_max,
            t_min=guidance.t_min,
            annealing=guidance.annealing,
            t_max_final=guidance.t_max_final,
            annealing_end=guidance.annealing_end,
            num_timesteps=schedule.num_timesteps,
            generator=generator,
        )
        for step in steps
    ]
    counted = {
        timestep: predictor_calls(guidance, StepPlan(timestep=timestep), schedule) for timestep in set(timesteps)
    }
    return sum(counted[timestep] for timestep in timesteps) / len(timesteps)
