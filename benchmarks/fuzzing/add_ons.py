"""LoRA files and textual inversions with wrong weights, wrong names, wrong settings and damaged bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from fuzzing.model_folders import good_folders
from fuzzing.mutations import damaged_bytes
from fuzzing.saved_states import damage_json, damage_tensors
from fuzzing.splat_commands import SHORT_RUN
from fuzzing.targets import Case, Target

_LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
_WORDS = ("<toy>", "emb_params", "", " ", "a" * 300, "\x1b[31m", "blue</w>", "<|endoftext|>", "ÿ")


@dataclass(frozen=True, kw_only=True)
class GoodAddOns:
    """A model, and what changes it."""

    model: Path
    lora: dict[str, Tensor]
    vectors: Tensor


def good_add_ons(folder: Path) -> GoodAddOns:
    """Write a model, and draw a change of one of its layers and a word of two vectors."""
    generator = torch.Generator().manual_seed(0)
    factors = {"lora_down.weight": (2, 32), "lora_up.weight": (32, 2)}
    lora = {f"{_LAYER}.{name}": 0.1 * torch.randn(*shape, generator=generator) for name, shape in factors.items()}
    return GoodAddOns(
        model=good_folders(folder)[0],
        lora=lora | {f"{_LAYER}.alpha": torch.tensor(1.0)},
        vectors=torch.randn(2, 16, generator=generator),
    )


def wrong_add_on(good: GoodAddOns, rng: np.random.Generator, folder: Path) -> Case:
    """Write a LoRA file with its settings, or a word, with up to two changes."""
    is_lora, about = rng.random() < 0.6, []
    if is_lora:
        name, option, tensors = "adapter_model.safetensors", "--lora", dict(good.lora)
        settings = {"r": 2, "lora_alpha": 1.0, "alpha_pattern": {"attn1.to_q": 2.0}}
        if rng.random() < 0.5:
            del tensors[f"{_LAYER}.alpha"]
            about.append(damage_json(settings, rng))
        data = json.dumps(settings).encode()
        (folder / "adapter_config.json").write_bytes(damaged_bytes(data, rng) if rng.random() < 0.1 else data)
    else:
        name, option = "style.safetensors", "--embedding"
        tensors = {_WORDS[rng.integers(len(_WORDS))] if rng.random() < 0.5 else "<toy>": good.vectors}
    if rng.random() < 0.7:
        about.append(damage_tensors(tensors, rng))
    data = save({key: tensor.contiguous().clone() for key, tensor in tensors.items()})
    if rng.random() < 0.25:
        data = damaged_bytes(data, rng)
        about.append("bytes")
    (folder / name).write_bytes(data)
    return Case(arguments=_command(good, option, name, rng), about=f"{option}: {', '.join(about)}")


def _command(good: GoodAddOns, option: str, name: str, rng: np.random.Generator) -> Sequence[str]:
    weight = (":0.5", ":-1", ":1e30", ":nan", "")[rng.integers(5)] if rng.random() < 0.2 and option == "--lora" else ""
    given = (option, f"{name}{weight}") if rng.random() < 0.9 else ("--prior", name)
    run = ("--prior", str(good.model), "--steps", "1", "--output-dir", "run", "--compute.precision", "float32")
    return (*SHORT_RUN, *run, *given)


TARGET = Target(prepare=good_add_ons, case=wrong_add_on, quick=12)
