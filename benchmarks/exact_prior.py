"""The exact prior's noise against the two products over whole pictures that its formula asks for: time and error.

    python benchmarks/exact_prior.py [--repeats 15]

Both sides get the same noised pictures in turn, on one thread; CPU times are compared by their smallest. Errors are
relative L2 distances from the formula in float64. The last line of the output is one JSON object.

Letters: B rows, M mixture centres, D values of a picture.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from torch import Tensor

import sdi_gs
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.picture_mixture import mixture_noise

PROMPTS = (
    "a blue robot, front view, white background",
    "a red table, front view, gray background",
    "a green car, side view, black background",
    "a red ball, side view, gray background",
    "",
)
TIMESTEPS = (20, 50, 200, 350, 500, 700, 900)
BAR = 2.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    repeats: int = 15
    """Timed turns of each case."""
    rows: tuple[int, ...] = (1, 4)
    """Pictures of a call."""


def whole_products(
    noised: Tensor,  # [B, D]
    centres: Tensor,  # [M, D]
    log_weights: Tensor,  # [M]
    half_norms: Tensor,  # [M]
    level: float,
    std: float,
) -> Tensor:
    """Return the noise [B, D] by the formula, over all values of all centres."""
    variance = level * std**2 + 1.0 - level
    logits = (math.sqrt(level) * (noised @ centres.T) - level * half_norms) / variance + log_weights
    mean = torch.softmax(logits, dim=1) @ centres
    return math.sqrt(1.0 - level) / variance * (noised - math.sqrt(level) * mean)


def seconds(call: Callable[[], Tensor]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    config = sdi_gs.preset("toybox-ideal", prompt="a blue robot").ideal_prior
    prior, std, rows = IdealPrior(config), config.component_std, []
    for prompt in PROMPTS:
        mixture = prior._mixture_of(prior.embed_prompts([prompt])[0, 0])
        centres = mixture.pictures()
        half_norms = 0.5 * centres.square().sum(dim=1)
        exact = centres.double(), mixture.log_weights.double(), 0.5 * centres.double().square().sum(dim=1)
        for count in settings.rows:
            for timestep in TIMESTEPS:
                level, generator = prior.schedule.alpha_cumprod(timestep), torch.Generator().manual_seed(timestep)
                clean = centres[torch.randint(len(centres), (count,), generator=generator)]
                noise = torch.randn(clean.shape, generator=generator)
                noised = math.sqrt(level) * clean + math.sqrt(1.0 - level) * noise
                truth = whole_products(noised.double(), *exact, level, std)
                whole = partial(whole_products, noised, centres, mixture.log_weights, half_norms, level, std)
                ways = {"products": whole, "prior": partial(mixture_noise, noised, mixture, level, std)}
                times = [{name: seconds(call) for name, call in ways.items()} for _ in range(settings.repeats)]
                best = {name: 1e3 * min(turn[name] for turn in times) for name in ways}
                error = {name: float((call() - truth).norm() / truth.norm()) for name, call in ways.items()}
                row = {"prompt": prompt, "rows": count, "t": timestep, "ratio": best["products"] / best["prior"]}
                rows.append(row | {"ms": best, "error": error})
                print(
                    f"{prompt or 'everything':>42} B {count} t {timestep:3d} | "
                    f"{best['products']:5.2f} {best['prior']:5.2f} ms {row['ratio']:5.2f}x | "
                    f"{error['products']:.0e} {error['prior']:.0e}",
                    flush=True,
                )
    ratios = [row["ratio"] for row in rows]
    summary = {
        "benchmark": "exact_prior",
        "bar": BAR,
        "lowest_ratio": min(ratios),
        "median_ratio": statistics.median(ratios),
        "largest_error": max(row["error"]["prior"] for row in rows),
        "largest_error_of_products": max(row["error"]["products"] for row in rows),
    }
    print(json.dumps(summary | {"cases": rows}))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
