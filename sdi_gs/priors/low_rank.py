"""Low-rank changes of weights (LoRA): W + s B A, with peft's layers, merged into the frozen networks.

Merged, they cost nothing in a step, and every option of computing works on them.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.priors.checkpoint_files import is_lora
from sdi_gs.priors.kinds import few_steps_note, sign_of_few_steps
from sdi_gs.priors.layout import in_one_line
from sdi_gs.priors.low_rank_names import LayerNames, Network
from sdi_gs.priors.parts import Parts
from sdi_gs.priors.safetensors_header import Header, read_header
from sdi_gs.settings.shown import shown

LARGEST_ALPHA = 1e6
"""Of the alphas, which are of the size of the rank; also of those that are not finite."""

_ADAPTER = "merged"
_PATTERN = re.compile(r"[\w.\\^$|()-]{1,300}(?:(?<!\))[*+][\w.\\^$|()-]{0,300}){0,3}")
"""Names of layers with up to three wildcards and no repeated groups, whose search is short."""
_KINDS_WITHOUT_SUPPORT = (
    ("hada_w", "a LoHa"),
    ("lokr_w", "a LoKr"),
    ("oft_", "an OFT"),
    ("dora_scale", "a DoRA"),
    ("lora_magnitude_vector", "a DoRA"),
    ("lora_mid", "a Tucker-decomposed LoCon"),
)


@dataclass(frozen=True, kw_only=True)
class LayerChange:
    """The factors of one layer's change: W + scale B A."""

    down: Tensor  # A [R, in] or [R, in, h, w]
    up: Tensor  # B [out, R] or [out, R, 1, 1]
    alpha: float
    """The scale is alpha / R, times the user's weight."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Weights as they were before changes were merged into them."""

    originals: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    def remove(self) -> None:
        """Put the original bits back."""
        for parameter, original in reversed(self.originals):
            parameter.data.copy_(original)
        self.originals.clear()


def merge_loras(parts: Parts, files: Sequence[tuple[Path, float]], *, undo: Merged | None = None) -> None:
    """Merge LoRA files into U-Net and text encoder, in their order, each with its weight; ``undo`` gets the originals.

    Raises UserError, before any weight changes, for a file that is none or belongs to another architecture.
    """
    changes = [(weight, read_lora(path, parts)) for path, weight in files]
    for weight, networks in changes:
        for network, layers in networks.items():
            _merge(getattr(parts, network), layers, weight, undo)


def notes_on_loras(files: Sequence[tuple[Path, float]]) -> tuple[str, ...]:
    """Return one warning for each LoRA that was made to sample in few steps."""
    signs = [(path, sign_of_few_steps(path, read_header(path).metadata)) for path, _ in files]
    return tuple(few_steps_note(path, sign) for path, sign in signs if sign is not None)


def read_lora(path: Path, parts: Parts) -> dict[Network, dict[str, LayerChange]]:
    """Return the changes in a file by network and layer; UserError unless all of them fit."""
    if not (is_there(path) and path.is_file()):
        raise UserError(f"there is no LoRA {path}: check --lora FILE[:WEIGHT]")
    if importlib.util.find_spec("peft") is None:
        raise UserError('LoRA files need the package peft: install it with pip install "sdi-gs[lora]"')
    header = read_header(path)
    _require_lora(header)
    from safetensors.torch import load_file

    layers = {network: _layers_of(getattr(parts, network)) for network in ("unet", "text_encoder")}
    names = LayerNames(layers["unet"], layers["text_encoder"])
    factors: dict[tuple[Network, str], dict[str, Tensor]] = {}
    for name, value in load_file(path).items():
        found = names.read(name)
        if found is None:
            raise UserError(
                f"{path} changes {name.split('.lora')[0]}, which the model does not have: it was made for another kind "
                "of model; take one for this model's family (1.x or 2.x)"
            )
        factors.setdefault((found.network, found.layer), {})[found.factor] = value
    changes: dict[Network, dict[str, LayerChange]] = {}
    for (network, layer), parts_of_layer in factors.items():
        change = _checked(path, header, network, layer, parts_of_layer, layers[network][layer])
        changes.setdefault(network, {})[layer] = change
    return changes


def _require_lora(header: Header) -> None:
    for sign, what in _KINDS_WITHOUT_SUPPORT:
        if any(sign in name for name in header.shapes):
            raise UserError(f"{header.path} is {what}, which is not supported: --lora takes plain LoRA files")
    if not is_lora(header):
        raise UserError(f"{header.path} is no LoRA: --lora takes files with low-rank changes; a model is --prior's")
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in header.shapes):
        raise UserError(f"{header.path} is a LoRA of Stable Diffusion XL: take one for 1.x or 2.x")


def _layers_of(network: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def _checked(
    path: Path, header: Header, network: Network, layer: str, factors: Mapping[str, Tensor], module: Any
) -> LayerChange:
    """Return a layer's change; UserError if a factor is missing or has another shape than the layer."""
    down, up = factors.get("down"), factors.get("up")
    if down is None or up is None:
        raise UserError(f"{path} has half of the change of {network} {layer}: download it again")
    _require_numbers(path, layer, down, up)
    shape = tuple(module.weight.shape)
    if isinstance(module, nn.Linear):
        # kohya also writes linear layers as convolutions of one pixel.
        down, up = down.flatten(1), up.flatten(1)
    elif down.dim() == 2:
        down, up = down[:, :, None, None], up[:, :, None, None]
    fits = down.dim() == up.dim() == len(shape) and (up.shape[0], *down.shape[1:]) == shape
    if not fits or up.shape[1] != down.shape[0]:
        raise UserError(
            f"{path} does not fit: {layer} of the model's {network} has weights of {shape}, the LoRA changes "
            f"{(up.shape[0], *down.shape[1:])}; take one that was made for this model's family (1.x or 2.x)"
        )
    alpha = factors.get("alpha")
    if alpha is not None and (alpha.numel() != 1 or alpha.is_complex()):
        raise UserError(f"{path} is damaged: the alpha of {layer} is no number; download it again")
    stated = _stated_alpha(header, network, layer) if alpha is None else float(alpha)
    if stated is not None and not abs(stated) <= LARGEST_ALPHA:
        raise UserError(f"{path} is damaged: the alpha of {layer} is {stated:g}; download it again")
    return LayerChange(down=down, up=up, alpha=float(len(down)) if stated is None else stated)


def _require_numbers(path: Path, layer: str, *factors: Tensor) -> None:
    """Raise UserError unless a layer's factors are matrices or filters of finite numbers, of rank 1 or more."""
    for factor in factors:
        if factor.dim() < 2 or not factor.numel() or not factor.is_floating_point():
            raise UserError(f"{path} is damaged: a factor of {layer} is no matrix of numbers; download it again")
        if not bool(factor.float().isfinite().all()):
            raise UserError(f"{path} is damaged: a factor of {layer} is not finite; download it again")


def _stated_alpha(header: Header, network: Network, layer: str) -> float | None:
    """Return the alpha in the file's metadata (diffusers) or in ``adapter_config.json`` beside it (PEFT), or None."""
    text, prefix = header.metadata.get("lora_adapter_metadata"), f"{network}."
    beside = header.path.with_name("adapter_config.json")
    try:
        if text is None and header.path.name.startswith("adapter_model") and beside.is_file():
            text, prefix = beside.read_text(encoding="utf-8"), ""
        stated = json.loads(text or "{}")
        patterns = stated.get(f"{prefix}alpha_pattern") or {}
        # peft's own rule: the first pattern that is the end of the name.
        own = next((value for key, value in patterns.items() if _is_end_of(layer, key)), None)
        alpha = stated.get(f"{prefix}lora_alpha") if own is None else own
        return None if alpha is None else float(alpha)
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error) as error:
        reason = in_one_line(error)
        raise UserError(f"the settings of {header.path} cannot be read ({reason}): download it again") from error


def _is_end_of(layer: str, pattern: str) -> bool:
    """Return whether a pattern of peft's fits the end of a layer's name; ValueError for one that could take hours."""
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(f"alpha_pattern {shown(pattern)} is no name of layers")
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None


def _merge(network: nn.Module, changes: Mapping[str, LayerChange], weight: float, undo: Merged | None) -> None:
    """Wrap the changed layers in peft's, add their change to the weights, and unwrap them."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    # One adapter for each scale: peft looks up scales of single layers in a time that is quadratic in their number.
    groups: dict[tuple[int, float], list[str]] = {}
    for layer, change in changes.items():
        groups.setdefault((len(change.down), change.alpha), []).append(layer)
    for (rank, alpha), layers in groups.items():
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, init_lora_weights=False)  # pyright: ignore[reportArgumentType]
        inject_adapter_in_model(config, network, adapter_name=_ADAPTER)
        state = {}
        for layer in layers:
            state[f"{layer}.lora_A.weight"], state[f"{layer}.lora_B.weight"] = changes[layer].down, changes[layer].up
        left = set_peft_model_state_dict(network, state, adapter_name=_ADAPTER)
        assert not left.unexpected_keys, left.unexpected_keys
        for layer in layers:
            _merge_layer(network, layer, weight, undo)
        del network.peft_config
    network.requires_grad_(False)


def _merge_layer(network: nn.Module, layer: str, weight: float, undo: Merged | None) -> None:
    wrapped: Any = network.get_submodule(layer)
    base = wrapped.get_base_layer()
    if undo is not None:
        undo.originals.append((base.weight, base.weight.detach().to("cpu", copy=True)))
    wrapped.set_scale(_ADAPTER, weight)
    change = wrapped.get_delta_weight(_ADAPTER)
    wide = torch.promote_types(base.weight.dtype, torch.float32)
    base.weight.data.copy_(base.weight.to(wide) + change.to(wide))
    parent, _, own = layer.rpartition(".")
    setattr(network.get_submodule(parent), own, base)
