"""What inversion's calls buy: the error of kappa against a 500-step inversion, by order and number of calls.

``python benchmarks/inversion_order.py``; under a minute. The last line is one JSON object: for every case the mean
squared error by [order, calls], and whether 5 calls of second order do as well as first order's ten steps (8 calls).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from gaussian_mixture import SCHEDULE, ToyMixture
from torch import Tensor

from sdi_gs.backgrounds import BackgroundName
from sdi_gs.contracts import NoiseSchedule
from sdi_gs.guidance.inversion import InversionOrder, inversion_timesteps, invert_ddim
from sdi_gs.guidance.noise import noise_between
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.guidance.score_distillation import GuidedPredictor
from sdi_gs.priors.config import IdealPriorConfig
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.toybox.truth import held_out_cameras, render_truth, truth_draws

TIMESTEP = 700
SEEDS = 4
RUNS: tuple[tuple[InversionOrder, int], ...] = (
    *((1, n) for n in (3, 5, 7, 10, 12, 20)),
    *((2, n) for n in (2, 3, 5, 7, 10)),
)


def kappa(
    predict: Callable[[Tensor, int], Tensor], latents: Tensor, num_steps: int, order: InversionOrder, schedule: Any
) -> tuple[Tensor, int]:
    """The inferred noise and what it cost in calls."""
    grid = inversion_timesteps(TIMESTEP, 0, num_steps=num_steps, schedule=schedule, order=order)
    inverted = invert_ddim(predict, latents, grid, schedule=schedule, eta=0.0, generator=torch.Generator(), order=order)
    return noise_between(inverted, latents, schedule.alpha_cumprod(TIMESTEP)), len(grid) - 1


def errors(
    cases: list[tuple[Callable[[Tensor, int], Tensor], Tensor]], schedule: NoiseSchedule
) -> dict[tuple[int, int], float]:
    """Mean squared error by (order, calls) over predictors with their latents."""
    references = [kappa(predict, latents, 500, 1, schedule)[0] for predict, latents in cases]
    found = {}
    for order, num_steps in RUNS:
        answers = [kappa(predict, latents, num_steps, order, schedule) for predict, latents in cases]
        squares = [(answer - wanted).square().mean() for (answer, _), wanted in zip(answers, references, strict=True)]
        found[order, answers[0][1]] = torch.stack(squares).mean().item()
    return found


def toybox_case(scale: float) -> tuple[IdealPrior, Callable[[Tensor, int], Tensor], Tensor]:
    """Eight views of a blue robot under a small mixture."""
    prior = IdealPrior(IdealPriorConfig(renders_per_view=128, unconditional_renders=400))
    cameras = held_out_cameras(prior.image_size)
    images = render_truth(truth_draws("robot", "blue", 1), cameras).rgb[:8]
    conditions = PromptConditions(prior, "a blue robot")
    backgrounds: list[BackgroundName] = ["white"] * 8
    conditional = conditions.conditional(cameras.view_words()[:8], backgrounds)
    predictor = GuidedPredictor(prior, conditional, conditions.unconditional(8))
    return prior, lambda noised, timestep: predictor(noised, timestep, scale), prior.encode_images(images)


def main() -> None:
    """Print one table per case."""
    torch.set_num_threads(1)
    summary = {}
    for scale in (-3.0, -7.5):
        toys = [ToyMixture(seed) for seed in range(SEEDS)]
        cases = [(toy.guided(scale), toy.latents) for toy in toys]
        summary[f"mixture, gamma {scale:g}"] = errors(cases, SCHEDULE)
    for scale in (-1.0, -3.0, -7.5):
        prior, predict, latents = toybox_case(scale)
        summary[f"toybox-ideal, gamma {scale:g}"] = errors([(predict, latents)], prior.schedule)
    for name, found in summary.items():
        print(f"{name}: mean squared error of kappa at t = {TIMESTEP}")
        for (order, calls), value in found.items():
            print(f"  order {order}, {calls:2d} calls: {value:.5f}")
    as_json = {
        name: {
            "errors": [[order, calls, float(f"{value:.4g}")] for (order, calls), value in found.items()],
            "half_the_calls_suffice": found[2, 5] <= found[1, 8],
            "also_against_ten_calls": found[2, 5] <= found[1, 10],
        }
        for name, found in summary.items()
    }
    print(json.dumps({"timestep": TIMESTEP, "cases": as_json}))


if __name__ == "__main__":
    main()
