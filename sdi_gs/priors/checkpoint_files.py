"""Single files with a whole Stable Diffusion model in the original layout: what they are, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sdi_gs.errors import UserError
from sdi_gs.priors.kinds import SUPPORTED, read_if_sound, views_of
from sdi_gs.priors.safetensors_header import Header, read_header

if TYPE_CHECKING:
    # Imports torch, which a list of priors does not need.
    from sdi_gs.contracts import PredictionType

Family = Literal["1.x", "2.x"]

UNET, VAE, CLIP, OPEN_CLIP = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
)
"""Prefixes of the networks' weights; 1.x contains CLIP as its text encoder, 2.x OpenCLIP."""

V_MARKER, ZERO_SNR_MARKER = "v_pred", "ztsnr"
"""Names of empty tensors by which a file states its prediction type and its schedule (ComfyUI's convention)."""

CAMERA_MLP = f"{UNET}camera_embed."
"""Prefix of the weights that embed the cameras of views that are denoised together (MVDream)."""

_OTHERS = (
    (re.compile(r"^conditioner\.embedders\."), "a checkpoint of Stable Diffusion XL"),
    (re.compile(r"joint_blocks\.0\."), "a checkpoint of Stable Diffusion 3"),
    (re.compile(r"double_blocks\.0\."), "a checkpoint of FLUX"),
    (re.compile(r"^control_model\.|^controlnet_"), "a ControlNet"),
    (re.compile(r"^model\.diffusion_model\.label_emb\."), "an unCLIP, upscaling or XL checkpoint"),
    (re.compile(r"^(down_blocks|conv_in)\."), "the U-Net of a folder alone"),
    (re.compile(r"^(encoder|decoder)\.(conv_in|mid)"), "a VAE alone"),
    (re.compile(r"^(text_model|embeddings|encoder\.layers)\."), "a text encoder alone"),
)
_INPUTS = {9: "an inpainting", 8: "an instruct-pix2pix", 7: "an upscaling", 5: "a depth"}
_LAST_NORM = re.compile(r"model\.diffusion_model\.output_blocks\.(\d+)\.1\.transformer_blocks\.0\.norm1\.bias")


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A file with U-Net, VAE and text encoder of Stable Diffusion 1.x or 2.x."""

    path: Path
    family: Family
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each tensor by its name."""
    has_ema: bool
    """Whether it also has the running average of the U-Net's weights, which the published pipelines use."""
    zero_snr: bool
    """Whether it states that it was trained to zero signal at the last timestep."""
    stated_type: tuple[PredictionType, str] | None
    """What the U-Net predicts, and where the file states it; None if it does not."""
    norm_of_rule: str | None
    """Name of the tensor by which a 2.x file without a statement is told apart."""
    takes_cameras: bool
    """Whether it denoises four views together, from their cameras."""
    image_size: int | None
    """Side of the images that its metadata name, in pixels."""


def inspect_checkpoint(path: Path) -> CheckpointFile:
    """Return what a file is; UserError, naming what it is instead, for every other kind of file."""
    return checkpoint_of(read_header(path))


def checkpoint_of(header: Header) -> CheckpointFile:
    """Return what a file is by its tensors' names and shapes (``inspect_checkpoint``)."""
    path = header.path
    refuse_add_ons(header)
    for pattern, what in _OTHERS:
        if any(pattern.search(name) for name in header.shapes):
            raise UserError(f"{path} is {what}: whole {SUPPORTED}")
    has = {prefix: any(name.startswith(prefix) for name in header.shapes) for prefix in (UNET, VAE, CLIP, OPEN_CLIP)}
    if not has[UNET]:
        raise UserError(f"{path} is no checkpoint of Stable Diffusion: whole {SUPPORTED}")
    _require_four_channels(header)
    if not (has[CLIP] or has[OPEN_CLIP]):
        raise UserError(f"{path} has no text encoder: take the whole checkpoint, not the U-Net alone")
    if not has[VAE]:
        raise UserError(f"{path} has no VAE: take the checkpoint with its VAE in it, or merge one in")
    norms = {int(match[1]): name for name in header.shapes if (match := _LAST_NORM.fullmatch(name))}
    return CheckpointFile(
        path=path,
        family="2.x" if has[OPEN_CLIP] else "1.x",
        shapes=header.shapes,
        # A few stray keys are no average of the whole.
        has_ema=sum(name.startswith("model_ema.") for name in header.shapes) > 100,
        zero_snr=ZERO_SNR_MARKER in header.shapes,
        stated_type=_stated_type(header),
        norm_of_rule=norms[max(norms)] if norms else None,
        takes_cameras=f"{CAMERA_MLP}0.weight" in header.shapes,
        image_size=_stated_size(header.metadata),
    )


def views_at(path: Path) -> int:
    """Return how many views the U-Net of a folder or file denoises together; 1 where that cannot be read."""
    if not path.is_file():
        return views_of(read_if_sound(path / "unet" / "config.json"))
    try:
        return 4 if f"{CAMERA_MLP}0.weight" in read_header(path).shapes else 1
    except UserError:
        # Loading names what is wrong with it.
        return 1


def refuse_add_ons(header: Header) -> None:
    """Raise UserError for a LoRA or a textual inversion, which are given by options of their own."""
    if is_lora(header):
        raise UserError(f"{header.path} is a LoRA: give it as --lora, and the model that it belongs to as --prior")
    if is_embedding(header):
        raise UserError(f"{header.path} is a textual inversion: give it as --embedding, and its model as --prior")


def is_lora(header: Header) -> bool:
    """Return whether a file contains low-rank or other changes of weights."""
    return any(re.search(r"lora[_.]|hada_w|lokr_w|\.oft_|processor\.to_", name) for name in header.shapes)


def is_embedding(header: Header) -> bool:
    """Return whether a file contains nothing but vectors of words."""
    names = header.shapes
    return "emb_params" in names or (len(names) <= 2 and all(len(shape) <= 2 for shape in names.values()))


def _require_four_channels(header: Header) -> None:
    shape = header.shapes.get(f"{UNET}input_blocks.0.0.weight")
    if shape is None or len(shape) != 4:
        raise UserError(f"{header.path} has no U-Net of Stable Diffusion: whole {SUPPORTED}")
    if shape[1] != 4:
        what = _INPUTS.get(shape[1], "another")
        raise UserError(f"{header.path} is {what} checkpoint ({shape[1]} input channels): whole {SUPPORTED}")


def _stated_type(header: Header) -> tuple[PredictionType, str] | None:
    """Return the prediction type that the metadata, a marker, or the .yaml file beside the checkpoint state."""
    stated = header.metadata.get("modelspec.prediction_type", "").lower()
    known: dict[str, PredictionType] = {
        "v": "v_prediction",
        "v_prediction": "v_prediction",
        "v-prediction": "v_prediction",
        "epsilon": "epsilon",
        "eps": "epsilon",
    }
    if stated in known:
        return known[stated], "its metadata"
    if header.metadata.get("ss_v_parameterization") in {"True", "true"}:
        return "v_prediction", "its metadata"
    architecture = header.metadata.get("modelspec.architecture", "")
    if architecture.startswith("stable-diffusion-v"):
        return ("v_prediction" if architecture.endswith("-v") else "epsilon"), "its metadata"
    if f"{CAMERA_MLP}0.weight" in header.shapes:
        return "epsilon", "its embedding of cameras, MVDream's"
    if V_MARKER in header.shapes:
        return "v_prediction", "a marker in it"
    beside = header.path.with_suffix(".yaml")
    if beside.is_file():
        text = beside.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", text, re.MULTILINE)
        if found is None or found[1] in known:
            return ("epsilon" if found is None else known[found[1]]), f"{beside.name} beside it"
    return None


def _stated_size(metadata: Mapping[str, str]) -> int | None:
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", metadata.get("modelspec.resolution", ""))
    if found is None or found[2] not in {None, found[1]}:
        return None
    size = int(found[1])
    return size if size % 64 == 0 and 64 <= size <= 2048 else None
