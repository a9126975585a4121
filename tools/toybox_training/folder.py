"""The trained networks as a folder in Stable Diffusion 2.1's layout, in half precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sdi_gs.errors import UserError
from sdi_gs.files import refuse_existing
from sdi_gs.priors.quiet import lean_loading, without_progress_bars
from toybox_training.denoiser import SCHEDULER
from toybox_training.vocabulary import write_tokenizer

_MODEL_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_folder(folder: Path, *, vae: Any, unet: Any, text_encoder: Any) -> None:
    """Write all files for ``StableDiffusionPipeline.from_pretrained``; raises UserError if the folder exists."""
    refuse_existing(folder)
    write_tokenizer(folder / "tokenizer")
    for name, network in (("vae", vae), ("unet", unet), ("text_encoder", text_encoder)):
        network.to(memory_format=torch.contiguous_format).half().save_pretrained(folder / name)
        network.float()
    # Without this, transformers would use the file's precision, unlike diffusers.
    _edit_json(folder / "text_encoder" / "config.json", dtype="float32")
    scheduler = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.35.0", **SCHEDULER}
    (folder / "scheduler").mkdir()
    for path, content in (
        (folder / "scheduler" / "scheduler_config.json", scheduler),
        (folder / "model_index.json", _MODEL_INDEX),
    ):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_networks(folder: Path) -> tuple[Any, Any, Any]:
    """Load networks (a dict of U-Net and text encoder), tokenizer and VAE of such a folder, in float32.

    Raises UserError if the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give one in Stable Diffusion 2.1's layout")
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    with without_progress_bars():
        unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, **lean_loading())
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    networks = {"unet": unet.eval(), "text_encoder": text_encoder.eval()}
    networks["unet"].to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return networks, tokenizer, load_vae(folder / "vae")


def load_vae(folder: Path) -> Any:
    """Load a frozen VAE in float32, in the memory layout for a CPU."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae: Any = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, **lean_loading())
    return vae.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def _edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes, indent=2) + "\n", encoding="utf-8")
