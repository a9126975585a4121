"""OpenCLIP's names of weights, as transformers' CLIPModel has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from sdi_gs.evaluation.networks.weights import other_layout

if TYPE_CHECKING:
    from transformers import CLIPConfig

LAYOUT = "OpenCLIP's"
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Of OpenCLIP's vision towers H, g and bigG (their model configs); 64 in all others."""
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}


def is_open_clip(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights have OpenCLIP's names, or OpenAI's own, which are the same."""
    return "visual.class_embedding" in state and "token_embedding.weight" in state


def clip_config(state: Mapping[str, Tensor], files: Sequence[Path], activation: str) -> CLIPConfig:
    """Return transformers' config of an OpenCLIP network, read from its shapes; UserError for another network."""
    from transformers import CLIPConfig

    try:
        wide, _, patch, _ = state["visual.conv1.weight"].shape
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        vocabulary, narrow = state["token_embedding.weight"].shape
        vision = {
            "hidden_size": wide,
            "intermediate_size": len(state["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": _count(state, "visual.transformer"),
            "num_attention_heads": max(wide // _HEAD_WIDTHS.get(wide, 64), 1),
            "image_size": grid * patch,
            "patch_size": patch,
            "hidden_act": activation,
        }
        text = {
            "vocab_size": vocabulary,
            "hidden_size": narrow,
            "intermediate_size": len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": _count(state, "transformer"),
            "num_attention_heads": max(narrow // 64, 1),
            "max_position_embeddings": len(state["positional_embedding"]),
            "hidden_act": activation,
            # The end of a text is the word with the highest number, as in OpenAI's code.
            "eos_token_id": 2,
        }
        return CLIPConfig(vision_config=vision, text_config=text, projection_dim=state["visual.proj"].shape[1])
    except (KeyError, ValueError) as error:
        raise other_layout(files, LAYOUT, f"{error.args[0]} is missing or has another shape") from error


def as_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under transformers' names."""
    renamed = {_OUTSIDE[name]: value for name, value in state.items() if name in _OUTSIDE}
    for here, there in (("visual.proj", "visual_projection.weight"), ("text_projection", "text_projection.weight")):
        if here in state:
            renamed[there] = state[here].T.contiguous()
    for name, value in state.items():
        found = _BLOCK.fullmatch(name)
        if found is None:
            continue
        tower = "vision_model" if found[1] else "text_model"
        layer, rest = f"{tower}.encoder.layers.{found[2]}", found[3]
        if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = rest.rpartition("_")[2]
            for part, rows in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                renamed[f"{layer}.self_attn.{part}.{kind}"] = rows
            continue
        module, _, kind = rest.rpartition(".")
        if module in _IN_BLOCK:
            renamed[f"{layer}.{_IN_BLOCK[module]}.{kind}"] = value
    return renamed


def _count(state: Mapping[str, Tensor], tower: str) -> int:
    prefix = f"{tower}.resblocks."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
