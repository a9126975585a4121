"""Training of the prior's U-Net with its text encoder: v-prediction on cached latents, SD 2.1's noise.

Letters: B pictures, C latent channels, h w latent pixels, D = C h w, L tokens, E embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdi_gs.cameras import VIEW_WORDS
from sdi_gs.settings.backgrounds import BACKGROUND_NAMES
from sdi_gs.toybox.captions import describe
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES
from sdi_gs.toybox.judge import Judge
from sdi_gs.toybox.objects import HELD_OUT_PAIRS
from sdi_gs.toybox.splits import split_seed
from toybox_training.arithmetic import device_of, fast_arithmetic
from toybox_training.autoencoder import LATENT_CHANNELS, decode
from toybox_training.captioned import CaptionedBatches, token_ids
from toybox_training.examples import CaptionsConfig, ExamplesConfig, write_caption
from toybox_training.feed import Feed
from toybox_training.latents import LatentSet, posterior_means
from toybox_training.loop import LoopConfig, initial_weights
from toybox_training.sheets import save_sheet
from toybox_training.vocabulary import MODEL_MAX_LENGTH

# The constants of SD 2.1's scheduler file.
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True, kw_only=True)
class UnetTrainingConfig:
    """Architecture and training of U-Net and text encoder."""

    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1200, learning_rate=1.2e-3, muon_learning_rate=0.02, average_decay=0.997, report_every=600
        )
    )
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    num_latents: int = 40_000
    """Pictures rendered and encoded before the first step."""
    batch_size: int = 32
    """Latents per step and process."""
    block_channels: tuple[int, ...] = (64, 96, 128)
    """Channels at 16, 8 and 4 latent pixels; all levels but the first have self- and cross-attention."""
    norm_groups: int = 4
    """Groups of the group norms; few wide groups are several times faster on a CPU."""
    text_width: int = 96
    """Width of the text encoder and of cross-attention."""
    text_layers: int = 2
    """Transformer layers of the text encoder."""
    unconditional_share: float = 0.1
    """Share of samples with the empty text, for classifier-free guidance."""
    companions: int = 48
    """Other latents of the same caption that the target is averaged over; 0 for the plain target."""
    min_snr_gamma: float = 5.0
    """Signal-to-noise ratio above which a sample's weight falls in inverse proportion (arXiv 2303.09556)."""
    report_scale: float = 3.0
    """Guidance scale of the sheets and judged samples during training."""
    report_count: int = 64
    """Samples per report."""

    def __post_init__(self) -> None:
        if self.companions < 0 or self.batch_size < 1:
            raise ValueError(f"companions is {self.companions}, batch_size {self.batch_size}; too few")


def build_networks(config: UnetTrainingConfig, tokenizer: Any) -> nn.ModuleDict:
    """Build a U-Net and a text encoder with random weights."""
    from diffusers.models.attention_processor import AttnProcessor
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    levels = len(config.block_channels) - 1
    settings: dict[str, Any] = {
        "sample_size": config.examples.image_size // 4,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "block_out_channels": config.block_channels,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * levels),
        "up_block_types": (*["CrossAttnUpBlock2D"] * levels, "UpBlock2D"),
        "cross_attention_dim": config.text_width,
        # As in SD 2.1's config, this is the number of heads; each is 64 wide.
        "attention_head_dim": tuple(max(1, channels // 64) for channels in config.block_channels),
        "use_linear_projection": True,
        "norm_num_groups": config.norm_groups,
    }
    with initial_weights(config.loop.seed):
        unet: Any = UNet2DConditionModel(**settings)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.text_width,
                intermediate_size=config.text_width * 8 // 3,
                num_hidden_layers=config.text_layers,
                num_attention_heads=4,
                projection_dim=config.text_width,
                max_position_embeddings=MODEL_MAX_LENGTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                hidden_act="gelu",
            )
        )
    # Its backward pass is several times faster than that of PyTorch's fused attention on a CPU.
    unet.set_attn_processor(AttnProcessor())
    return nn.ModuleDict({"unet": unet.to(memory_format=torch.channels_last), "text_encoder": text_encoder})


class UnetTask:
    """Trains v-prediction with posterior means over latents of the same caption as targets."""

    def __init__(
        self,
        config: UnetTrainingConfig,
        latents: LatentSet,
        held_out: LatentSet,
        *,
        tokenizer: Any,
        vae: Any,
        judge: Judge | None,
    ) -> None:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        device = torch.device(config.loop.device)
        self.config, self._held_out = config, held_out
        self._latents = latents.latents.to(device)
        self._tokenizer, self._vae, self._judge = tokenizer, vae.to(device), judge
        self._levels = DDIMScheduler(**SCHEDULER).alphas_cumprod.to(device)
        self._batches = CaptionedBatches(
            latents.attributes,
            tokenizer,
            config.captions,
            batch_size=config.batch_size,
            unconditional_share=config.unconditional_share,
            companions=config.companions,
        )
        self._feed = Feed(self._batches, processes=config.loop.feeders)
        self.networks = build_networks(config, tokenizer).to(device)

    def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """As ``Task``."""
        config, device = self.config, generator.device
        drawn = self._feed.batch(batch)
        own = self._latents[drawn.rows.to(device)].float().flatten(1)
        # One timestep per equal part of the range.
        parts = torch.arange(len(own), device=device) + torch.rand(len(own), generator=generator, device=device)
        timesteps = (parts / len(own) * len(self._levels)).long()
        level = self._levels[timesteps]
        noise = torch.randn(own.shape, generator=generator, device=device)
        noised = level.sqrt()[:, None] * own + (1.0 - level).sqrt()[:, None] * noise
        clean = own
        if config.companions:
            others = self._latents[drawn.companions.to(device)].float().flatten(2)
            clean = posterior_means(noised, own, others, level)
        target = velocity(noised, clean, level)
        predicted = self._predict(self.networks, noised, timesteps, drawn.ids)
        squares = (predicted - target).square().mean(dim=1)
        weights = (config.min_snr_gamma * (1.0 - level) / level).clamp(max=1.0)
        third = len(squares) // 3
        numbers = {"noisy": squares[-third:].mean().item(), "clear": squares[:third].mean().item()}
        return (weights * squares).mean(), numbers

    def _predict(self, networks: Any, noised: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        with fast_arithmetic(noised.device):
            hidden = networks["text_encoder"](ids.to(noised.device)).last_hidden_state
            latents = _as_latents(noised, self.config)
            predicted = networks["unet"](latents, timesteps, hidden).sample
        return predicted.float().flatten(1)

    def report(self, networks: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        """As ``Task``."""
        assert isinstance(networks, nn.ModuleDict)
        scores: dict[str, Any] = {"held_out_error": self._held_out_error(networks)}
        prompts = sheet_prompts(self.config.report_count)
        images = sample_images(
            networks, self._tokenizer, self._vae, [text for text, _ in prompts], guidance_scale=self.config.report_scale
        )
        save_sheet(folder / "sheets" / f"{step:06d}.png", images, columns=16)
        if self._judge is not None:
            scores["judged"] = judged(self._judge, images, [attributes for _, attributes in prompts])
        return scores

    @torch.no_grad()
    def _held_out_error(self, networks: nn.ModuleDict) -> float:
        """Return the mean squared error of v on held-out latents, uniform over noise levels."""
        generator, rng = torch.Generator().manual_seed(0), split_seed("val", 2)
        device = self._levels.device
        own = self._held_out.latents.to(device).float().flatten(1)
        timesteps = torch.linspace(0, len(self._levels) - 1, len(own)).long().to(device)
        level, noise = self._levels[timesteps], torch.randn(own.shape, generator=generator).to(device)
        noised = level.sqrt()[:, None] * own + (1.0 - level).sqrt()[:, None] * noise
        texts = [write_caption(self.config.captions, row, rng)[0] for row in self._held_out.attributes.tolist()]
        errors = []
        for start in range(0, len(own), 64):
            part = slice(start, start + 64)
            predicted = self._predict(networks, noised[part], timesteps[part], self._batches.tokens(texts[part]))
            errors.append((predicted - velocity(noised[part], own[part], level[part])).square().mean(dim=1))
        return torch.cat(errors).mean().item()


def velocity(
    noised: Tensor,  # [B, D]
    clean: Tensor,  # [B, D]
    level: Tensor,  # [B] alphas_cumprod
) -> Tensor:  # [B, D]
    """Return v = sqrt(a) eps - sqrt(1 - a) x0 for the noise between the clean and the noised latents."""
    root, rest = level.sqrt()[:, None], (1.0 - level).sqrt()[:, None]
    return root * (noised - root * clean) / rest - rest * clean


@torch.no_grad()
def sample_images(
    networks: Any,
    tokenizer: Any,
    vae: Any,
    texts: list[str],
    *,
    guidance_scale: float,
    steps: int = 30,
    seed: int = 0,
    batch_size: int = 48,
) -> Tensor:  # [B, 3, H, W] in [0, 1]
    """Sample by DDIM with classifier-free guidance, in ``fast_arithmetic``; the samples are returned on the CPU."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    side, device = networks["unet"].config.sample_size, device_of(networks["unet"])
    parts = []
    for start in range(0, len(texts), batch_size):
        chosen = texts[start : start + batch_size]
        latents = torch.randn(len(chosen), LATENT_CHANNELS, side, side, generator=generator).to(device)
        with fast_arithmetic(device):
            ids = token_ids(tokenizer, [*[""] * len(chosen), *chosen]).to(device)
            hidden = networks["text_encoder"](ids).last_hidden_state
            for timestep in scheduler.timesteps:
                both = torch.cat([latents, latents]).contiguous(memory_format=torch.channels_last)
                free, bound = networks["unet"](both, timestep, hidden).sample.float().chunk(2)
                guided: Any = free + guidance_scale * (bound - free)
                latents = scheduler.step(guided, int(timestep), latents, return_dict=False)[0]
        parts.append(decode(vae, latents).cpu())
    return torch.cat(parts)


def sheet_prompts(count: int, *, held_out: bool = False, seed: int = 0) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Return prompts as runs write them, with what they name; classes, views and backgrounds in turn."""
    rng = split_seed("val", 100 + seed)
    prompts = []
    sides = VIEW_WORDS[:3]
    for index in range(count):
        if held_out:
            pairs = sorted(HELD_OUT_PAIRS)
            name, colour = pairs[index % len(pairs)]
        else:
            name = CLASSES[index % len(CLASSES)]
            free = [colour for colour in COLOUR_NAMES if (name, colour) not in HELD_OUT_PAIRS]
            colour = free[int(rng.integers(len(free)))]
        view = sides[int(rng.integers(len(sides)))]
        grounds = [ground for ground in BACKGROUND_NAMES if ground != colour]
        ground = grounds[int(rng.integers(len(grounds)))]
        attributes = (
            CLASSES.index(name),
            COLOUR_NAMES.index(colour),
            VIEW_WORDS.index(view),
            BACKGROUND_NAMES.index(ground),
        )
        prompts.append((f"{describe(name, colour)}, {view}, {ground} background", attributes))
    return prompts


def judged(judge: Judge, images: Tensor, attributes: list[tuple[int, int, int, int]]) -> dict[str, float]:
    """Return the shares of pictures [B, 3, H, W] that show what the prompt names; the view only if sides differ."""
    from sdi_gs.toybox.objects import SIDES_ALIKE

    verdict, asked = judge(images.permute(0, 2, 3, 1)), torch.tensor(attributes)
    sided = torch.tensor([CLASSES[row[0]] not in SIDES_ALIKE for row in attributes])
    return {
        "class": (verdict.classes == asked[:, 0]).float().mean().item(),
        "colour": (verdict.colours == asked[:, 1]).float().mean().item(),
        "view": (verdict.views == asked[:, 2])[sided].float().mean().item(),
    }


def _as_latents(flat: Tensor, config: UnetTrainingConfig) -> Tensor:
    side = config.examples.image_size // 4
    return flat.view(len(flat), LATENT_CHANNELS, side, side).contiguous(memory_format=torch.channels_last)
