"""Latent diffusion models in Stable Diffusion's folder layout, on diffusers and transformers.

Tokenizer, text encoder, U-Net, VAE and the constants of the noise come from one folder or one hub id. What the U-Net
predicts and how its noise is scheduled is read from the scheduler's config.

Letters: B images, H W pixels, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never, get_args

import torch
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule, PredictionType, TimestepSpacing
from sdi_gs.errors import UserError
from sdi_gs.priors.fetch import folder_of
from sdi_gs.priors.layout import WHAT_ELSE, in_one_line, what_lacks
from sdi_gs.priors.quiet import lean_loading, without_progress_bars
from sdi_gs.priors.tuning import (
    compiled,
    laid_out,
    recompute_residuals,
    remember_text,
    set_attention,
    set_channels_last,
)
from sdi_gs.row_groups import recomputed, row_groups
from sdi_gs.settings.compute import ComputeConfig

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig:
    """Choices in the use of a loaded model."""

    encoding: Literal["sample", "mode"] = "sample"
    """Whether images become a draw from the VAE's posterior (published SDI code) or its mode, free of noise."""
    published_source_time: bool = False
    """Tell the U-Net negative timesteps as they are (published SDI code) instead of 0."""
    check_prompt: Callable[[str], object] | None = None
    """Called with every prompt before it is embedded; raises UserError for one that the network was not made for."""


class LatentDiffusionPrior:
    """A frozen latent diffusion model behind ``sdi_gs.contracts.DiffusionPrior``.

    The U-Net and the text encoder run in their own dtype and never under autocast (SD 2.1 gives NaN there); levels
    and conversions are float32 or wider. The VAE is best left in float32: the mean over all latents makes the
    gradients that enter its backward too small for half precision.
    """

    def __init__(
        self,
        *,
        name: str,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
        config: LatentDiffusionConfig | None = None,
    ) -> None:
        """Computes as ``ComputeConfig`` has it by default; see ``use``."""
        _check_fit(name, text_encoder.config, unet.config, vae.config)
        self.name = name
        self.schedule = schedule
        self.prediction_type: PredictionType = prediction_type
        self.config = config or LatentDiffusionConfig()
        self.tokenizer = tokenizer
        self.text_encoder: Any = text_encoder.requires_grad_(False).eval()
        self.unet: Any = unet.requires_grad_(False).eval()
        self.vae: Any = vae.requires_grad_(False).eval()
        self.image_size: int = self.unet.config.sample_size * _vae_factor(self.vae.config)
        self.compute = ComputeConfig()
        self._compiled_unet: Any = None

    def configure(self, compute: ComputeConfig) -> None:
        """Compute in these ways from the next call on; the type of the weights stays that of loading.

        Raises UserError, with everything as it was, where compiling is asked for and the compiler is missing.
        """
        compiled_unet = compiled(self.unet) if compute.compile_unet else None
        if compute.attention != self.compute.attention:
            set_attention(self.unet, compute.attention)
        if compute.cache_cross_attention != self.compute.cache_cross_attention:
            remember_text(self.unet, compute.cache_cross_attention)
        if compute.channels_last != self.compute.channels_last:
            for network in (self.unet, self.vae):
                set_channels_last(network, compute.channels_last)
        match compute.vae:
            case "whole":
                self.vae.disable_gradient_checkpointing()
            case "checkpoint":
                self.vae.enable_gradient_checkpointing(recomputed)
            case _:
                assert_never(compute.vae)
        recompute_residuals(self.vae.encoder, compute.vae == "checkpoint")
        self._compiled_unet = compiled_unet
        self.text_encoder.to("cpu" if compute.free_text_encoder else self.unet.device)
        self.compute = compute

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """The text encoder's last hidden states [B, L, E]; warns of the part of a text that does not fit.

        Raises UserError for a prompt that the config's ``check_prompt`` refuses.
        """
        if self.config.check_prompt is not None:
            for text in prompts:
                self.config.check_prompt(text)
        length = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        self._warn_of_cut(prompts, length)
        tokens: Any = self.tokenizer(
            list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        device = self.unet.device
        self.text_encoder.to(device)
        with _without_autocast(device):
            embeddings = self.text_encoder(tokens.input_ids.to(device)).last_hidden_state
        if self.compute.free_text_encoder:
            self.text_encoder.to("cpu")
        return embeddings

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        generator: torch.Generator,
    ) -> Tensor:
        """Scaled latents [B, C, h, w], differentiable; images of another size are resized bilinearly first."""
        pixels = images.permute(0, 3, 1, 2).to(self.vae.dtype)
        if pixels.shape[2:] != (self.image_size, self.image_size):
            pixels = torch.nn.functional.interpolate(
                pixels, (self.image_size, self.image_size), mode="bilinear", align_corners=False
            )
        posterior = self._posterior(pixels * 2.0 - 1.0)
        match self.config.encoding:
            case "sample":
                latents = posterior.sample(generator)
            case "mode":
                latents = posterior.mode()
            case _:
                assert_never(self.config.encoding)
        return _at_least_float32(latents) * self.vae.config.scaling_factor

    def _posterior(
        self,
        pixels: Tensor,  # [B, 3, H, W] in [-1, 1]
    ) -> DiagonalGaussianDistribution:
        """Of all images, encoded in groups, so that a draw from it is the same however many go at once."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        def moments(rows: Tensor) -> Tensor:
            return self.vae.encode(rows).latent_dist.parameters

        pixels = laid_out(pixels, self.compute.channels_last)
        groups = row_groups(len(pixels), self.compute.views_at_once)
        # A checkpointed encoder keeps little, and computes it once more itself.
        once_more = len(groups) > 1 and self.compute.vae == "whole"
        encode = partial(recomputed, moments) if once_more else moments
        with _without_autocast(pixels.device):
            parts = [encode(pixels[group]) for group in groups]
        return DiagonalGaussianDistribution(parts[0] if len(parts) == 1 else torch.cat(parts))

    @torch.no_grad()
    def decode_latents(
        self,
        latents: Tensor,  # [B, C, h, w]
    ) -> Tensor:
        """Images [B, H, W, 3] in [0, 1] of the VAE's decoder."""
        with _without_autocast(latents.device):
            pixels = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return (_at_least_float32(pixels) * 0.5 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    @torch.no_grad()
    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        embeddings: Tensor,  # [B, L, E]
    ) -> Tensor:
        """The noise [B, C, h, w] that the U-Net sees, whatever it predicts itself."""
        latents = _at_least_float32(noised_latents)
        told = timestep if self.config.published_source_time else max(timestep, 0)
        # Integers, because bfloat16 would round 501 to 500; filled on the device, so that the host need not wait.
        timesteps = torch.full((len(latents),), told, dtype=torch.int64, device=latents.device)
        unet = self.unet if self._compiled_unet is None else self._compiled_unet
        shown = laid_out(latents.to(self.unet.dtype), self.compute.channels_last)
        with _without_autocast(latents.device):
            predicted = unet(shown, timesteps, encoder_hidden_states=embeddings.to(self.unet.dtype)).sample
        predicted = predicted.to(latents.dtype)
        return noise_from_prediction(predicted, latents, self.schedule, timestep, prediction_type=self.prediction_type)

    def _warn_of_cut(self, prompts: Sequence[str], length: int) -> None:
        for text in prompts:
            ids: Any = self.tokenizer(text, truncation=False, verbose=False).input_ids
            if len(ids) > length:
                # The last place is the end token's.
                rest = self.tokenizer.decode(ids[length - 1 : -1])
                warnings.warn(
                    f"the text encoder of {self.name} reads {length - 2} tokens and will not see {rest!r}: "
                    "shorten the prompt",
                    stacklevel=3,
                )


def noise_from_prediction(
    predicted: Tensor,  # [B, C, h, w]
    noised_latents: Tensor,  # [B, C, h, w]
    schedule: NoiseSchedule,
    timestep: int,
    *,
    prediction_type: PredictionType,
) -> Tensor:
    """The noise [B, C, h, w] in a prediction of noise, of v = sqrt(a) eps - sqrt(1 - a) x0, or of x0 itself."""
    level = schedule.alpha_cumprod(timestep)
    match prediction_type:
        case "epsilon":
            return predicted
        case "v_prediction":
            return math.sqrt(level) * predicted + math.sqrt(1.0 - level) * noised_latents
        case "sample":
            # A clean latent of level 1 would divide by zero; the U-Net takes it for one of level a_0.
            level = min(level, schedule.alpha_cumprod(0))
            return (noised_latents - math.sqrt(level) * predicted) / math.sqrt(1.0 - level)
        case _:
            assert_never(prediction_type)


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

    ``dtype`` is that of the U-Net and the text encoder; the VAE gets float32 where that is wider.
    ``name`` is what messages call the model; its source if not given.
    ``local_files_only`` keeps to what the hub's cache holds.

    Raises UserError where a component is missing, broken or of another kind of model, and
    SourceUnavailableError where the hub does not give the repository.
    """
    folder = folder_of(source, revision=revision, local_files_only=local_files_only)
    lacking = what_lacks(folder)
    if lacking is not None:
        raise UserError(f"the model in {folder} lacks its {lacking}: complete the folder, or {WHAT_ELSE}")
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
    """The constants of the noise, and what the U-Net predicts, from the config of any diffusers scheduler.

    The levels are diffusers' own, computed in float32 and held in float64: exact ones move kappa by 5e-6,
    too much for parity with the published code. Raises UserError for what the guidance cannot do.
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
    """A component's network with every weight from its file; both libraries would fill gaps at random."""
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
            f"the {component} in {folder} lacks {len(gaps)} weights ({gaps[0]}, ...): download it again, or {WHAT_ELSE}"
        )
    return model.to(device)


def _variant(folder: Path) -> str | None:
    """The diffusers variant fp16 where a component comes in half precision only."""
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
            f"the {component} in {folder} cannot be loaded ({in_one_line(error)}): download it again, or {WHAT_ELSE}"
        ) from error


def _check_fit(name: str, text_encoder: Any, unet: Any, vae: Any) -> None:
    """UserError where the configs are not those of one text-to-image model (but of inpainting, depth, SDXL, ...)."""
    for what, given, needed, whose in (
        ("in_channels", unet.in_channels, vae.latent_channels, "vae"),
        ("out_channels", unet.out_channels, vae.latent_channels, "vae"),
        ("cross_attention_dim", unet.cross_attention_dim, text_encoder.hidden_size, "text_encoder"),
    ):
        if given != needed:
            raise UserError(
                f"the components of {name} do not fit: its unet has {what} {given}, its {whose} needs {needed}: "
                "use a text-to-image model like Stable Diffusion 2.1"
            )
    if not isinstance(unet.sample_size, int):
        raise UserError(f"the unet of {name} has sample_size {unet.sample_size}: use a model of square images")
    # Models are published with up to three times their VAE's training size (2.1 with the VAE of 256 pixels), and
    # 2.1-base with two thirds of it. Farther apart, one of the two comes from elsewhere.
    factor = _vae_factor(vae)
    image_size = unet.sample_size * factor
    if not vae.sample_size / 4 < image_size < vae.sample_size * 4:
        raise UserError(
            f"the components of {name} do not fit: its unet's {unet.sample_size} latent pixels times its vae's factor "
            f"{factor} are images of {image_size} pixels, but the vae is made for {vae.sample_size}: "
            "take both from one model"
        )


def _vae_factor(config: Any) -> int:
    """Image pixels along one latent pixel: each block of the VAE but the last halves the image."""
    return 2 ** (len(config.block_out_channels) - 1)


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    # The meta device, where steps are counted and not taken, knows no autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
