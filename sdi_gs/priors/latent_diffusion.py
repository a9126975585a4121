"""Latent diffusion models of diffusers and transformers as priors (``latent_diffusion_loading`` loads them).

Letters: B images, H W pixels, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import warnings
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_never

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import NoiseSchedule, PredictionType
from sdi_gs.contracts.prior_extras import Widened
from sdi_gs.priors.compiled_unet import CompiledUnet
from sdi_gs.priors.doubled_pictures import double_at_once
from sdi_gs.priors.half_vae import BackwardScale, in_type, into, out_of
from sdi_gs.priors.kinds import views_of
from sdi_gs.priors.model_fit import require_one_model, vae_factor
from sdi_gs.priors.multiview import seen_from
from sdi_gs.priors.parts import first_weight
from sdi_gs.priors.prediction_types import noise_from_prediction
from sdi_gs.priors.tuning import (
    faster,
    in_precision,
    laid_out,
    recompute_residuals,
    remember_text,
    same_for_unet,
    set_attention,
    set_channels_last,
    skip_divisions_by_one,
    without_autocast,
)
from sdi_gs.row_groups import recomputed, row_groups
from sdi_gs.settings.compute import ComputeConfig, Precision

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig:
    """Options of using a loaded model."""

    encoding: Literal["sample", "mode"] = "sample"
    """Whether images become a draw from the VAE's posterior (published SDI code) or its mode, free of noise."""
    published_source_time: bool = False
    """Pass negative timesteps to the U-Net unchanged (published SDI code) instead of as 0."""
    check_prompt: Callable[[str], object] | None = None
    """Called with every prompt before it is embedded; raises UserError for one that the network was not made for."""
    rewrite_prompt: Callable[[str], str] | None = None
    """Returns the text that the tokenizer reads in a prompt's place: learned words of several vectors."""


class LatentDiffusionPrior:
    """A frozen latent diffusion model behind ``sdi_gs.contracts.DiffusionPrior``.

    The U-Net and the text encoder run in their own dtype and never under autocast (SD 2.1 gives NaN there); levels
    and conversions are float32 or wider. So is the VAE, unless ``ComputeConfig.vae_precision`` names another type, in
    which gradients are scaled (``half_vae``).
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
        notes: Sequence[str] = (),
    ) -> None:
        """Wrap loaded networks; options of computing are ``ComputeConfig``'s defaults until ``configure``."""
        require_one_model(name, text_encoder.config, unet.config, vae.config)
        self.name = name
        self.schedule = schedule
        self.prediction_type: PredictionType = prediction_type
        self.config = config or LatentDiffusionConfig()
        self.notes = tuple(notes)
        """What a user should know about how the model was read, one line each."""
        self.tokenizer = tokenizer
        self.text_encoder: Any = text_encoder.requires_grad_(False).eval()
        self.unet: Any = unet.requires_grad_(False).eval()
        self.vae: Any = vae.requires_grad_(False).eval()
        self._loaded_vae, self._loaded_dtype = self.vae, self.unet.dtype
        for network in (self.unet, self.vae):
            skip_divisions_by_one(network)
        if self.vae.device.type == "cpu":
            double_at_once(self.vae.decoder)
            set_channels_last(self.vae.decoder, True)
        self.views_per_group = views_of(self.unet.config)
        self.knows_cameras = self.views_per_group > 1
        if self.knows_cameras:
            set_attention(self.unet, "sdpa")
        self.image_size: int = self.unet.config.sample_size * vae_factor(self.vae.config)
        self.compute = ComputeConfig()
        self._answering_unet: Any = self.unet
        """What predicts: the U-Net, compiled or recorded where that was asked for."""
        self._embedded: dict[tuple[str, ...], Tensor] = {}
        """The latest texts and their embeddings, if these are kept."""
        self._keeps_prompts = False

    def keep_prompts(self) -> None:
        """From now on keep the embeddings of the latest texts, for further runs of the same prompt."""
        self._keeps_prompts = True

    def forget_prompts(self) -> None:
        """Drop the embeddings of the latest texts."""
        self._embedded = {}

    def configure(self, compute: ComputeConfig) -> None:
        """Apply options of computing from the next call on; weights loaded in half precision can compute in float32.

        Raises UserError, leaving all options unchanged, for a compiler or an engine that is missing or does not fit.
        """
        # What is compiled, recorded or converted serves as long as nothing about it changes.
        kept = same_for_unet(self.compute, compute)
        with in_precision(self.unet, torch.float32 if compute.precision == "float32" else self._loaded_dtype):
            answering = self._answering_unet if kept else faster(self.unet, compute)
        if compute.attention != self.compute.attention:
            set_attention(self.unet, compute.attention)
        if compute.cache_cross_attention != self.compute.cache_cross_attention:
            remember_text(self.unet, compute.cache_cross_attention)
        relaid = [self.unet, self.vae] if compute.channels_last != self.compute.channels_last else []
        if compute.vae_precision != self.compute.vae_precision:
            wanted = _dtype_of(compute.vae_precision, self._loaded_vae.dtype)
            self.vae = self._loaded_vae if wanted == self._loaded_vae.dtype else in_type(self._loaded_vae, wanted)
            # It was laid out as the loaded one was, whatever the last options said.
            relaid = [*relaid, self.vae]
        for network in relaid:
            set_channels_last(network, compute.channels_last)
        if relaid:
            set_channels_last(self.vae.decoder, self._decodes_by_pixel(compute))
        match compute.vae:
            case "whole":
                self.vae.disable_gradient_checkpointing()
            case "checkpoint":
                self.vae.enable_gradient_checkpointing(recomputed)
            case _:
                assert_never(compute.vae)
        recompute_residuals(self.vae.encoder, compute.vae == "checkpoint")
        self._answering_unet = answering
        self.text_encoder.to("cpu" if compute.free_text_encoder else self.unet.device)
        self.compute = compute

    def widened(self, compute: ComputeConfig) -> Widened | None:
        """Return the network to compute in float32 next: the VAE, whose numbers are larger, then the U-Net."""
        if self.vae.dtype.itemsize == 2:
            return Widened(network="VAE", compute=replace(compute, vae_precision="float32"))
        if self.unet.dtype.itemsize == 2:
            return Widened(network="U-Net", compute=replace(compute, precision="float32"))
        return None

    @property
    def slow_start(self) -> str | None:
        """Why the first call of each shape takes long: the U-Net is compiled."""
        if not isinstance(self._answering_unet, CompiledUnet):
            return None
        return "compiling the U-Net: the first step takes minutes, and so does one with another number of views"

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return the text encoder's last hidden states [B, L, E]; warn of text that is cut off.

        With ``keep_prompts`` the same texts as in the last call are not encoded again. Raises UserError for a prompt
        that the config's ``check_prompt`` refuses.
        """
        # Only whole calls are kept: rows of another batch may differ in their last bits.
        key = tuple(prompts)
        embeddings = self._embedded[key] if key in self._embedded else self._encoded(prompts)
        if self._keeps_prompts:
            self._embedded = {key: embeddings}
        return embeddings

    def _encoded(self, prompts: Sequence[str]) -> Tensor:
        if self.config.check_prompt is not None:
            for text in prompts:
                self.config.check_prompt(text)
        length = self._text_length
        for text in prompts:
            self._warn_of_cut(text)
        tokens: Any = self.tokenizer(
            [self._as_read(text) for text in prompts],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        device = self.unet.device
        self.text_encoder.to(device)
        with without_autocast(device):
            embeddings = self.text_encoder(tokens.input_ids.to(device)).last_hidden_state
        if self.compute.free_text_encoder:
            self.text_encoder.to("cpu")
        return embeddings

    def shortened(self, sentence: str, endings: Sequence[str]) -> str:
        """Return the beginning of a sentence, in whole words, that fits with each ending; warn once of what is cut."""

        def fits(end: int) -> bool:
            return all(len(self._tokens(f"{sentence[:end]}{ending}")) <= self._text_length for ending in endings)

        if fits(len(sentence)):
            return sentence
        if self.config.check_prompt is not None:
            self.config.check_prompt(sentence)
        breaks = [place for place, letter in enumerate(sentence) if letter.isspace()]
        # Of one endless word, as many letters as fit.
        end = _last_that_fits(breaks, fits) or _last_that_fits(range(1, len(sentence)), fits)
        kept = sentence[:end].rstrip()
        warnings.warn(
            f"the text encoder of {self.name} reads {self._text_length - 2} tokens and will not see "
            f"{sentence[len(kept) :].strip()!r}: shorten the prompt",
            stacklevel=2,
        )
        return kept

    @property
    def _text_length(self) -> int:
        """Return the number of tokens that are read, the first and the last of which are the encoder's own."""
        return min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    def _as_read(self, text: str) -> str:
        return text if self.config.rewrite_prompt is None else self.config.rewrite_prompt(text)

    def _tokens(self, text: str) -> Any:
        return self.tokenizer(self._as_read(text), truncation=False, verbose=False).input_ids

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        generator: torch.Generator,
    ) -> Tensor:
        """Return scaled latents [B, C, h, w], differentiably; images of another size are resized bilinearly first."""
        pixels = images.permute(0, 3, 1, 2).to(first_weight(self._loaded_vae).dtype)
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
        """Return the posterior of all images, encoded in groups; draws from it do not depend on the size of groups."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        dtype, scale = first_weight(self.vae).dtype, BackwardScale()
        narrow = dtype != pixels.dtype

        def moments(rows: Tensor) -> Tensor:
            return self.vae.encode(rows).latent_dist.parameters

        shown = laid_out(into(pixels, dtype, scale) if narrow else pixels, self.compute.channels_last)
        groups = row_groups(len(pixels), self.compute.encoded_at_once)
        # A checkpointed encoder keeps little and recomputes its activations itself.
        once_more = len(groups) > 1 and self.compute.vae == "whole"
        encode = partial(recomputed, moments) if once_more else moments
        with without_autocast(pixels.device):
            parts = [encode(shown[group]) for group in groups]
        encoded = parts[0] if len(parts) == 1 else torch.cat(parts)
        return DiagonalGaussianDistribution(out_of(encoded, pixels.dtype, scale) if narrow else encoded)

    @torch.no_grad()
    def decode_latents(
        self,
        latents: Tensor,  # [B, C, h, w]
    ) -> Tensor:
        """Return the VAE decoder's images [B, H, W, 3] in [0, 1]."""
        scaled = (latents / self.vae.config.scaling_factor).to(first_weight(self.vae).dtype)
        with without_autocast(latents.device):
            pixels = self.vae.decode(laid_out(scaled, self._decodes_by_pixel(self.compute))).sample
        return (_at_least_float32(pixels) * 0.5 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    def _decodes_by_pixel(self, compute: ComputeConfig) -> bool:
        """Return whether the decoder's images have channels last, which on a CPU takes a sixth less time."""
        return compute.channels_last or first_weight(self.vae).device.type == "cpu"

    @torch.no_grad()
    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        embeddings: Tensor,  # [B, L, E]
        cameras: CameraBatch | None = None,
    ) -> Tensor:
        """Return the noise [B, C, h, w], converted from the U-Net's type of prediction; it may ignore the cameras."""
        latents, dtype = _at_least_float32(noised_latents), first_weight(self.unet).dtype
        told = timestep if self.config.published_source_time else max(timestep, 0)
        # Integers, because bfloat16 would round 501 to 500; filled on the device, so that the host need not wait.
        timesteps = torch.full((len(latents),), told, dtype=torch.int64, device=latents.device)
        shown = laid_out(latents.to(dtype), self.compute.channels_last)
        with without_autocast(latents.device):
            predicted = self._answering_unet(
                shown,
                timesteps,
                encoder_hidden_states=embeddings.to(dtype),
                **seen_from(self.unet, cameras, len(latents), name=self.name),
            ).sample
        # A compiled call that is launched as a whole writes each result over the one before.
        kept = self.compute.compile_mode == "reduce-overhead"
        predicted = predicted.to(latents.dtype, copy=kept)
        return noise_from_prediction(predicted, latents, self.schedule, timestep, prediction_type=self.prediction_type)

    def _warn_of_cut(self, text: str) -> None:
        ids, length = self._tokens(text), self._text_length
        if len(ids) > length:
            # The last position is reserved for the end token.
            rest = self.tokenizer.decode(ids[length - 1 : -1])
            warnings.warn(
                f"the text encoder of {self.name} reads {length - 2} tokens and will not see {rest!r}: "
                "shorten the prompt",
                stacklevel=3,
            )


def _last_that_fits(ends: Sequence[int], fits: Callable[[int], bool]) -> int:
    """Return the last of rising ends that fits, 0 if none does."""
    count = bisect(ends, False, key=lambda end: not fits(end))
    return ends[count - 1] if count else 0


def _dtype_of(precision: Precision, auto: torch.dtype) -> torch.dtype:
    return auto if precision == "auto" else getattr(torch, precision)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
