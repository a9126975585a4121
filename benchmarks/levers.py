"""Effect of each lever of ``ComputeConfig`` on time and peak memory of a training step, on a random model.

    python benchmarks/levers.py [--representation ngp] [--views 4] [--repeats 3] [--levers views_at_once vae ...]

Steps with and without a lever are timed in turn, in CPU seconds, so that other programs hardly matter. Memory is the
peak of torch's allocations during one step above those before it, which include the parameters. The model has Stable
Diffusion 2.1's layout and a small part of its size: neither column is a GPU's figure.
The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from itertools import accumulate
from statistics import median
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile

from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.doctor.miniature import Miniature, miniature_networks, prior_of_networks
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

LEVERS: dict[str, dict[str, Any]] = {
    "views_at_once": {"views_at_once": 1},
    "rays_at_once": {"rays_at_once": 4096},
    "branches_at_once": {"branches_at_once": 1},
    "vae": {"vae": "checkpoint"},
    "views_branches_vae": {"views_at_once": 1, "branches_at_once": 1, "vae": "checkpoint"},
    "attention_plain": {"attention": "plain"},
    "channels_last": {"channels_last": True},
    "cache_cross_attention": {"cache_cross_attention": True},
    "fused_adam": {"fused_adam": True},
    "compile_unet": {"compile_unet": True},
}
LONG = "compile_unet"
"""Its warm-up takes minutes; measured only if named."""


SIZES = Miniature(
    image_size=128,
    unet_channels=(32, 64),
    unet_heads=(1, 2),
    unet_groups=32,
    unet_layers=1,
    vae_channels=(16, 16, 32, 32),
    vae_groups=8,
    text_inner=64,
    text_layers=1,
)


def random_prior() -> DiffusionPrior:
    """Return a random model of 128 pixels, the same each time."""
    torch.manual_seed(0)
    return prior_of_networks(miniature_networks(SIZES, device="cpu"), model="sd21-base")


def settings(options: argparse.Namespace, compute: ComputeConfig) -> RunConfig:
    """Return a run with Perp-Neg and a short inversion, so that a step has several calls of four branches."""
    base = preset_named("smoke").config
    guidance = replace(
        base.guidance, guidance_scale=7.5, perp_neg=True, random_fraction=0.0, inversion_steps=4, t_min=0.7
    )
    grid = replace(base.ngp.grid, num_levels=4, initial_levels=4, log2_table_size=12)
    return replace(
        base,
        prompt="a blue robot",
        representation=options.representation,
        steps=1000,
        views_per_step=options.views,
        guidance=guidance,
        gaussians=replace(base.gaussians, num_initial=2000),
        ngp=replace(base.ngp, grid=grid, hidden_width=16, samples_per_ray=64),
        compute=compute,
    )


def seconds(trainer: Trainer) -> float:
    """Return the CPU time of a step, all threads together."""
    started = time.process_time()
    trainer.train_step()
    return time.process_time() - started


def peak_bytes(trainer: Trainer) -> int:
    """Return the peak bytes of a step's tensors, above those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        trainer.train_step()
    assert profiled.profiler is not None
    events = cast(Any, profiled.profiler.kineto_results).events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes))


def trainer_with(options: argparse.Namespace, lever: dict[str, Any]) -> Trainer:
    """Return a run with one lever."""
    return Trainer(settings(options, ComputeConfig(**lever)), random_prior(), device=torch.device("cpu"))


def measure(options: argparse.Namespace, plain: Trainer, before: int, lever: dict[str, Any]) -> dict[str, float]:
    """Return time and memory with a lever relative to those without it, whose peak is ``before``."""
    levered = trainer_with(options, lever)
    warm_up = seconds(levered)
    pairs = [(seconds(plain), seconds(levered)) for _ in range(options.repeats)]
    after = peak_bytes(levered)
    return {
        "time_ratio": median(with_it / without for without, with_it in pairs),
        "seconds_without": median(without for without, _ in pairs),
        "memory_ratio": after / before,
        "mib_without": before / 2**20,
        "mib_with": after / 2**20,
        "warm_up_seconds": warm_up,
    }


def main() -> None:
    """Measure lever by lever and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--representation", choices=("gaussians", "ngp"), default="gaussians")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--levers", nargs="+", choices=LEVERS, help="all but the long and the idle ones if none is named"
    )
    options = parser.parse_args()
    idle = () if options.representation == "ngp" else ("rays_at_once",)
    levers = options.levers or [name for name in LEVERS if name not in (LONG, *idle)]
    plain, report = trainer_with(options, {}), {}
    plain.train_step()
    before = peak_bytes(plain)
    for name in levers:
        report[name] = measure(options, plain, before, LEVERS[name])
        print(
            f"{name:22} time x {report[name]['time_ratio']:.2f}  peak memory x {report[name]['memory_ratio']:.2f}"
            f"  ({report[name]['mib_without']:.0f} to {report[name]['mib_with']:.0f} MiB)",
            flush=True,
        )
    print(
        json.dumps(
            {
                "levers": report,
                "representation": options.representation,
                "views": options.views,
                "repeats": options.repeats,
                "torch_threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
