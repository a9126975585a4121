"""The layouts of LoRA files: which factor of which layer a tensor is.

kohya writes ``lora_unet_down_blocks_0_..._to_q.lora_down.weight`` with an ``.alpha`` for each layer; diffusers and PEFT
write the layers' own dotted names, with the factors' names behind them. LoRAs extracted from single files name the
blocks of attention as those do: ``lora_unet_input_blocks_1_1_..._to_q``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

Network = Literal["unet", "text_encoder"]
Factor = Literal["down", "up", "alpha"]

_FACTORS: tuple[tuple[re.Pattern[str], Factor], ...] = (
    (re.compile(r"\.(?:lora_down|lora_A(?:\.\w+)?|lora\.down|lora_linear_layer\.down)\.weight$"), "down"),
    (re.compile(r"\.(?:lora_up|lora_B(?:\.\w+)?|lora\.up|lora_linear_layer\.up)\.weight$"), "up"),
    (re.compile(r"\.alpha$"), "alpha"),
)
_KOHYA = re.compile(r"lora_(unet|te1?)_(\w+)")
# Of diffusers before 0.18, which kept the factors in attention processors; without "to_" they belong to CLIP.
_PROCESSOR = re.compile(r"\.(?:processor\.)?to_(q|k|v|out)_lora\.(down|up)\.weight$")
_ORIGINAL = re.compile(r"(?:(?P<way>input|output)_blocks_(?P<number>\d+)|middle_block)_1_(?P<rest>\w+)")
_CLIP_LAYERS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
_UNET_LAYERS = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}


@dataclass(frozen=True, kw_only=True)
class LayerFactor:
    """What one tensor of a LoRA file is."""

    network: Network
    layer: str
    """Dotted name of the layer in its network."""
    factor: Factor


class LayerNames:
    """The layers of both networks by every spelling that LoRA files use."""

    def __init__(self, unet: Collection[str], text_encoder: Collection[str]) -> None:
        """Take the dotted names of all layers."""
        self._layers: dict[Network, Collection[str]] = {"unet": unet, "text_encoder": text_encoder}
        self._kohya: dict[Network, Mapping[str, str]] = {
            network: {layer.replace(".", "_"): layer for layer in layers} for network, layers in self._layers.items()
        }
        found = [re.match(r"down_blocks\.0\.attentions\.(\d+)\.", layer) for layer in unet]
        self._attentions = 1 + max((int(one[1]) for one in found if one), default=0)

    def read(self, name: str) -> LayerFactor | None:
        """Return what a tensor of that name is; None for a layer that the model does not have."""
        old = _PROCESSOR.search(name)
        if old is not None:
            network, start = _network_of(name[: old.start()])
            layer = f"{start}.{(_UNET_LAYERS if network == 'unet' else _CLIP_LAYERS)[old[1]]}"
            return self._found(network, layer, "down" if old[2] == "down" else "up")
        for pattern, factor in _FACTORS:
            if (found := pattern.search(name)) is None:
                continue
            stem = name[: found.start()]
            kohya = _KOHYA.fullmatch(stem)
            if kohya is None:
                return self._found(*_network_of(stem), factor)
            network: Network = "unet" if kohya[1] == "unet" else "text_encoder"
            known = self._kohya[network]
            spellings = (kohya[2], kohya[2].removeprefix("text_model_"), self._of_original(kohya[2]))
            layer = next((known[spelling] for spelling in spellings if spelling in known), None)
            return None if layer is None else LayerFactor(network=network, layer=layer, factor=factor)
        return None

    def _of_original(self, layer: str) -> str:
        """Return diffusers' spelling of a layer of attention that is named as in a single file; others as they are."""
        found = _ORIGINAL.fullmatch(layer)
        if found is None:
            return layer
        if found["way"] is None:
            return f"mid_block_attentions_0_{found['rest']}"
        # A level down has a sampler after its attentions, a level up one more attention.
        way, number = ("down", int(found["number"]) - 1) if found["way"] == "input" else ("up", int(found["number"]))
        block, index = divmod(number, self._attentions + 1)
        return f"{way}_blocks_{block}_attentions_{index}_{found['rest']}"

    def _found(self, network: Network, layer: str, factor: Factor) -> LayerFactor | None:
        # transformers 5.6 took "text_model" out of the names.
        for spelling in (layer, layer.removeprefix("text_model."), f"text_model.{layer}"):
            if spelling in self._layers[network]:
                return LayerFactor(network=network, layer=spelling, factor=factor)
        return None


def _network_of(stem: str) -> tuple[Network, str]:
    """Return the network that a dotted name begins with, the U-Net if it names none, and the layer's own name."""
    stem = stem.removeprefix("base_model.model.")
    for prefix in ("text_encoder.", "text_model."):
        if stem.startswith(prefix):
            return "text_encoder", stem.removeprefix("text_encoder.")
    return "unet", stem.removeprefix("unet.")
