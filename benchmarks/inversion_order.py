"""Accuracy of the inversion: the error of kappa against a 500-step inversion, by order and number of calls.

``python benchmarks/inversion_order.py [--prior FOLDER]``; under a minute without a folder. The last line is one JSON
object: for every case the mean squared error by [order, calls], and whether 5 calls of second order do as well as
first order's ten steps (8 calls).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gaussian_mixture import SCHEDULE, ToyMixture
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior, NoiseSchedule
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.inversion import InversionOrder, InversionSpacing, inversion_timesteps, invert_ddim
from sdi_gs.guidance.noise import noise_between
from sdi_gs.guidance.prompts import Conditions, PromptConditions
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.truth import held_out_cameras, render_truth, truth_draws

TIMESTEP = 700
SEEDS = 4
RUNS: tuple[tuple[InversionOrder, int], ...] = (
    *((1, n) for n in (3, 5, 7, 10, 12, 20)),
    *((2, n) for n in (2, 3, 5, 7, 10)),
)
TOY_WIDTH, NETWORK_WIDTH = 0.5, 0.05
"""``data_std`` of second order: smooth mixtures want half a unit, a network a sharper model."""


def kappa(
    predict: Callable[[Tensor, int], Tensor],
    latents: Tensor,
    num_steps: int,
    order: InversionOrder,
    schedule: NoiseSchedule,
    width: float,
) -> tuple[Tensor, int]:
    """Return the inferred noise and its number of calls."""
    spacing: InversionSpacing = "timesteps" if order == 1 else "sigma"
    grid = inversion_timesteps(TIMESTEP, 0, num_steps=num_steps, schedule=schedule, spacing=spacing, data_std=width)
    options: dict[str, Any] = {"schedule": schedule, "eta": 0.0, "generator": torch.Generator()}
    inverted = invert_ddim(predict, latents, grid, order=order, data_std=width, **options)
    return noise_between(inverted, latents, schedule.alpha_cumprod(TIMESTEP)), len(grid) - 1


def errors(
    cases: list[tuple[Callable[[Tensor, int], Tensor], Tensor]], schedule: NoiseSchedule, width: float = TOY_WIDTH
) -> dict[tuple[int, int], float]:
    """Return mean squared errors by (order, calls) over predictors with their latents."""
    references = [kappa(predict, latents, 500, 1, schedule, width)[0] for predict, latents in cases]
    found = {}
    for order, num_steps in RUNS:
        answers = [kappa(predict, latents, num_steps, order, schedule, width) for predict, latents in cases]
        squares = [(answer - wanted).square().mean() for (answer, _), wanted in zip(answers, references, strict=True)]
        found[order, answers[0][1]] = torch.stack(squares).mean().item()
    return found


def views_case(prior: DiffusionPrior, scale: float, count: int) -> tuple[Callable[[Tensor, int], Tensor], Tensor]:
    """Return views of a blue robot and a prior that knows such pictures."""
    images = render_truth(truth_draws("robot", "blue", 1), held_out_cameras(prior.image_size)).rgb[:count]
    words = held_out_cameras(prior.image_size).view_words()[:count]
    prompts = PromptConditions(prior, "a blue robot")
    backgrounds: list[BackgroundName] = ["white"] * count
    conditions = Conditions(
        prompt_embeddings=prompts.prompt_embeddings(words, backgrounds),
        negative_embeddings=prompts.negative_embeddings(count),
    )
    predictor = GuidedPredictor(prior, conditions)
    latents = prior.encode_images(images, torch.Generator().manual_seed(0)).detach()
    return lambda noised, timestep: predictor(noised, timestep, scale), latents


def main() -> None:
    """Print one table per case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prior", help="also a network: folder in Stable Diffusion's layout that knows toybox")
    options = parser.parse_args()
    torch.set_num_threads(1)
    summary = {}
    for scale in (-3.0, -7.5):
        toys = [ToyMixture(seed) for seed in range(SEEDS)]
        cases = [(toy.guided(scale), toy.latents) for toy in toys]
        summary[f"mixture, gamma {scale:g}"] = errors(cases, SCHEDULE)
    small = RunConfig(ideal_prior=IdealPriorConfig(renders_per_view=128, unconditional_renders=400))
    for scale in (-1.0, -3.0, -7.5):
        ideal = load_prior(small, device="cpu")
        summary[f"toybox-ideal, gamma {scale:g}"] = errors([views_case(ideal, scale, 8)], ideal.schedule)
    if options.prior is not None:
        network = load_prior(replace(small, prior=options.prior), device="cpu")
        for scale in (-3.0, -7.5):
            found = errors([views_case(network, scale, 4)], network.schedule, NETWORK_WIDTH)
            summary[f"network, gamma {scale:g}"] = found
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
