"""Time of one guidance step over the time of the predictor calls in it alone, on a random network of toybox's size.

    python benchmarks/guidance_overhead.py [--views 4] [--repeats 8] [--timestep 500] [--perp-neg]

Both are measured in turn, so that changes of the machine's speed affect both. The last line printed is one JSON
object; ``ratio`` should be at most 1.05.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import cast

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.doctor.miniature import Miniature, miniature_networks
from sdi_gs.guidance.perp_neg import NUM_NEGATIVES, PerpNegBranches
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.guidance import GuidanceConfig

LATENT_SHAPE, TOKENS = (4, 16, 16), 16
SIZES = Miniature(
    image_size=8 * LATENT_SHAPE[1], unet_channels=(64, 128), unet_heads=(4, 8), unet_groups=32, text_layers=1
)


class NetworkPrior:
    """A random U-Net on latents with what guidance calls of a prior; its calls are kept, to be repeated."""

    name = "random network"
    image_size = 64
    knows_cameras = False

    def __init__(self, device: torch.device) -> None:
        self.unet = miniature_networks(SIZES, device=device).unet
        self.schedule = scaled_linear_schedule()
        self.asked: list[tuple[Tensor, int, Tensor]] = []

    @torch.no_grad()
    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        """Call the network once."""
        self.asked.append((noised_latents, timestep, embeddings))
        told = torch.full((len(noised_latents),), max(timestep, 0), device=noised_latents.device)
        return self.unet(noised_latents, told, encoder_hidden_states=embeddings).sample


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of a call, device included."""
    _wait_for(device)
    started = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--timestep", type=int, default=500)
    parser.add_argument("--perp-neg", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device, views = torch.device(options.device), options.views
    prior, generator = NetworkPrior(device), torch.Generator(device).manual_seed(0)
    latents = torch.randn(views, *LATENT_SHAPE, generator=generator, device=device)
    branches = torch.randn(views, 2 + NUM_NEGATIVES, TOKENS, SIZES.text_width, generator=generator, device=device)
    weights = -torch.ones(views, NUM_NEGATIVES, device=device)
    conditions = Conditions(
        prompt_embeddings=branches[:, 0],
        negative_embeddings=branches[:, 1],
        perp_neg=PerpNegBranches(embeddings=branches[:, 2:], weights=weights) if options.perp_neg else None,
    )
    plan = StepPlan(timestep=options.timestep, overshoot=16)

    def guide() -> None:
        prior.asked.clear()
        distill(
            GuidanceConfig(),
            cast(DiffusionPrior, prior),
            latents,
            conditions,
            plan=plan,
            generator=generator,
        )

    def ask_again() -> None:
        for noised, timestep, embeddings in list(prior.asked):
            prior.predict_noise(noised, timestep, embeddings)

    guide()
    guided, alone = [], []
    for _ in range(options.repeats):
        guided.append(seconds(guide, device))
        alone.append(seconds(ask_again, device))
    report = {
        "ratio": median(guided) / median(alone),
        "ratio_of_fastest": min(guided) / min(alone),
        "guidance_seconds": median(guided),
        "calls_alone_seconds": median(alone),
        "calls": len(prior.asked) // 2,
        "views": views,
        "perp_neg": options.perp_neg,
        "device": str(device),
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
