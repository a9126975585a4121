"""One case of ``memory_prediction.py --validate``: a step measured on this CPU, and the same step counted.

    python benchmarks/memory_validation.py toy-64

Measured is the rise of resident memory during the step, by the system's high-water mark. Random weights take as much
memory as trained ones.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tools_on_path  # noqa: F401
import torch
from memory_counting.counting import META, count_round, count_step
from memory_counting.meter import StepMeter
from toybox_training.folder import load_networks

from sdi_gs.configs.presets import preset_named
from sdi_gs.doctor.miniature import Miniature, miniature_networks, prior_of_networks
from sdi_gs.priors.published import ModelName, Networks, published_config, published_networks
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")


TOY = Miniature(
    unet_channels=(64, 128, 128, 128),
    unet_heads=(1, 2, 2, 2),
    unet_groups=32,
    vae_channels=(32, 64, 64, 64),
    vae_groups=8,
    text_inner=128,
)
"""A fifth to a tenth of the published channels."""


def toy_networks(device: torch.device, image_size: int) -> Networks:
    """Return Stable Diffusion's layout with few channels."""
    return miniature_networks(replace(TOY, image_size=image_size), device=device)


def whole_step(image_size: int, **changes: Any) -> dict[str, int]:
    """Measure a step of the trainer with toy networks and Gaussians."""
    config = _run_config(preset_named("sd21-base").config, **changes)
    return _of_step(config, lambda device: toy_networks(device, image_size))


def four_views_step(image_size: int) -> dict[str, int]:
    """Measure a step with toy networks of four views, which are one call however few views go at once."""
    config = _run_config(preset_named("mvdream-sdi").config, compute=ComputeConfig(views_at_once=1))
    sizes = replace(TOY, image_size=image_size, four_views=True)
    return _of_step(config, lambda device: miniature_networks(sizes, device=device), model="mvdream")


def pixels_step(image_size: int, *, replayed: bool) -> dict[str, int]:
    """Measure a step with the loss in pixels, one that computes targets or one on kept targets."""
    config = _run_config(preset_named("sd21-base").config, replay=ReplayConfig(steps_per_target=2, views=8))
    config = replace(config, losses=replace(config.losses, space="pixels"))
    return _of_step(config, lambda device: toy_networks(device, image_size), replayed=replayed)


def field_step(rays_at_once: int) -> dict[str, int]:
    """Measure a step of the trainer with toy networks and a field on torch operations, as on a card.

    All cameras are alike, because the count assumes those with the most samples.
    """
    cameras = CameraConfig(elevation_deg=(20.0, 20.0))
    base = replace(preset_named("sd21-base").config, representation="ngp", cameras=cameras)
    config = _run_config(base, views_per_step=1, compute=ComputeConfig(rays_at_once=rays_at_once))

    def on_torch(trainer: Trainer) -> None:
        assert isinstance(trainer.scene.representation, Ngp)
        trainer.scene.representation.field.backend = "torch"

    return _of_step(config, lambda device: toy_networks(device, 64), prepare=on_torch)


def toybox_step() -> dict[str, int]:
    """Measure a step that computes targets, with toybox's trained networks and Gaussians."""
    return _of_step(_run_config(preset_named("toybox").config, backgrounds=("white",)), toybox_networks)


def toybox_networks(device: torch.device) -> Networks:
    """Load the networks of the package."""
    networks, _, vae = load_networks(Path(__file__).parents[1] / "sdi_gs" / "toybox" / "weights" / "prior")
    made = (networks["text_encoder"], networks["unet"], vae)
    text_encoder, unet, vae = (network.requires_grad_(False).eval().to(device) for network in made)
    return Networks(text_encoder=text_encoder, unet=unet, vae=vae)


def _run_config(base: RunConfig, **changes: Any) -> RunConfig:
    return replace(
        base,
        prompt="anything",
        guidance=replace(base.guidance, inversion_steps=1),
        densify=replace(base.densify, enabled=False),
        gaussians=replace(base.gaussians, num_initial=5000),
        **changes,
    )


def _of_step(
    config: RunConfig,
    build: Callable[[torch.device], Networks],
    *,
    prepare: Callable[[Trainer], None] | None = None,
    replayed: bool = False,
    model: ModelName = "sd21-base",
) -> dict[str, int]:
    """Measure and count the first step of a round, or its second."""
    per_target = config.replay.steps_per_target
    trainer = Trainer(config, prior_of_networks(build(CPU), model=model), device=CPU)
    if prepare is not None:
        prepare(trainer)
    trainer.step = (config.steps - 1) // per_target * per_target - 2 * per_target
    # Compiles the rasteriser and makes the moments.
    for _ in range(per_target + replayed):
        trainer.train_step()
    measured = rise(trainer.train_step)
    empty = prior_of_networks(build(META), model=model)
    count = count_round(config, empty, kernels="cpu")[1] if replayed else count_step(config, empty, kernels="cpu")
    return {"measured": measured, "counted": count.peak_bytes - count.held}


def full_size_vae(image_size: int) -> dict[str, int]:
    """Measure encoding and backward pass of one image, with Stable Diffusion 2.1's VAE in float32."""

    def step(vae: Any, size: int, device: torch.device) -> None:
        image = torch.zeros(1, 3, size, size, device=device, requires_grad=True)
        vae.encode(image).latent_dist.parameters.sum().backward()

    return _of_network(_vae, step, image_size)


def full_size_decoder(image_size: int) -> dict[str, int]:
    """Measure decoding one image without gradients, with Stable Diffusion 2.1's VAE in float32."""

    @torch.no_grad()
    def step(vae: Any, size: int, device: torch.device) -> None:
        vae.decode(torch.zeros(1, 4, size // 8, size // 8, device=device))

    return _of_network(_vae, step, image_size)


def full_size_unet(image_size: int) -> dict[str, int]:
    """Measure a prediction of two branches, with Stable Diffusion 2.1's U-Net in float32."""

    @torch.no_grad()
    def step(unet: Any, size: int, device: torch.device) -> None:
        latents = torch.zeros(2, 4, size // 8, size // 8, device=device)
        text = torch.zeros(2, 77, 1024, device=device)
        unet(latents, torch.zeros(2, dtype=torch.int64, device=device), encoder_hidden_states=text)

    def build(device: torch.device) -> Any:
        networks = published_networks("sd21-base", device=META, dtype=torch.float32, image_size=image_size)
        return networks.unet if device == META else networks.unet.to_empty(device=device).apply(_fill)

    return _of_network(build, step, image_size)


def _of_network(
    build: Callable[[torch.device], Any], step: Callable[[Any, int, torch.device], None], image_size: int
) -> dict[str, int]:
    network = build(CPU)
    step(network, 64, CPU)
    measured = rise(lambda: step(network, image_size, CPU))
    meter, empty = StepMeter(kernels="cpu"), build(META)
    # They exist before the step; otherwise a view of one would count as a new tensor.
    meter.leave_out(empty.parameters())
    with meter:
        step(empty, image_size, META)
    return {"measured": measured, "counted": meter.peak.total()}


def _vae(device: torch.device) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with device:
        made: Any = AutoencoderKL(**published_config("vae"))
    return made.requires_grad_(False).eval()


def _fill(module: Any) -> None:
    """Write to all weights: untouched pages take no memory."""
    for parameter in module.parameters(recurse=False):
        parameter.data.fill_(1e-3)


def rise(step: Callable[[], object]) -> int:
    """Return the rise of resident memory during a step, in bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


CASES: dict[str, Callable[[], dict[str, int]]] = {
    "toy-64": lambda: whole_step(64),
    "toy-128": lambda: whole_step(128),
    "toy-views-in-turn": lambda: whole_step(128, compute=ComputeConfig(views_at_once=1)),
    "toy-checkpoint": lambda: whole_step(
        128, compute=ComputeConfig(views_at_once=1, branches_at_once=2, vae="checkpoint")
    ),
    "toy-pixels": lambda: pixels_step(128, replayed=False),
    "toy-pixels-kept": lambda: pixels_step(128, replayed=True),
    "toy-four-views": lambda: four_views_step(128),
    "toy-field": lambda: field_step(0),
    "toy-field-rays": lambda: field_step(1024),
    "toybox": toybox_step,
    "vae-128": lambda: full_size_vae(128),
    "vae-256": lambda: full_size_vae(256),
    "decoder-128": lambda: full_size_decoder(128),
    "unet-256": lambda: full_size_unet(256),
}


def main() -> None:
    """Measure and count the named case."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    result = CASES[sys.argv[1]]()
    print(json.dumps({"case": sys.argv[1], **result, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
