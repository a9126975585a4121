"""Why gamma_inv = -gamma_fwd: the residual of eq. 8 on a mixture whose score is exact, and where it comes from.

``python benchmarks/why_minus_gamma.py [FIGURE.png]`` draws the figure of
docs/reports/why-minus-gamma.md and prints one JSON object last; a few seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from gaussian_mixture import SCHEDULE, ToyMixture
from torch import Tensor

from sdi_gs.evaluation.plots import draw_curves, new_figure, save_figure
from sdi_gs.guidance.inversion import invert_ddim
from sdi_gs.guidance.noise import noise_between
from sdi_gs.guidance.schedule import add_noise, inversion_grid, sigma

FORWARD_SCALE = 7.5
TIMESTEPS = (300, 500, 700, 900)
SCALES = (-15.0, -11.25, -7.5, -5.0, -2.5, 0.0, 1.0, 2.5, 5.0, 7.5)
SEEDS = 6


def inverted_noise(toy: ToyMixture, timestep: int, scale: float) -> Tensor:
    """Return kappa of ten first-order steps."""
    grid = inversion_grid(timestep, 0, num_steps=10, schedule=SCHEDULE)
    inverted = invert_ddim(
        toy.guided(scale), toy.latents, grid, schedule=SCHEDULE, eta=0.0, generator=torch.Generator()
    )
    return noise_between(inverted, toy.latents, SCHEDULE.alpha_cumprod(timestep))


def residual(toy: ToyMixture, timestep: int, noise: Tensor) -> float:
    """Return the mean square of sigma (eps - kappa) under forward guidance."""
    noised = add_noise(toy.latents, noise, SCHEDULE.alpha_cumprod(timestep))
    drift = toy.guided(FORWARD_SCALE)(noised, timestep) - noise
    return (sigma(SCHEDULE, timestep) * drift).square().mean().item()


def disagreement(toy: ToyMixture, timestep: int, noise: Tensor) -> float:
    """Return the mean square of sigma (e_c - e_u) at the noised latent; forward guidance multiplies it by its scale."""
    noised = add_noise(toy.latents, noise, SCHEDULE.alpha_cumprod(timestep))
    gap = toy.guided(1.0)(noised, timestep) - toy.guided(0.0)(noised, timestep)
    return (sigma(SCHEDULE, timestep) * gap).square().mean().item()


def main() -> None:
    """Measure, draw, print."""
    torch.set_num_threads(1)
    toys = [ToyMixture(seed) for seed in range(SEEDS)]
    residuals: dict[int, list[float]] = {timestep: [] for timestep in TIMESTEPS}
    gaps: dict[int, list[float]] = {timestep: [] for timestep in TIMESTEPS}
    for timestep in TIMESTEPS:
        for scale in SCALES:
            noises = [inverted_noise(toy, timestep, scale) for toy in toys]
            pairs = list(zip(toys, noises, strict=True))
            residuals[timestep].append(sum(residual(toy, timestep, noise) for toy, noise in pairs) / SEEDS)
            gaps[timestep].append(sum(disagreement(toy, timestep, noise) for toy, noise in pairs) / SEEDS)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("why-minus-gamma.png")
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2)
    for axes, values, title, label in (
        (left, residuals, "residual of eq. 8 under γ_fwd = 7.5", "mean (z - target)²"),
        (right, gaps, "disagreement of the branches at the noised latent", "mean σ² (e_c - e_u)²"),
    ):
        curves = {f"t = {timestep}": row for timestep, row in values.items()}
        draw_curves(axes, SCALES, curves, title=title, xlabel="γ_inv", ylabel=label)
        axes.axvline(-FORWARD_SCALE, color="grey", linestyle=":")
    save_figure(figure, path)
    rounded = {
        name: {str(timestep): [float(f"{value:.4g}") for value in row] for timestep, row in values.items()}
        for name, values in (("residual", residuals), ("disagreement", gaps))
    }
    print(path)
    print(json.dumps({"guidance_scale": FORWARD_SCALE, "inversion_scales": SCALES, **rounded}))


if __name__ == "__main__":
    main()
