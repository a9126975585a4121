"""Training of the prior's VAE: an ``AutoencoderKL`` from 64 x 64 pictures to 16 x 16 x 4 latents.

First the whole network is trained; then its latents are normalized to zero mean and unit variance and the encoder is
frozen, so that training of the U-Net can start while training of the decoder continues.

Letters: B images, H W pixels, C = 4 latent channels, h w latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.toybox import metrics
from sdi_gs.toybox.classes import COLOUR_NAMES
from sdi_gs.toybox.splits import split_seed
from toybox_training.arithmetic import device_of, fast_arithmetic
from toybox_training.colour_start import start_from_colours
from toybox_training.examples import ExamplesConfig, draw_examples
from toybox_training.feed import Feed
from toybox_training.loop import LoopConfig, initial_weights
from toybox_training.sheets import save_sheet

FACTOR = 4
"""Image pixels along the side of a latent pixel."""
LATENT_CHANNELS = 4
# Streams of the "prior" split; the U-Net uses others.
VAE_STREAM, DECODER_STREAM, STATISTICS_STREAM = 1_000_000, 2_000_000, 3_000_000


@dataclass(frozen=True, kw_only=True)
class VaeTrainingConfig:
    """Architecture and training of the VAE."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1600, learning_rate=1.5e-3, muon_learning_rate=0.02, average_decay=0.995, weight_decay=0.0
        )
    )
    examples: ExamplesConfig = field(default_factory=lambda: ExamplesConfig(wild_share=0.15))
    batch_size: int = 12
    """Pictures or crops per step and process."""
    block_channels: tuple[int, int, int] = (16, 32, 64)
    """Channels at 64, 32 and 16 pixels."""
    norm_groups: int = 2
    """Groups of the group norms; few wide groups are several times faster on a CPU."""
    kl_weight: float = 3e-4
    """Weight of the mean KL divergence to a unit normal."""
    probe_weight: float = 3.0
    """Weight of the linear read-out of RGB from the latent, halved after half of the steps and again after 3/4."""
    crop_size: int = 40
    """Side of the random crops in the first steps, in pixels; a step costs 0.4 of one on whole pictures."""
    crop_share: float = 0.8
    """Share of steps on crops; group norms need whole pictures in the rest."""
    residual_init: float = 0.1
    """Initial factor on the last convolution of every residual block."""


def build_vae(config: VaeTrainingConfig) -> Any:
    """Build an ``AutoencoderKL`` with random weights."""
    from diffusers.models.attention_processor import AttnProcessor
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    settings: dict[str, Any] = {
        "block_out_channels": config.block_channels,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 1,
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": config.norm_groups,
        "sample_size": config.examples.image_size,
        "scaling_factor": 1.0,
        "mid_block_add_attention": False,
    }
    with initial_weights(config.loop.seed):
        vae: Any = AutoencoderKL(**settings)
    for name, module in vae.named_modules():
        if name.endswith("conv2"):
            module.weight.data.mul_(config.residual_init)
    start_from_colours(vae)
    vae.set_attn_processor(AttnProcessor())
    return vae.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class RenderedBatches:
    """Draws pictures [B, 3, H, W] in [0, 1] and alpha [B, 1, H, W] by the batch's number."""

    examples: ExamplesConfig
    size: int
    stream: int
    """Stream of the "prior" split."""

    def __call__(self, batch: int) -> tuple[Tensor, Tensor]:
        """Draw and render."""
        return draw_examples(self.examples, self.size, split_seed("prior", self.stream + batch)).render()


def random_crops(
    images: Tensor,  # [B, C, H, W]
    size: int,
    generator: torch.Generator,
) -> Tensor:  # [B, C, size, size]
    """Take one random crop of each picture."""
    room = images.shape[-1] - size + 1
    corners = torch.randint(room, (len(images), 2), generator=generator, device=generator.device).tolist()
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)])


def pixel_weights(
    images: Tensor,  # [B, 3, H, W] in [0, 1]
    alpha: Tensor,  # [B, 1, H, W]
) -> Tensor:  # [B, 1, H, W], mean 1
    """Return weights of errors: larger on objects (3) and on fine detail, so that small parts are not smoothed away."""
    inside = F.max_pool2d((alpha > 0.02).float(), 3, stride=1, padding=1)
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    detail = (images - F.avg_pool2d(padded, 5, stride=1)).abs().amax(dim=1, keepdim=True)
    weights = 1.0 + 2.0 * inside + 8.0 * detail
    return weights / weights.mean()


def reconstruction_loss(
    error: Tensor,  # [B, 3, H, W] in the VAE's units (white 1, black -1)
    weights: Tensor,  # [B, 1, H, W]
) -> Tensor:
    """Return the weighted L1 and squared errors, those of low-passed colours, and the error's gradients.

    Chroma counts twice, or it would be learned long after luminance.
    """
    error = 2.0 * error - error.mean(dim=1, keepdim=True)
    low = F.avg_pool2d(error, FACTOR)
    slopes = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    weighted = (weights * (error.abs() + 10.0 * error.square())).mean()
    return weighted + low.abs().mean() + 4.0 * low.square().mean() + 0.25 * slopes


class VaeTask:
    """Trains the whole VAE on fresh renders; a linear probe makes the latents carry all of RGB from the start.

    Without it a group-norm VAE learns luminance first and one colour axis after the other.
    """

    def __init__(self, config: VaeTrainingConfig, *, start: Any = None) -> None:
        self.config = config
        with initial_weights(config.loop.seed):
            probe = nn.Linear(LATENT_CHANNELS, 3)
        vae = build_vae(config)
        if start is not None:
            vae.load_state_dict(start.state_dict())
        self.networks = nn.ModuleDict({"vae": vae, "probe": probe}).to(config.loop.device)
        self._feed = Feed(
            RenderedBatches(config.examples, config.batch_size, VAE_STREAM + 1), processes=config.loop.feeders
        )
        self._fit_probe()

    @torch.no_grad()
    def _fit_probe(self) -> None:
        """Initialize the probe by least squares on the current latents."""
        images, _ = draw_examples(self.config.examples, 64, split_seed("prior", VAE_STREAM)).render()
        means = encode(self.networks["vae"], images).permute(0, 2, 3, 1).flatten(0, 2)
        target = F.avg_pool2d(images * 2.0 - 1.0, FACTOR).permute(0, 2, 3, 1).flatten(0, 2)
        solution = torch.linalg.lstsq(torch.cat([means, torch.ones(len(means), 1)], dim=1), target).solution
        probe: Any = self.networks["probe"]
        probe.weight.copy_(solution[:-1].T)
        probe.bias.copy_(solution[-1])

    def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """As ``Task``."""
        config = self.config
        vae: Any = self.networks["vae"]
        images, alpha = (part.to(generator.device) for part in self._feed.batch(batch))
        if done < config.crop_share:
            images, alpha = random_crops(torch.cat([images, alpha], dim=1), config.crop_size, generator).split(
                [3, 1], 1
            )
        target = images * 2.0 - 1.0
        with fast_arithmetic(generator.device):
            mean, log_var = vae.quant_conv(vae.encoder(_channels_last(target))).float().chunk(2, dim=1)
            log_var = log_var.clamp(-20.0, 10.0)
            drawn = mean + _noise_like(mean, generator) * (0.5 * log_var).exp()
            decoded = vae.decoder(vae.post_quant_conv(drawn)).float()
        seen = self.networks["probe"](mean.permute(0, 2, 3, 1))
        probe = (seen - F.avg_pool2d(target, FACTOR).permute(0, 2, 3, 1)).abs().mean()
        kl = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).mean()
        error = decoded - target
        probe_weight = config.probe_weight * (1.0 if done < 0.5 else 0.5 if done < 0.75 else 0.25)
        loss = reconstruction_loss(error, pixel_weights(images, alpha)) + probe_weight * probe + config.kl_weight * kl
        numbers = {"psnr": _psnr(error), "probe": probe.item(), "kl": kl.item()}
        return loss, numbers

    def report(self, networks: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        """As ``Task``."""
        assert isinstance(networks, nn.ModuleDict)
        return report_vae(networks["vae"], folder, step)


class DecoderTask:
    """Trains the decoder alone on latents of a frozen encoder."""

    def __init__(self, config: VaeTrainingConfig, vae: Any) -> None:
        self.config, self._vae = config, vae.to(config.loop.device, memory_format=torch.channels_last)
        self._vae.requires_grad_(False)
        self.networks = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
        self.networks.requires_grad_(True)
        self._feed = Feed(
            RenderedBatches(config.examples, config.batch_size, DECODER_STREAM), processes=config.loop.feeders
        )

    def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """As ``Task``."""
        images, alpha = (part.to(generator.device) for part in self._feed.batch(batch))
        with fast_arithmetic(generator.device):
            with torch.no_grad():
                moments = self._vae.quant_conv(self._vae.encoder(_channels_last(images * 2.0 - 1.0))).float()
            mean, log_var = moments.chunk(2, dim=1)
            drawn = mean + _noise_like(mean, generator) * (0.5 * log_var.clamp(-20.0, 10.0)).exp()
            decoded = self.networks["decoder"](self.networks["post_quant_conv"](drawn)).float()
        error = decoded - (images * 2.0 - 1.0)
        return reconstruction_loss(error, pixel_weights(images, alpha)), {"psnr": _psnr(error)}

    def assembled(self, networks: nn.Module) -> Any:
        """Return the VAE with these decoder weights; it shares the frozen encoder."""
        import copy

        assert isinstance(networks, nn.ModuleDict)
        vae = copy.copy(self._vae)
        vae._modules = {**self._vae._modules, **networks._modules}
        return vae

    def report(self, networks: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        """As ``Task``."""
        return report_vae(self.assembled(networks), folder, step)


@torch.no_grad()
def encode(
    vae: Any,
    images: Tensor,  # [B, 3, H, W] in [0, 1]
    *,
    batch_size: int = 64,
) -> Tensor:  # [B, C, h, w]
    """Return the posteriors' modes, computed in ``fast_arithmetic`` on the pictures' device."""
    parts, device = [], device_of(vae)
    for batch in images.split(batch_size):
        with fast_arithmetic(device):
            moments = vae.quant_conv(vae.encoder(_channels_last(batch.to(device) * 2.0 - 1.0))).float()
        parts.append(moments.chunk(2, dim=1)[0].to(images.device))
    return torch.cat(parts)


@torch.no_grad()
def decode(
    vae: Any,
    latents: Tensor,  # [B, C, h, w]
    *,
    batch_size: int = 64,
) -> Tensor:  # [B, 3, H, W] in [0, 1]
    """Decode latents to pictures, in ``fast_arithmetic`` on the latents' device."""
    parts, device = [], device_of(vae)
    for batch in latents.split(batch_size):
        with fast_arithmetic(device):
            parts.append(vae.decoder(vae.post_quant_conv(_channels_last(batch.to(device)))).float().to(latents.device))
    return (torch.cat(parts) * 0.5 + 0.5).clamp(0.0, 1.0)


@torch.no_grad()
def normalise_latents(vae: Any, examples: ExamplesConfig, *, count: int = 2048) -> dict[str, list[float]]:
    """Fold zero mean and unit variance of each latent channel into the two convolutions around the latent.

    So ``scaling_factor`` stays 1 and the stock pipeline is unchanged. Returns the former means and deviations.
    """
    images, _ = draw_examples(examples, count, split_seed("prior", STATISTICS_STREAM)).render()
    latents = encode(vae, images)
    mean, std = (part.to(device_of(vae)) for part in (latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))))
    inward, outward = vae.quant_conv, vae.post_quant_conv
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= std[None, :, None, None]
    inward.weight[:LATENT_CHANNELS] /= std[:, None, None, None]
    inward.bias[:LATENT_CHANNELS] = (inward.bias[:LATENT_CHANNELS] - mean) / std
    inward.bias[LATENT_CHANNELS:] -= 2.0 * std.log()
    return {"mean": mean.tolist(), "std": std.tolist()}


def report_vae(vae: Any, folder: Path, step: int) -> dict[str, Any]:
    """Return the PSNR of held-out renders, and write a sheet of pictures above their reconstructions."""
    scores, images, decoded = measure_vae(vae, count=128)
    rows = [part for start in range(0, 32, 16) for part in (images[start : start + 16], decoded[start : start + 16])]
    save_sheet(folder / "sheets" / f"{step:06d}.png", torch.cat(rows), columns=16)
    return {"held_out": scores}


def measure_vae(vae: Any, *, count: int) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Reconstruct ``count`` renders of the "val" split; returns scores, pictures and reconstructions [B, 3, H, W].

    ``psnr`` is the mean over pictures, dB. ``object_psnr`` counts only what alpha covers; ``colour_error`` is the mean
    absolute error of the mean colour on the object, in [0, 1], for each of the ten colours.
    """
    examples = draw_examples(ExamplesConfig(held_out_pairs=True), count, split_seed("val", 0))
    images, alpha = examples.render()
    decoded = decode(vae, encode(vae, images))
    squares = (decoded - images).square().mean(dim=1, keepdim=True)
    inside = (squares * alpha).sum(dim=(1, 2, 3)) / alpha.sum(dim=(1, 2, 3))
    shift = ((decoded - images) * alpha).sum(dim=(2, 3)) / alpha.sum(dim=(2, 3))
    by_colour = {name: shift[examples.colours == index].abs().mean().item() for index, name in enumerate(COLOUR_NAMES)}
    scores = {
        "psnr": metrics.psnr(decoded.permute(0, 2, 3, 1), images.permute(0, 2, 3, 1)).mean().item(),
        "object_psnr": (-10.0 * inside.clamp_min(metrics.MSE_FLOOR).log10()).mean().item(),
        "colour_error": {name: round(value, 4) for name, value in by_colour.items()},
    }
    return scores, images, decoded


def vae_of(state: dict[str, Tensor], config: VaeTrainingConfig) -> Any:
    """Return the VAE of a ``VaeTask``'s weights."""
    vae = build_vae(config)
    vae.load_state_dict({key.removeprefix("vae."): value for key, value in state.items() if key.startswith("vae.")})
    return vae.eval()


def _noise_like(values: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(values.shape, generator=generator, device=generator.device)


def _psnr(error: Tensor) -> float:
    return -10.0 * (0.25 * error.square().mean()).log10().item()


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
