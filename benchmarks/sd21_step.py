"""What one SDI step with Stable Diffusion 2.1 costs: operations counted on the true architecture, without weights.

    python benchmarks/sd21_step.py                  # count and extrapolate, seconds
    python benchmarks/sd21_step.py --run-full-size  # one step at 512 x 512 on the CPU, random weights, 10 GB

The count runs every network on torch's meta device under its own counter. What a GPU should need is that count over
its published peak times an assumed share of it; nothing here has run on one of these GPUs. The last line printed is
one JSON object.

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdi_gs.guidance.config import GuidanceConfig
from sdi_gs.guidance.schedule import annealed_timestep, inversion_grid
from sdi_gs.guidance.score_distillation import StepPlan, distil
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.noise_schedules import scaled_linear_schedule

CONFIGS = Path(__file__).parents[1] / "tests" / "priors" / "sd21"
"""The component configs of Stable Diffusion 2.1 as published."""

MODELS = {"sd21-base": "unet_512", "sd21": "unet_768"}
TIMESTEPS = (980, 500, 250)
RUN_STEPS = 10_000
TOKENS, TEXT_WIDTH, LATENT_CHANNELS, VAE_FACTOR = 77, 1024, 4, 8


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A card's published dense peaks, and the shares of them that are assumed to be reached."""

    name: str
    half_tflops: float
    """Tensor cores, float16 in, float32 accumulated, no sparsity; the data sheet's figure."""
    single_tflops: float
    """float32 without TF32, for the VAE."""
    half_share: float
    """Assumed for the U-Net at batch 2 in eager PyTorch with SDPA."""
    single_share: float
    """Assumed for the VAE's convolutions."""


# Small batches fill a large card less, so that the assumed share falls with the peak.
GPUS = (
    Gpu(name="A6000", half_tflops=154.8, single_tflops=38.7, half_share=0.40, single_share=0.50),
    Gpu(name="RTX 4090", half_tflops=165.2, single_tflops=82.6, half_share=0.45, single_share=0.45),
    Gpu(name="H100 SXM", half_tflops=989.4, single_tflops=66.9, half_share=0.25, single_share=0.50),
)


def read_config(name: str) -> dict[str, Any]:
    """The arguments in a component's config file."""
    stored = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return {key: value for key, value in stored.items() if not key.startswith("_")}


def build_networks(unet_config: str, *, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """U-Net in ``dtype`` and VAE in float32, randomly initialised (or empty on the meta device)."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            unet: Any = UNet2DConditionModel(**read_config(unet_config))
    finally:
        torch.set_default_dtype(default)
    with torch.device(device):
        vae: Any = AutoencoderKL(**read_config("vae"))
    return unet.requires_grad_(False).eval(), vae.requires_grad_(False).eval()


def unet_flops(unet: Any, batch: int) -> int:
    """Operations of one call, a multiplication and an addition counted as two."""
    side, dtype = unet.config.sample_size, unet.dtype
    latents = torch.empty(batch, LATENT_CHANNELS, side, side, device="meta", dtype=dtype)
    text = torch.empty(batch, TOKENS, TEXT_WIDTH, device="meta", dtype=dtype)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(latents, torch.zeros(batch, dtype=torch.int64, device="meta"), encoder_hidden_states=text)
    return counter.get_total_flops()


def vae_flops(vae: Any, image_size: int) -> tuple[int, int]:
    """Operations of encoding one image, and of the gradient's way back to it (the weights are frozen)."""
    image = torch.empty(1, 3, image_size, image_size, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        latents = vae.encode(image).latent_dist.parameters
        forward = counter.get_total_flops()
        latents.sum().backward()
    return forward, counter.get_total_flops() - forward


def predictor_calls(config: GuidanceConfig, timestep: int) -> int:
    """Calls of the U-Net in one step: one less than the grid's entries to invert, and one for the target."""
    grid = inversion_grid(timestep, 0, num_steps=config.inversion_steps, schedule=scaled_linear_schedule())
    return len(grid)


def mean_calls(config: GuidanceConfig) -> float:
    """Calls per step averaged over a run with the default annealing."""
    generator = torch.Generator()
    timesteps = [
        annealed_timestep(
            step,
            RUN_STEPS,
            t_max=config.t_max,
            t_min=config.t_min,
            annealing=config.annealing,
            num_timesteps=1000,
            generator=generator,
        )
        for step in range(RUN_STEPS)
    ]
    counted = {timestep: predictor_calls(config, timestep) for timestep in set(timesteps)}
    return sum(counted[timestep] for timestep in timesteps) / RUN_STEPS


def count(name: str) -> dict[str, Any]:
    """One model's row: operations of the parts, and per step with two branches (CFG) and four (Perp-Neg)."""
    config = GuidanceConfig()
    unet, vae = build_networks(MODELS[name], device="meta", dtype=torch.float16)
    image_size = unet.config.sample_size * VAE_FACTOR
    branch = unet_flops(unet, 1)
    forward, backward = vae_flops(vae, image_size)
    calls: dict[str, float] = {str(timestep): predictor_calls(config, timestep) for timestep in TIMESTEPS}
    calls["mean"] = mean_calls(config)
    report: dict[str, Any] = {
        "image_size": image_size,
        "unet_parameters": sum(weight.numel() for weight in unet.parameters()),
        "unet_tflop_per_branch": branch / 1e12,
        "vae_encode_tflop": forward / 1e12,
        "vae_backward_tflop": backward / 1e12,
        "calls": calls,
    }
    for branches in (2, 4):
        report[f"unet_tflop_{branches}_branches"] = {
            key: number * branches * branch / 1e12 for key, number in calls.items()
        }
        report[f"expected_seconds_{branches}_branches"] = {
            gpu.name: {
                key: number * branches * branch / (gpu.half_tflops * gpu.half_share * 1e12)
                + (forward + backward) / (gpu.single_tflops * gpu.single_share * 1e12)
                for key, number in calls.items()
            }
            for gpu in GPUS
        }
    return report


def print_count(name: str, report: dict[str, Any]) -> None:
    """The row for people."""
    print(
        f"{name}, {report['image_size']} pixels: U-Net {report['unet_parameters']:,} parameters, "
        f"{report['unet_tflop_per_branch']:.3f} TFLOP per branch; "
        f"VAE {report['vae_encode_tflop']:.2f} TFLOP to encode, {report['vae_backward_tflop']:.2f} back"
    )
    for branches in (2, 4):
        for key, number in report["calls"].items():
            seconds = ", ".join(
                f"{gpu} {times[key]:.2f} s" for gpu, times in report[f"expected_seconds_{branches}_branches"].items()
            )
            tflop = report[f"unet_tflop_{branches}_branches"][key]
            print(f"  {branches} branches, t {key}: {number:g} calls, {tflop:.1f} TFLOP in the U-Net; {seconds}")


def run_full_size(dtype: torch.dtype, timestep: int) -> dict[str, Any]:
    """One SDI step of sd21-base's size on the CPU: image, latent, inversion, target, gradient of the image."""
    from transformers import CLIPTextConfig, CLIPTextModel

    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    torch.manual_seed(0)
    unet, vae = build_networks(MODELS["sd21-base"], device="cpu", dtype=dtype)
    text_encoder: Any = CLIPTextModel(CLIPTextConfig(**read_config("text_encoder")))
    text_encoder.to(dtype)
    tokenizer: Any = None  # The tokens are drawn below; weights that are random read no text.
    prior = LatentDiffusionPrior(
        name="random weights of sd21-base's size",
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        schedule=scaled_linear_schedule(),
        prediction_type="epsilon",
    )
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
    output = distil(
        GuidanceConfig(),
        prior,
        latents.detach(),
        embeddings[:1],
        embeddings[1:],
        plan=StepPlan(timestep=timestep, overshoot=20, source="inversion"),
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
    """The most memory that this process has held, 10^9 bytes."""
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
    report: dict[str, Any] = {"gpus": [asdict(gpu) for gpu in GPUS]}
    for name in MODELS:
        report[name] = count(name)
        print_count(name, report[name])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
