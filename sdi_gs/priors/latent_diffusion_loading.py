"""Load latent diffusion models from a folder in Stable Diffusion's layout or from a hub id.

Tokenizer, text encoder, U-Net, VAE and the constants of the noise come from one folder. The scheduler's config
contains the type of the U-Net's prediction and the noise schedule.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch

from sdi_gs.contracts import NoiseSchedule, PredictionType, TimestepSpacing
from sdi_gs.errors import UserError
from sdi_gs.priors.fetch import folder_of
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior
from sdi_gs.priors.layout import ALTERNATIVES, in_one_line, missing_component
from sdi_gs.priors.quiet import lean_loading, without_progress_bars


def load_latent_diffusion(
    source: str | Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    config: LatentDiffusionConfig | None = None,
    device: torch.device | str,
    dtype: torch.dtype,
    local_files_only: bool = False,
) -> LatentDiffusionPrior:
    """Load all components from a folder in Stable Diffusion 2.1's layout or from a hub id ``owner/name``.

    ``dtype`` is that of the U-Net and the text encoder; the VAE gets float32 if that is wider.
    ``name`` is the model's name in messages; its source if not given.
    ``local_files_only`` restricts loading to the hub's cache.

    Raises UserError if a component is missing, damaged or of another kind of model, and
    SourceUnavailableError if the repository cannot be downloaded.
    """
    folder = folder_of(source, revision=revision, local_files_only=local_files_only)
    missing = missing_component(folder)
    if missing is not None:
        raise UserError(f"the model in {folder} lacks its {missing}: complete the folder, or {ALTERNATIVES}")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    with _component("tokenizer", folder):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    with _component("scheduler", folder):
        stored = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        schedule, prediction_type = read_scheduler(stored)
    lean = lean_loading()
    wide = torch.promote_types(dtype, torch.float32)
    return LatentDiffusionPrior(
        name=name or (folder.resolve().name if folder == Path(source) else str(source)),
        tokenizer=tokenizer,
        text_encoder=_load_model(CLIPTextModel, folder, "text_encoder", device, dtype=dtype),
        unet=_load_model(UNet2DConditionModel, folder, "unet", device, torch_dtype=dtype, **lean),
        vae=_load_model(AutoencoderKL, folder, "vae", device, torch_dtype=wide, **lean),
        schedule=schedule,
        prediction_type=prediction_type,
        config=config,
    )


def read_scheduler(config: Mapping[str, Any]) -> tuple[NoiseSchedule, PredictionType]:
    """Return the constants of the noise and the U-Net's prediction type from any diffusers scheduler's config.

    The levels are diffusers' own, computed in float32 and held in float64: exact ones move kappa by 5e-6,
    too much for parity with the published code. Raises UserError for configs that the guidance does not support.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler: Any = DDIMScheduler.from_config(dict(config))
    prediction_type: PredictionType = scheduler.config.prediction_type
    if prediction_type not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise UserError(f"prediction_type {prediction_type!r} is unknown: it must be one of {known}")
    spacing: TimestepSpacing = scheduler.config.timestep_spacing
    if spacing not in get_args(TimestepSpacing):
        known = ", ".join(get_args(TimestepSpacing))
        raise UserError(f"timestep_spacing {spacing!r} has no inversion grid: set it to one of {known}")
    if scheduler.alphas_cumprod[-1] <= 0.0:
        raise UserError("rescale_betas_zero_snr leaves nothing of the latent at the last timestep: set it to false")
    schedule = NoiseSchedule(
        alphas_cumprod=scheduler.alphas_cumprod.double(),
        initial_alpha_cumprod=float(scheduler.final_alpha_cumprod),
        steps_offset=scheduler.config.steps_offset,
        timestep_spacing=spacing,
    )
    return schedule, prediction_type


def _load_model(model_class: Any, folder: Path, component: str, device: torch.device | str, **options: Any) -> Any:
    """Load a component's network; UserError for missing weights, which both libraries would fill at random."""
    with _component(component, folder), without_progress_bars():
        model, report = model_class.from_pretrained(
            folder / component,
            variant=_variant(folder / component),
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


def _variant(folder: Path) -> str | None:
    """Return diffusers' variant "fp16" if a component exists in half precision only, else None."""
    names = [path.name for path in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


@contextmanager
def _component(component: str, folder: Path) -> Iterator[None]:
    """Name the component that could not be loaded."""
    try:
        yield
    except UserError as error:
        raise UserError(f"the {component} in {folder} cannot be used: {error}") from error
    except Exception as error:  # Broken JSON, truncated weights, wrong shapes: each library has its own types.
        raise UserError(
            f"the {component} in {folder} cannot be loaded ({in_one_line(error)}): download it again, or {ALTERNATIVES}"
        ) from error
