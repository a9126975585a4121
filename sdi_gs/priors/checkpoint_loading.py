"""Load single files in the original layout: keys are converted by diffusers, configs come with this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdi_gs.contracts import PredictionType
from sdi_gs.errors import UserError
from sdi_gs.priors.checkpoint_files import CAMERA_MLP, OPEN_CLIP, UNET, VAE, CheckpointFile, Family
from sdi_gs.priors.clip_tokenizer import END, clip_tokenizer
from sdi_gs.priors.kinds import SUPPORTED
from sdi_gs.priors.layout import in_one_line
from sdi_gs.priors.parts import Parts, Placement, broken_weight
from sdi_gs.priors.published import of_four_views, older_config, published_config
from sdi_gs.priors.quiet import without_messages
from sdi_gs.priors.schedulers import STABLE_DIFFUSION

V_SPREAD = 0.09
"""Spread of the last attention's norm above which ComfyUI takes a 2.x checkpoint to predict v."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Configs of the networks of a family, and its tokenizer's padding."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    pad_token: str


def published_architecture(family: Family, prediction_type: PredictionType) -> Architecture:
    """Return the architecture of Stable Diffusion 1.5, of 2.1-base, or for v that of 2.1."""
    if family == "1.x":
        return Architecture(
            unet=older_config("unet"), vae=older_config("vae"), text_encoder=older_config("text_encoder"), pad_token=END
        )
    return Architecture(
        unet=published_config("unet_768" if prediction_type == "v_prediction" else "unet_512"),
        vae=published_config("vae"),
        text_encoder=published_config("text_encoder"),
        pad_token="!",
    )


def load_checkpoint_parts(
    file: CheckpointFile, placement: Placement, *, prediction_type: PredictionType | None
) -> Parts:
    """Read a file's weights and convert them (``parts_of_tensors``).

    On the meta device no weights are read, but the few by which the prediction type may be known.
    """
    with _reading(file):
        tensors = _tensors(file, placement.device)
    return parts_of_tensors(file, tensors, placement, prediction_type=prediction_type)


def parts_of_tensors(
    file: CheckpointFile,
    tensors: Mapping[str, Tensor],
    placement: Placement,
    *,
    prediction_type: PredictionType | None = None,
) -> Parts:
    """Return the networks of a file's tensors; UserError if these are not of the published architecture."""
    predicted, reason = prediction_of(file, tensors, asked=prediction_type)
    architecture = published_architecture(file.family, predicted)
    notes = [f"{file.path.name}: Stable Diffusion {file.family}, predicts {predicted} (by {reason})"]
    if file.has_ema:
        notes.append(f"{file.path.name}: the running average (EMA) of the U-Net's weights is used")
    unet_config = of_four_views(architecture.unet) if file.takes_cameras else dict(architecture.unet)
    if file.image_size is not None:
        unet_config["sample_size"] = file.image_size // 2 ** (len(architecture.vae["block_out_channels"]) - 1)
    with _reading(file):
        networks = (
            _text_encoder(file, tensors, architecture.text_encoder, placement),
            _unet(file, tensors, unet_config, placement),
            _vae(file, tensors, architecture.vae, placement),
        )
    text_encoder, unet, vae = networks
    return Parts(
        tokenizer=clip_tokenizer(pad_token=architecture.pad_token),
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        scheduler={
            "_class_name": "DDIMScheduler",
            **STABLE_DIFFUSION,
            "prediction_type": predicted,
            "rescale_betas_zero_snr": file.zero_snr,
        },
        notes=tuple(notes),
    )


def _tensors(file: CheckpointFile, device: torch.device | str) -> dict[str, Tensor]:
    from safetensors import safe_open
    from safetensors.torch import load_file

    if torch.device(device).type != "meta":
        return load_file(file.path)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in file.shapes.items()}
    if file.norm_of_rule is not None:
        with safe_open(file.path, framework="pt") as opened:
            tensors[file.norm_of_rule] = opened.get_tensor(file.norm_of_rule)
    return tensors


def prediction_of(
    file: CheckpointFile, tensors: Mapping[str, Tensor], *, asked: PredictionType | None
) -> tuple[PredictionType, str]:
    """Return what the U-Net predicts, and by what that is known.

    In this order: what the user asked for; the file's own statement; epsilon for 1.x; for 2.x ComfyUI's rule, by which
    the bias of the last attention's first norm spreads more than ``V_SPREAD`` if and only if v is predicted.
    """
    if asked is not None:
        return asked, "--prior-type"
    if file.stated_type is not None:
        return file.stated_type
    if file.family == "1.x" or file.norm_of_rule is None:
        return "epsilon", f"the rule for {file.family}; --prior-type v_prediction if its images fall apart"
    spread = tensors[file.norm_of_rule].float().std(unbiased=False).item()
    rule = f"ComfyUI's rule for files without a statement, a spread of {spread:.3f}; --prior-type overrides it"
    return ("v_prediction" if spread > V_SPREAD else "epsilon"), rule


def _unet(file: CheckpointFile, tensors: Mapping[str, Tensor], config: dict[str, Any], placement: Placement) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    weights = {name: value for name, value in tensors.items() if name.startswith((UNET, "model_ema."))}
    if file.takes_cameras:
        _require_cameras_mlp(file, weights)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**config)
    named = {name.replace(CAMERA_MLP, f"{UNET}label_emb.0."): value for name, value in weights.items()}
    with without_messages():
        converted = convert_ldm_unet_checkpoint(named, config=dict(unet.config), extract_ema=file.has_ema)
    return _filled(unet, converted, "unet", file, placement.device, placement.dtype)


def _require_cameras_mlp(file: CheckpointFile, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError unless both layers that embed the cameras are whole."""
    needed = [f"{CAMERA_MLP}{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")]
    gaps = [name for name in needed if name not in weights]
    if gaps:
        raise UserError(f"{file.path} lacks {len(gaps)} weights of the unet ({gaps[0]}, ...): download it again")


def _vae(file: CheckpointFile, tensors: Mapping[str, Tensor], config: Mapping[str, Any], placement: Placement) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    weights = {name: value for name, value in tensors.items() if name.startswith(VAE)}
    with torch.device("meta"):
        vae: Any = AutoencoderKL(**config)
    converted = convert_ldm_vae_checkpoint(weights, config=dict(vae.config))
    return _filled(vae, converted, "vae", file, placement.device, placement.wide)


def _text_encoder(
    file: CheckpointFile, tensors: Mapping[str, Tensor], config: Mapping[str, Any], placement: Placement
) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    weights = {name: value for name, value in tensors.items() if name.startswith("cond_stage_model.")}
    # Not made on the meta device, unless all stays there: its position ids are no weights.
    with torch.device("meta" if torch.device(placement.device).type == "meta" else "cpu"):
        model: Any = CLIPTextModel(CLIPTextConfig(**config))
    if file.family == "2.x":
        converted = convert_open_clip_checkpoint(model, weights, prefix=OPEN_CLIP)
    else:
        converted = convert_ldm_clip_checkpoint(weights)
    # transformers 5.6 took a level out of the names; some trainers leave it out of their files.
    level = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    converted = {level + name.removeprefix("text_model."): value for name, value in converted.items()}
    return _filled(model, converted, "text_encoder", file, placement.device, placement.dtype)


def _filled(
    model: Any,
    weights: Mapping[str, Tensor],
    component: str,
    file: CheckpointFile,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Any:
    """Put a file's weights into a network; UserError unless it has all of them, in the right shapes."""
    needed = model.state_dict()
    gaps = [name for name in needed if weights.get(name) is None]
    if gaps:
        raise UserError(
            f"{file.path} lacks {len(gaps)} weights of the {component} of Stable Diffusion {file.family} "
            f"({gaps[0]}, ...): download it again, or use another one; whole {SUPPORTED}"
        )
    for name, expected in needed.items():
        if weights[name].shape != expected.shape:
            raise UserError(
                f"{file.path} is no Stable Diffusion {file.family}: {name} of its {component} is "
                f"{tuple(weights[name].shape)} and not {tuple(expected.shape)}: whole {SUPPORTED}"
            )
    placed = {name: weights[name].to(device, dtype) for name in needed}
    model.load_state_dict(placed, strict=True, assign=True)
    broken = broken_weight(model)
    if broken is not None:
        raise UserError(f"{file.path} cannot be used: the weights {broken} of its {component}; download it again")
    return model.to(device).eval()


@contextmanager
def _reading(file: CheckpointFile) -> Iterator[None]:
    """Name the file that could not be read."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # The converters raise whatever a missing or odd key leads to.
        raise UserError(f"{file.path} cannot be read ({in_one_line(error)}): download it again") from error
