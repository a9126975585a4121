"""Measurements of a finished prior: reconstructions of its VAE, and whether samples show what the prompt says."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdi_gs.toybox.judge import Judge
from toybox_training.autoencoder import measure_vae
from toybox_training.denoiser import judged, sample_images, sheet_prompts
from toybox_training.folder import load_networks
from toybox_training.sheets import save_sheet

Scores = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AssessmentConfig:
    """Settings of the measurement."""

    guidance_scales: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.5)
    """Classifier-free guidance scales of the samples."""
    samples: int = 208
    """Samples at each scale, on seen and on held-out pairs."""
    ddim_steps: int = 30
    """Steps of the sampler."""
    vae_images: int = 512
    """Held-out renders that are encoded and decoded."""
    seed: int = 0
    """Seed of prompts and noise."""
    device: str = "cpu"
    """Device of the networks: "cpu" or "cuda"."""
    batch_size: int = 48
    """Samples at once; affects time only."""


def assess(folder: Path, out: Path, judge: Judge, config: AssessmentConfig) -> Scores:
    """Measure a folder in SD 2.1's layout and write ``assessment.json`` and sheets to ``out``."""
    networks, tokenizer, vae = load_networks(folder)
    for network in (*networks.values(), vae):
        network.to(config.device)
    started = time.process_time()
    reconstruction, images, decoded = measure_vae(vae, count=config.vae_images)
    pairs = [part for start in (0, 16) for part in (images[start : start + 16], decoded[start : start + 16])]
    save_sheet(out / "vae.png", torch.cat(pairs), columns=16)
    samples: Scores = {}
    for which in ("seen", "held_out"):
        prompts = sheet_prompts(config.samples, held_out=which == "held_out", seed=config.seed)
        samples[which] = {}
        for scale in config.guidance_scales:
            pictures = sample_images(
                networks,
                tokenizer,
                vae,
                [text for text, _ in prompts],
                guidance_scale=scale,
                steps=config.ddim_steps,
                seed=config.seed,
                batch_size=config.batch_size,
            )
            samples[which][f"{scale:g}"] = judged(judge, pictures, [asked for _, asked in prompts])
            save_sheet(out / f"samples-{which}-{scale:g}.png", pictures[:64], columns=16)
    scores = {
        "vae": reconstruction,
        "samples": samples,
        "samples_per_cell": config.samples,
        "ddim_steps": config.ddim_steps,
        "bytes": {file.parent.name: file.stat().st_size for file in sorted(folder.glob("*/*.safetensors"))},
        "parameters": {
            "unet": _count(networks["unet"]),
            "text_encoder": _count(networks["text_encoder"]),
            "vae": _count(vae),
        },
        "cpu_seconds": time.process_time() - started,
    }
    (out / "assessment.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def _count(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
