"""ImageReward: a BLIP network that was trained on people's rankings of pictures (arXiv 2304.05977).

The published weights have BLIP's own names; here they fill transformers' networks of the same shape.

Letters: V pictures, H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdi_gs.errors import UserError
from sdi_gs.evaluation.networks.files import NetworkFiles
from sdi_gs.evaluation.networks.pixels import network_input
from sdi_gs.evaluation.networks.weights import fill, other_layout, read_state

LAYOUT = "ImageReward's"
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
"""Of the rewards of its training pictures: scores are standardised by them (ImageReward.py)."""
MOST_TOKENS = 35
PICTURES_AT_ONCE = 8
_VISION, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."
_HEAD_LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers between those of dropout, which does nothing here."""
_IN_VISION = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.layers.\1.self_attn."),
    (r"^blocks\.(\d+)\.norm(\d)\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.\1."),
)


class ImageRewardNetwork(nn.Module):
    """Vision transformer, BERT that looks at its patches, and a head of linear layers."""

    def __init__(self, state: Mapping[str, Tensor], vocabulary: Path, *, activation: str = "gelu") -> None:
        """Build the network that ``state`` fits; KeyError and ValueError for a state of another network."""
        from tokenizers import BertWordPieceTokenizer
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        super().__init__()
        wide, _, patch, _ = state[f"{_VISION}patch_embed.proj.weight"].shape
        grid = round((state[f"{_VISION}pos_embed"].shape[1] - 1) ** 0.5)
        self.image_size = grid * patch
        words, narrow = state[f"{_TEXT}embeddings.word_embeddings.weight"].shape
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=wide,
                intermediate_size=len(state[f"{_VISION}blocks.0.mlp.fc1.weight"]),
                num_hidden_layers=_count(state, f"{_VISION}blocks."),
                num_attention_heads=max(wide // 64, 1),
                image_size=self.image_size,
                patch_size=patch,
                hidden_act=activation,
                layer_norm_eps=1e-6,
            )
        )
        self.text = BlipTextModel(
            BlipTextConfig(
                vocab_size=words,
                hidden_size=narrow,
                encoder_hidden_size=wide,
                intermediate_size=len(state[f"{_TEXT}encoder.layer.0.intermediate.dense.weight"]),
                num_hidden_layers=_count(state, f"{_TEXT}encoder.layer."),
                num_attention_heads=max(narrow // 64, 1),
                max_position_embeddings=len(state[f"{_TEXT}embeddings.position_embeddings.weight"]),
                hidden_act="gelu",
                layer_norm_eps=1e-12,
            ),
            add_pooling_layer=False,
        )
        shapes = [state[f"{_HEAD}{place}.weight"].shape for place in _HEAD_LAYERS]
        self.head = nn.Sequential(*(nn.Linear(before, after) for after, before in shapes))
        self.words = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self.words.enable_truncation(MOST_TOKENS)
        self.words.enable_padding(length=MOST_TOKENS)
        self.device = torch.device("cpu")

    @torch.no_grad()
    def scores(
        self,
        pictures: np.ndarray,  # [V, H, W, 3] uint8
        prompt: str,
    ) -> Tensor:  # [V]
        """Return the standardised reward of each picture, on the CPU."""
        encoded = self.words.encode(prompt)
        ids = torch.tensor([encoded.ids], device=self.device)
        mask = torch.tensor([encoded.attention_mask], device=self.device)
        found = []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            pixels = network_input(pictures[start : start + PICTURES_AT_ONCE], self.image_size).to(self.device)
            patches = self.vision(pixel_values=pixels).last_hidden_state
            count = len(pixels)
            seen = self.text(
                input_ids=ids.expand(count, -1),
                attention_mask=mask.expand(count, -1),
                encoder_hidden_states=patches,
                encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=self.device),
            ).last_hidden_state[:, 0]
            found.append(((self.head(seen)[:, 0] - REWARD_MEAN) / REWARD_STD).cpu())
        return torch.cat(found)

    def describe(self) -> dict[str, Any]:
        """Return what the manifest records of the network itself."""
        return {
            "layout": "ImageReward 1.0 (BLIP)",
            "backbone": f"BLIP, {self.vision.config.num_hidden_layers} layers of {self.vision.config.hidden_size}",
            "picture_size": self.image_size,
            "resize": "bicubic (Pillow), bytes",
            "scale": f"(reward - {REWARD_MEAN}) / {REWARD_STD}",
        }


def load_image_reward(files: NetworkFiles, *, device: torch.device | str = "cpu") -> ImageRewardNetwork:
    """Load ImageReward from its published layout; UserError for weights of another one."""
    vocabulary = files.other("vocab.txt")
    if vocabulary is None:
        raise UserError(f"{files.weights[0]} has no vocab.txt beside it: copy that of bert-base-uncased there")
    state = read_state(files.weights)
    try:
        network = ImageRewardNetwork(state, vocabulary)
    except (KeyError, ValueError) as error:
        raise other_layout(files.weights, LAYOUT, f"{error.args[0]} is missing or has another shape") from error
    heads = {
        f"{index}.{kind}": state.get(f"{_HEAD}{place}.{kind}")
        for index, place in enumerate(_HEAD_LAYERS)
        for kind in ("weight", "bias")
    }
    parts: tuple[tuple[nn.Module, dict[str, Tensor]], ...] = (
        (network.vision, _vision_state(state)),
        (network.text, {name.removeprefix(_TEXT): value for name, value in state.items() if name.startswith(_TEXT)}),
        (network.head, {name: value for name, value in heads.items() if value is not None}),
    )
    for part, own in parts:
        fill(part, own, files=files.weights, layout=LAYOUT)
    network.eval().requires_grad_(False).to(device)
    network.device = torch.device(device)
    return network


def _vision_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        if not name.startswith(_VISION):
            continue
        own = name.removeprefix(_VISION)
        for pattern, new in _IN_VISION:
            own, count = re.subn(pattern, new, own)
            if count:
                break
        found[own] = value
    return found


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
