"""Load latent diffusion models from a folder in Stable Diffusion's layout, a single file, or the hub.

Tokenizer, text encoder, U-Net, VAE and the constants of the noise come from one source. The scheduler's config
contains the type of the U-Net's prediction and the noise schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdi_gs.contracts import PredictionType
from sdi_gs.errors import UserError
from sdi_gs.priors.checkpoint_files import inspect_checkpoint
from sdi_gs.priors.checkpoint_loading import load_checkpoint_parts
from sdi_gs.priors.fetch import folder_of
from sdi_gs.priors.kinds import distillation_note, read_json, refuse_other_kind, signs_of_distillation
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior
from sdi_gs.priors.layout import ALTERNATIVES, NETWORKS, in_one_line, missing_component, pickles_instead, variant_of
from sdi_gs.priors.learned_words import add_words
from sdi_gs.priors.low_rank import merge_loras, notes_on_loras
from sdi_gs.priors.parts import AddOns, Parts, Placement
from sdi_gs.priors.quiet import lean_loading, without_progress_bars
from sdi_gs.priors.safetensors_header import read_header
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
    if path.is_file():
        checkpoint = inspect_checkpoint(path)
        parts = load_checkpoint_parts(checkpoint, placement, prediction_type=add_ons.prediction_type)
    else:
        parts = _load_folder(path, placement)
    rewrite = add_words(parts, add_ons.embeddings)
    merge_loras(parts, add_ons.loras)
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


def _load_folder(folder: Path, placement: Placement) -> Parts:
    """Load the components of a folder in Stable Diffusion's layout."""
    require_layout(folder)
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    with component_errors("tokenizer", folder):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    with component_errors("scheduler", folder):
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    lean, device = lean_loading(), placement.device
    return Parts(
        tokenizer=tokenizer,
        scheduler=scheduler,
        text_encoder=_load_model(CLIPTextModel, folder, "text_encoder", device, dtype=placement.dtype),
        unet=_load_model(UNet2DConditionModel, folder, "unet", device, torch_dtype=placement.dtype, **lean),
        vae=_load_model(AutoencoderKL, folder, "vae", device, torch_dtype=placement.wide, **lean),
    )


def require_layout(folder: Path) -> None:
    """Raise UserError for a folder of another kind of model, with a component missing, or with pickles for weights."""
    refuse_other_kind(folder)
    missing = missing_component(folder)
    if missing is not None:
        raise UserError(f"the model in {folder} lacks its {missing}: complete the folder, or {ALTERNATIVES}")
    for network in NETWORKS:
        pickles = pickles_instead(network, [f"{network}/{file.name}" for file in (folder / network).iterdir()])
        if pickles:
            raise UserError(
                f"the {network} in {folder} cannot be loaded: it has no .safetensors, only {Path(pickles[0]).name}, a "
                f"pickle, which can run code when it is opened and is never used; convert it where you trust it, or "
                f"{ALTERNATIVES}"
            )


def _load_model(model_class: Any, folder: Path, component: str, device: torch.device | str, **options: Any) -> Any:
    """Load a component's network; UserError for missing weights, which both libraries would fill at random."""
    names = [file.name for file in (folder / component).iterdir()]
    _require_whole_files(component, folder)
    with component_errors(component, folder), without_progress_bars():
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
    return model.to(device)


def _require_whole_files(component: str, folder: Path) -> None:
    """Raise UserError for weights that are something else, such as a pointer of Git LFS, or cut short."""
    for file in sorted((folder / component).glob("*.safetensors")):
        try:
            read_header(file)
        except UserError as error:
            raise UserError(f"the {component} in {folder} cannot be loaded: {error}") from error


@contextmanager
def component_errors(component: str, folder: Path) -> Iterator[None]:
    """Name the component that could not be loaded."""
    try:
        yield
    except UserError as error:
        raise UserError(f"the {component} in {folder} cannot be used: {error}") from error
    except Exception as error:  # Broken JSON, truncated weights, wrong shapes: each library has its own types.
        raise UserError(
            f"the {component} in {folder} cannot be loaded ({in_one_line(error)}): download it again, or {ALTERNATIVES}"
        ) from error
