"""Write a folder in diffusers' layout as one file in the original layout: the way back from what diffusers converts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from sdi_gs.contracts import PredictionType
from sdi_gs.priors import checkpoint_loading
from sdi_gs.priors.checkpoint_loading import Architecture

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_CLIP_LAYERS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def use_toy_architecture(model: Path, monkeypatch: pytest.MonkeyPatch, *, vae_size: int | None = None) -> None:
    """Let a folder's architecture and tokenizer stand for the published ones, so that single files of it load.

    ``vae_size`` is the side of the pictures that the VAE is said to be made for, if not the folder's.
    """
    networks: dict[str, dict[str, Any]] = {}
    for component in ("unet", "vae", "text_encoder"):
        stored = json.loads((model / component / "config.json").read_text())
        networks[component] = {key: value for key, value in stored.items() if not key.startswith("_")}

    if vae_size is not None:
        networks["vae"]["sample_size"] = vae_size

    def toy(family: str, prediction_type: PredictionType) -> Architecture:
        return Architecture(**networks, pad_token="!")

    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True)
    monkeypatch.setattr(checkpoint_loading, "published_architecture", toy)
    monkeypatch.setattr(checkpoint_loading, "clip_tokenizer", lambda *, pad_token: tokenizer)


def write_checkpoint(
    folder: Path, file: Path, *, family: str = "2.x", layers: int = 1, metadata: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Write a folder's networks into one file, and return its tensors; ``layers`` is the U-Net's."""
    tensors = {f"model.diffusion_model.{unet_name(k, layers)}": v for k, v in network(folder, "unet").items()}
    for name, value in network(folder, "vae").items():
        is_attention = re.search(r"attentions.*(to_[qkv]|to_out\.0)\.weight", name)
        tensors[f"first_stage_model.{vae_name(name)}"] = value[:, :, None, None] if is_attention else value
    text = {name.removeprefix("text_model."): value for name, value in network(folder, "text_encoder").items()}
    if family == "1.x":
        tensors |= {f"cond_stage_model.transformer.text_model.{name}": value for name, value in text.items()}
    else:
        tensors |= {f"cond_stage_model.model.{name}": value for name, value in open_clip(text).items()}
    save_tensors(tensors, file, metadata)
    return tensors


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a file of tensors that share no memory, and return its path."""
    whole = {name: value.clone().contiguous() for name, value in tensors.items()}
    save_file(whole, file, metadata=dict(metadata or {"format": "pt"}))
    return file


def network(folder: Path, component: str) -> dict[str, Tensor]:
    """Return a component's tensors."""
    [file] = (folder / component).glob("*.safetensors")
    return load_file(file)


def unet_name(name: str, layers: int) -> str:
    """Return a U-Net's tensor in the original layout; blocks are counted through, with their samplers."""
    for new, old in _UNET_ENDS.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    _, block, kind, index, rest = re.fullmatch(
        r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(\w+?)\.(\d+)\.(.*)", name
    ).group(1, 2, 3, 4, 5)  # pyright: ignore[reportOptionalMemberAccess]
    if kind == "resnets":
        part, end = rest.rsplit(".", 1)
        rest = f"{_RESNET[part]}.{end}"
    if name.startswith("mid_block"):
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{rest}"
    inner = {"resnets": 0, "attentions": 1}
    if name.startswith("down_blocks"):
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (int(block) + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{(layers + 1) * int(block) + int(index) + 1}.{inner[kind]}.{rest}"
    if kind == "upsamplers":
        # The first level up has no attention, so that the sampler takes its place.
        return f"output_blocks.{(layers + 1) * int(block) + layers}.{1 if block == '0' else 2}.{rest}"
    return f"output_blocks.{(layers + 1) * int(block) + int(index)}.{inner[kind]}.{rest}"


def vae_name(name: str, levels: int = 4) -> str:
    """Return a VAE's tensor in the original layout; levels up are counted from the other end."""
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1.", name)
    name = re.sub(r"decoder\.up_blocks\.(\d+)\.", lambda found: f"decoder.up.{levels - 1 - int(found[1])}.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda found: f"mid.block_{int(found[1]) + 1}.", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace(".resnets.", ".block.")
    name = name.replace("downsamplers.0.", "downsample.").replace("upsamplers.0.", "upsample.")
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = name.replace("group_norm", "norm").replace("to_out.0", "proj_out")
    return re.sub(r"\.to_([qkv])\.", r".\1.", name)


def open_clip(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a text encoder's tensors as OpenCLIP names them: query, key and value in one."""
    result = {}
    for name, value in text.items():
        if name in _CLIP_ENDS:
            result[_CLIP_ENDS[name]] = value
            continue
        layer, part = re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)", name).group(1, 2)  # pyright: ignore[reportOptionalMemberAccess]
        start = f"transformer.resblocks.{layer}."
        part, end = part.rsplit(".", 1)
        if part in _CLIP_LAYERS:
            result[f"{start}{_CLIP_LAYERS[part]}.{end}"] = value
        elif part == "self_attn.q_proj":
            whole = [text[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            result[f"{start}attn.in_proj_{end}"] = torch.cat(whole)
    width = len(result["ln_final.weight"])
    return result | {"text_projection": torch.eye(width), "logit_scale": torch.tensor(4.6)}
