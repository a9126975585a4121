"""A random latent diffusion model of toy size in the folder layout of Stable Diffusion 2.1: images of 64 pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.doctor.miniature import SMALLEST, miniature_networks
from sdi_gs.priors.clip_tokenizer import write_clip_tokenizer

SCHEDULERS: dict[str, dict[str, Any]] = {
    # The files of 2.1-base and of 2.1 as published.
    "epsilon": {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.10.0.dev0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "v_prediction": {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.8.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
}


def write_model(folder: Path, scheduler: dict[str, Any], *, words: bool = False, four_views: bool = False) -> Path:
    """Write a whole model with the given scheduler, and return its folder.

    ``words`` gives it CLIP's own vocabulary, in which a prompt of a sentence fits; else most words are spelt.
    ``four_views`` makes its U-Net one of four views and their cameras, as MVDream's.
    """
    torch.manual_seed(0)
    vocabulary = _write_clips_tokenizer(folder / "tokenizer") if words else _write_tokenizer(folder / "tokenizer")
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    tokens = {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
        "pad_token_id": vocabulary["!"],
    }
    sizes = replace(SMALLEST, text_tokens=tuple(tokens.items()), four_views=four_views)
    networks = miniature_networks(sizes, device="cpu")
    networks.text_encoder.save_pretrained(folder / "text_encoder")
    networks.unet.save_pretrained(folder / "unet")
    networks.vae.save_pretrained(folder / "vae")
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.10.0.dev0",
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    return folder


def _write_clips_tokenizer(folder: Path) -> dict[str, int]:
    folder.mkdir(parents=True)
    write_clip_tokenizer(folder, pad_token="!")
    return json.loads((folder / "vocab.json").read_text(encoding="utf-8"))


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's tokenizer with three merges; "blue" is one token and every other word is spelt."""
    letters = [chr(code) for code in range(33, 127)]
    merges = [("b", "l"), ("u", "e</w>"), ("bl", "ue</w>")]
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "!",
        "unk_token": "<|endoftext|>",
    }
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True},
    )
    return vocabulary


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
