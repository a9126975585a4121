"""Cost of one SDI step with Stable Diffusion 2.1: operations counted on the true architecture, without weights.

    python benchmarks/sd21_step.py                  # count, seconds
    python benchmarks/sd21_step.py --run-full-size  # one step at 512 x 512 on the CPU, random weights, 10 GB

The count runs every network on torch's meta device under ``memory_counting``'s meter; ``memory_prediction.py`` turns
whole steps into memory and seconds. The last line printed is one JSON object.

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import tools_on_path  # noqa: F401
import torch
from memory_counting.counting import META
from memory_counting.meter import StepMeter
from memory_counting.prediction import mean_calls

from sdi_gs.doctor.miniature import prior_of_networks
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.score_distillation import distill, predictor_calls
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.published import ModelName, published_networks
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.run import RunConfig

SINGLE_VIEWS: tuple[ModelName, ...] = ("sd21-base", "sd21")
TIMESTEPS = (980, 500, 250)
RUN_STEPS = 10_000
TOKENS, TEXT_WIDTH, LATENT_CHANNELS, VAE_FACTOR = 77, 1024, 4, 8


def unet_flops(unet: Any, batch: int) -> int:
    """Return the operations of one call; a multiplication and an addition count as two."""
    side, dtype = unet.config.sample_size, unet.dtype
    latents = torch.empty(batch, LATENT_CHANNELS, side, side, device=META, dtype=dtype)
    text = torch.empty(batch, TOKENS, TEXT_WIDTH, device=META, dtype=dtype)
    with StepMeter() as meter, torch.no_grad():
        unet(latents, torch.zeros(batch, dtype=torch.int64, device=META), encoder_hidden_states=text)
    return sum(operation.flops for operation in meter.operations)


def vae_flops(vae: Any, image_size: int) -> tuple[int, int]:
    """Return the operations of encoding one image, and of the backward pass to it (the weights are frozen)."""
    image = torch.empty(1, 3, image_size, image_size, device=META, requires_grad=True)
    with StepMeter() as meter:
        latents = vae.encode(image).latent_dist.parameters
        forward = sum(operation.flops for operation in meter.operations)
        latents.sum().backward()
    return forward, sum(operation.flops for operation in meter.operations) - forward


def count(name: ModelName) -> dict[str, Any]:
    """Return one model's row: operations of the parts, and per step with two branches (CFG) and four (Perp-Neg)."""
    config = RunConfig(steps=RUN_STEPS)
    networks = published_networks(name, device=META, dtype=torch.float16)
    image_size = networks.unet.config.sample_size * VAE_FACTOR
    branch = unet_flops(networks.unet, 1)
    forward, backward = vae_flops(networks.vae, image_size)
    schedule = scaled_linear_schedule()
    calls: dict[str, float] = {
        str(timestep): predictor_calls(config.guidance, StepPlan(timestep=timestep), schedule) for timestep in TIMESTEPS
    }
    calls["mean"] = mean_calls(config)
    report: dict[str, Any] = {
        "image_size": image_size,
        "unet_parameters": sum(weight.numel() for weight in networks.unet.parameters()),
        "unet_tflop_per_branch": branch / 1e12,
        "vae_encode_tflop": forward / 1e12,
        "vae_backward_tflop": backward / 1e12,
        "calls": calls,
    }
    for branches in (2, 4):
        report[f"unet_tflop_{branches}_branches"] = {
            key: number * branches * branch / 1e12 for key, number in calls.items()
        }
    return report


def print_count(name: str, report: dict[str, Any]) -> None:
    """Print the row."""
    print(
        f"{name}, {report['image_size']} pixels: U-Net {report['unet_parameters']:,} parameters, "
        f"{report['unet_tflop_per_branch']:.3f} TFLOP per branch; "
        f"VAE {report['vae_encode_tflop']:.2f} TFLOP to encode, {report['vae_backward_tflop']:.2f} back"
    )
    for branches in (2, 4):
        for key, number in report["calls"].items():
            tflop = report[f"unet_tflop_{branches}_branches"][key]
            print(f"  {branches} branches, t {key}: {number:g} calls, {tflop:.1f} TFLOP in the U-Net")


def run_full_size(dtype: torch.dtype, timestep: int) -> dict[str, Any]:
    """Take one SDI step of sd21-base's size on the CPU: image, latent, inversion, target, gradient of the image."""
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    torch.manual_seed(0)
    networks = published_networks("sd21-base", device="cpu", dtype=dtype)
    # The tokens are drawn below; weights that are random read no text.
    prior = prior_of_networks(networks, model="sd21-base")
    seconds = {"build": time.perf_counter() - started}
    memory = {"built": _peak_gb()}

    def lap(name: str, since: float) -> None:
        seconds[name] = time.perf_counter() - since
        memory[name] = _peak_gb()
        print(f"{name}: {seconds[name]:.1f} s, peak {memory[name]:.2f} GB", flush=True)

    now = time.perf_counter()
    tokens = torch.randint(49_408, (2, TOKENS), generator=generator)
    with torch.no_grad():
        embeddings = prior.text_encoder(tokens).last_hidden_state
    lap("text", now)
    now = time.perf_counter()
    images = torch.rand(1, 512, 512, 3, generator=generator).requires_grad_()
    latents = prior.encode_images(images, generator)
    lap("encode", now)
    now = time.perf_counter()
    output = distill(
        GuidanceConfig(),
        prior,
        latents.detach(),
        Conditions(prompt_embeddings=embeddings[:1], negative_embeddings=embeddings[1:]),
        plan=StepPlan(timestep=timestep, overshoot=20),
        generator=generator,
    )
    lap("guidance", now)
    now = time.perf_counter()
    loss = 0.5 * (latents - output.target).square().mean()
    (gradient,) = torch.autograd.grad(loss, images)
    lap("backward", now)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "timestep": timestep,
        "predictor_calls": output.predictor_calls,
        "seconds": seconds,
        "seconds_per_call": seconds["guidance"] / output.predictor_calls,
        "peak_rss_gb": memory,
        "loss": loss.item(),
        "gradient_finite": bool(gradient.isfinite().all()),
        "gradient_norm": gradient.norm().item(),
    }


def _peak_gb() -> float:
    """Return the peak memory of this process, 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Count both models and print; with ``--run-full-size`` take one real step instead."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run-full-size", action="store_true")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the full-size U-Net")
    parser.add_argument("--timestep", type=int, default=250, help="of the full-size step; 250 makes 5 calls")
    options = parser.parse_args()
    if options.run_full_size:
        print(json.dumps(run_full_size(getattr(torch, options.dtype), options.timestep)))
        return
    report: dict[str, Any] = {}
    for name in SINGLE_VIEWS:
        report[name] = count(name)
        print_count(name, report[name])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
