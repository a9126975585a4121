"""CLIP: pictures and texts as directions that can be compared.

Letters: V pictures, H W pixels, T texts, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.evaluation.networks.files import NetworkFiles
from sdi_gs.evaluation.networks.open_clip_layout import as_transformers, clip_config, is_open_clip
from sdi_gs.evaluation.networks.pixels import network_input
from sdi_gs.evaluation.networks.weights import fill, other_layout, read_state
from sdi_gs.priors.clip_tokenizer import END, clip_tokenizer
from sdi_gs.priors.kinds import read_json

if TYPE_CHECKING:
    from transformers import CLIPModel

PICTURES_AT_ONCE = 16
LAYOUT = "CLIP's of transformers or OpenCLIP"


class ClipNetwork:
    """A CLIP network in evaluation mode."""

    def __init__(self, model: CLIPModel, *, layout: str, device: torch.device | str = "cpu") -> None:
        self.model: Any = torch.nn.Module.to(model.eval().requires_grad_(False), device)
        self.layout = layout
        self.device = torch.device(device)
        vision, text = _parts(model)
        self.image_size, self.longest = int(vision.image_size), int(text.max_position_embeddings)

    @cached_property
    def _tokenizer(self) -> Any:
        return clip_tokenizer(pad_token=END)

    @torch.no_grad()
    def pictures(
        self,
        pictures: np.ndarray,  # [V, H, W, 3] uint8
    ) -> Tensor:  # [V, D] unit
        """Return the embeddings of pictures, of length 1, on the CPU."""
        found = []
        for start in range(0, len(pictures), PICTURES_AT_ONCE):
            pixels = network_input(pictures[start : start + PICTURES_AT_ONCE], self.image_size).to(self.device)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            found.append(F.normalize(self.model.visual_projection(pooled), dim=-1).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:  # [T, D] unit
        """Return the embeddings of texts, of length 1, on the CPU; what is beyond the network's length is cut."""
        words = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.device)
        pooled = self.model.text_model(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"]
        ).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1).cpu()

    def describe(self) -> dict[str, Any]:
        """Return what the manifest records of the network itself."""
        vision, _ = _parts(self.model)
        return {
            "layout": self.layout,
            "backbone": f"CLIP, {vision.num_hidden_layers} layers of {vision.hidden_size}, patches {vision.patch_size}",
            "activation": vision.hidden_act,
            "picture_size": self.image_size,
            "resize": "bicubic (Pillow), bytes",
        }


def _parts(model: CLIPModel) -> tuple[Any, Any]:
    """Return the configs of both towers, whose types the library leaves open."""
    config: Any = model.config
    return config.vision_config, config.text_config


def load_clip(files: NetworkFiles, *, device: torch.device | str = "cpu", activation: str = "gelu") -> ClipNetwork:
    """Load CLIP from transformers' or OpenCLIP's layout; UserError for weights of another one.

    ``activation`` is OpenCLIP's; transformers' config names its own.
    """
    from transformers import CLIPConfig, CLIPModel

    state = read_state(files.weights)
    if is_open_clip(state):
        config, layout = clip_config(state, files.weights, activation), "OpenCLIP"
        state = as_transformers(state)
    elif "vision_model.embeddings.class_embedding" in state:
        file, layout = files.other("config.json"), "transformers"
        if file is None:
            raise UserError(f"{files.weights[0]} has no config.json beside it: transformers' layout needs it")
        try:
            config = CLIPConfig.from_dict(read_json(file))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{file} is no config of a CLIP network: {error}") from error
    else:
        raise other_layout(files.weights, LAYOUT, f"its first entry is {next(iter(state), 'none')}")
    model = CLIPModel(config)
    fill(model, state, files=files.weights, layout=LAYOUT)
    return ClipNetwork(model, layout=layout, device=device)
