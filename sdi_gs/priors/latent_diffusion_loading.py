"""Load latent diffusion models from a folder in Stable Diffusion's layout, a single file, or the hub.

Tokenizer, text encoder, U-Net, VAE and the constants of the noise come from one source. The scheduler's config
contains the type of the U-Net's prediction and the noise schedule.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.contracts import PredictionType
from sdi_gs.errors import UserError
from sdi_gs.priors.checkpoint_files import CheckpointFile
from sdi_gs.priors.checkpoint_loading import load_checkpoint_parts
from sdi_gs.priors.empty_networks import component_errors, empty_parts, require_usable
from sdi_gs.priors.fetch import folder_of
from sdi_gs.priors.kinds import distillation_note, signs_of_distillation
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior
from sdi_gs.priors.layout import ALTERNATIVES, variant_of
from sdi_gs.priors.learned_words import add_words
from sdi_gs.priors.low_rank import merge_loras, notes_on_loras
from sdi_gs.priors.model_folder import model_at
from sdi_gs.priors.parts import AddOns, Parts, Placement, broken_weight
from sdi_gs.priors.quiet import lean_loading, without_messages, without_progress_bars
from sdi_gs.priors.schedulers import read_scheduler, scheduler_notes


def load_latent_diffusion(
    source: str | Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    config: LatentDiffusionConfig | None = None,
    add_ons: AddOns | None = None,
    device: torch.device | str,
    dtype: torch.dtype,
    local_files_only: bool = False,
) -> LatentDiffusionPrior:
    """Load a folder in Stable Diffusion 2.1's layout, a single file, or what a name on the hub stands for.

    ``dtype`` is that of the U-Net and the text encoder; the VAE gets float32 if that is wider.
    ``name`` is the model's name in messages; its source if not given.
    ``add_ons`` are changes by files of their own. ``local_files_only`` restricts loading to the hub's cache.
    The prior's ``notes`` say which settings are not used as the model states them.

    Raises UserError if a component is missing, damaged or of another kind of model, and
    SourceUnavailableError if the repository cannot be downloaded.
    """
    path = folder_of(source, revision=revision, local_files_only=local_files_only)
    name = name or (path.resolve().name if path == Path(source) else str(source))
    add_ons = add_ons or AddOns()
    placement = Placement(device=device, dtype=dtype)
    model = model_at(path)
    if isinstance(model, CheckpointFile):
        parts = load_checkpoint_parts(model, placement, prediction_type=add_ons.prediction_type)
    else:
        # Whatever the configs make impossible shows before any weight is read.
        empty = empty_parts(model)
        require_usable(prior_of_parts(empty, path, name=name, prediction_type=add_ons.prediction_type), path)
        parts = _with_weights(empty, path, placement)
    rewrite = add_words(parts, add_ons.embeddings)
    merge_loras(parts, add_ons.loras)
    broken = (broken_weight(parts.unet) or broken_weight(parts.text_encoder)) if add_ons.loras else None
    if broken is not None:
        raise UserError(f"with its LoRA files the weights {broken} of {name}: take smaller weights behind --lora FILE:")
    return prior_of_parts(
        replace(parts, notes=(*parts.notes, *notes_on_loras(add_ons.loras))),
        path,
        name=name,
        prediction_type=add_ons.prediction_type,
        config=replace(config or LatentDiffusionConfig(), rewrite_prompt=rewrite),
    )


def notes_on(parts: Parts, name: str) -> list[str]:
    """Return one line for each setting that is read as another one, and for what makes a model unfit."""
    sign = signs_of_distillation(name, parts.scheduler, parts.unet.config)
    return [*parts.notes, *scheduler_notes(parts.scheduler), *([] if sign is None else [distillation_note(sign)])]


def prior_of_parts(
    parts: Parts,
    path: Path,
    *,
    name: str,
    prediction_type: PredictionType | None = None,
    config: LatentDiffusionConfig | None = None,
) -> LatentDiffusionPrior:
    """Return the prior of loaded parts; UserError, naming ``path``, for a scheduler that cannot be used."""
    with component_errors("scheduler", path):
        schedule, prediction_type = read_scheduler(parts.scheduler, prediction_type=prediction_type)
    return LatentDiffusionPrior(
        name=name,
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        schedule=schedule,
        prediction_type=prediction_type,
        config=config,
        notes=notes_on(parts, name),
    )


def _with_weights(empty: Parts, folder: Path, placement: Placement) -> Parts:
    """Return a folder's parts with networks of its weights in place of empty ones."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

    lean, device = lean_loading(), placement.device
    return replace(
        empty,
        text_encoder=_load_model(CLIPTextModel, folder, "text_encoder", device, dtype=placement.dtype),
        unet=_load_model(UNet2DConditionModel, folder, "unet", device, torch_dtype=placement.dtype, **lean),
        vae=_load_model(AutoencoderKL, folder, "vae", device, torch_dtype=placement.wide, **lean),
    )


def _load_model(model_class: Any, folder: Path, component: str, device: torch.device | str, **options: Any) -> Any:
    """Load a component's network; UserError for missing weights, which both libraries would fill at random."""
    names = [file.name for file in (folder / component).iterdir()]
    with component_errors(component, folder), without_progress_bars(), without_messages():
        model, report = model_class.from_pretrained(
            folder / component,
            variant=variant_of(names),
            use_safetensors=True,
            output_loading_info=True,
            local_files_only=True,
            **options,
        )
    gaps = [*report["missing_keys"], *report["mismatched_keys"]]
    if gaps:
        raise UserError(
            f"the {component} in {folder} lacks {len(gaps)} weights ({gaps[0]}, ...): download it again, or "
            f"{ALTERNATIVES}"
        )
    broken = broken_weight(model)
    if broken is not None:
        raise UserError(
            f"the {component} in {folder} cannot be used: the weights {broken}: download it again, or choose another "
            "--compute.precision"
        )
    return model.to(device)
