"""Training of the judge on pictures with the defects of splats.

Letters: B pictures, H W pixels, K blobs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.toybox.classes import CLASSES
from sdi_gs.toybox.judge import JudgeNetwork
from sdi_gs.toybox.objects import SIDES_ALIKE
from sdi_gs.toybox.splits import split_seed
from toybox_training.arithmetic import device_of, fast_arithmetic
from toybox_training.examples import Examples, ExamplesConfig, draw_examples
from toybox_training.loop import LoopConfig, initial_weights
from toybox_training.sheets import save_sheet


@dataclass(frozen=True, kw_only=True)
class JudgeTrainingConfig:
    """Pictures and training of the judge."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=4000, learning_rate=2e-3))
    examples: ExamplesConfig = field(
        default_factory=lambda: ExamplesConfig(
            held_out_pairs=True, own_colour_background=True, elevation_deg=(-12.0, 45.0), simple_weight=1.0
        )
    )
    batch_size: int = 64
    """Pictures per step."""
    plain_share: float = 0.25
    """Share of unchanged renders."""
    max_blur: float = 1.6
    """Largest standard deviation of the blur, in pixels."""
    max_noise: float = 0.08
    """Largest standard deviation of the pixel noise, in [0, 1]."""
    max_haze: float = 0.4
    """Largest transparency of the object."""
    max_fog: float = 0.3
    """Largest alpha of a blob of fog."""
    max_shift: float = 0.08
    """Largest shift, relative to the picture."""
    scale_range: tuple[float, float] = (0.85, 1.12)
    """Sizes relative to the rendered one."""
    colour_gain: float = 0.12
    """Largest change of a channel's gain."""


class JudgeTask:
    """Trains class, colour and view by cross-entropy; the view counts only if more than the light shows it."""

    def __init__(self, config: JudgeTrainingConfig) -> None:
        self.config = config
        with initial_weights(config.loop.seed):
            network: Any = JudgeNetwork()
        self.networks: nn.Module = network.to(config.loop.device, memory_format=torch.channels_last)

    def loss(self, done: float, batch: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """As ``Task``."""
        examples = draw_examples(self.config.examples, self.config.batch_size, split_seed("judge", 1 + batch))
        # Pictures are drawn on the CPU, whose random numbers differ from a card's.
        own = generator if generator.device.type == "cpu" else torch.Generator().manual_seed(generator.initial_seed())
        images = spoilt_pictures(examples, self.config, own).to(generator.device)
        with fast_arithmetic(generator.device):
            heads = self.networks(images.contiguous(memory_format=torch.channels_last))
        classes, colours, views = (head.cpu() for head in heads)
        sided = has_sides(examples)
        by_class = F.cross_entropy(classes.float(), examples.classes, label_smoothing=0.02)
        by_colour = F.cross_entropy(colours.float(), examples.colours, label_smoothing=0.02)
        by_view = F.cross_entropy(views.float()[sided], examples.views[sided], label_smoothing=0.02)
        right = _accuracies((classes, colours, views), examples)
        return by_class + by_colour + by_view, right

    def report(self, networks: nn.Module, folder: Path, step: int) -> dict[str, Any]:
        """As ``Task``."""
        generator = torch.Generator().manual_seed(0)
        examples = draw_examples(self.config.examples, 32, split_seed("judge", 0))
        save_sheet(folder / "sheets" / "training.png", spoilt_pictures(examples, self.config, generator), columns=16)
        return {"held_out": measure_judge(networks, self.config, spoilt=False, count=1024)} | {
            "held_out_spoilt": measure_judge(networks, self.config, spoilt=True, count=1024)
        }


@torch.no_grad()
def measure_judge(network: nn.Module, config: JudgeTrainingConfig, *, spoilt: bool, count: int) -> dict[str, float]:
    """Return accuracies on renders of the "val" split, unchanged or with defects."""
    examples = draw_examples(config.examples, count, split_seed("val", 1))
    plain = replace(config, plain_share=0.0 if spoilt else 1.0)
    images = spoilt_pictures(examples, plain, torch.Generator().manual_seed(1))
    device = device_of(network)
    parts = [[head.cpu() for head in network(part.to(device))] for part in images.split(128)]
    return _accuracies(tuple(torch.cat(head) for head in zip(*parts, strict=True)), examples)


def has_sides(examples: Examples) -> Tensor:  # [B] bool
    """Return which pictures show an object whose sides differ in more than their light."""
    sided = torch.tensor([name not in SIDES_ALIKE for name in CLASSES])
    return sided[examples.classes]


def _accuracies(logits: tuple[Tensor, ...], examples: Examples) -> dict[str, float]:
    classes, colours, views = (head.argmax(dim=1) for head in logits)
    sided = has_sides(examples)
    return {
        "class": (classes == examples.classes).float().mean().item(),
        "colour": (colours == examples.colours).float().mean().item(),
        "view": (views == examples.views)[sided].float().mean().item(),
    }


def spoilt_pictures(examples: Examples, config: JudgeTrainingConfig, generator: torch.Generator) -> Tensor:
    """Spoil pictures [B, 3, H, W] in [0, 1] over their backgrounds: shift, transparency, fog, blur, tint, noise."""
    over_black = replace(examples, background_rgb=torch.zeros_like(examples.background_rgb))
    colour, alpha = over_black.render()
    background = examples.background_rgb[:, :, None, None]
    plain = colour + (1.0 - alpha) * background

    layers = _moved(torch.cat([colour, alpha], dim=1), config, generator)
    layers = layers * _see_through(layers, config, generator)
    layers = _foggy(layers, config, generator)
    layers = _blurred(layers, config, generator)
    pictures = layers[:, :3] + (1.0 - layers[:, 3:]) * background
    gain = 1.0 + config.colour_gain * (2.0 * torch.rand(len(pictures), 3, 1, 1, generator=generator) - 1.0)
    noise = config.max_noise * torch.rand(len(pictures), 1, 1, 1, generator=generator) ** 2
    pictures = pictures * gain + noise * torch.randn(pictures.shape, generator=generator)
    keep = torch.rand(len(pictures), 1, 1, 1, generator=generator) < config.plain_share
    return torch.where(keep, plain, pictures).clamp(0.0, 1.0)


def _moved(layers: Tensor, config: JudgeTrainingConfig, generator: torch.Generator) -> Tensor:
    """Shift and scale premultiplied layers; outside is empty."""
    count = len(layers)
    low, high = config.scale_range
    scale = low + (high - low) * torch.rand(count, generator=generator)
    shift = 2.0 * config.max_shift * (2.0 * torch.rand(count, 2, generator=generator) - 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0 / scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(layers.shape), align_corners=False)
    return F.grid_sample(layers, grid, align_corners=False)


def _see_through(layers: Tensor, config: JudgeTrainingConfig, generator: torch.Generator) -> Tensor:
    """Return smooth random factors [B, 1, H, W] for alpha."""
    coarse = torch.rand(len(layers), 1, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, layers.shape[2:], mode="bicubic", align_corners=False).clamp(0.0, 1.0)
    return 1.0 - config.max_haze * torch.rand(len(layers), 1, 1, 1, generator=generator) ** 2 * smooth


def _foggy(layers: Tensor, config: JudgeTrainingConfig, generator: torch.Generator, blobs: int = 6) -> Tensor:
    """Add faint blobs behind the object, in its mean colour or another, like stray Gaussians."""
    count, _, height, width = layers.shape
    axis_y, axis_x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None, :]
    fog = torch.zeros(count, 4, height, width)
    own = layers[:, :3].sum(dim=(2, 3)) / layers[:, 3:].sum(dim=(2, 3)).clamp_min(1.0)
    amount = config.max_fog * torch.rand(count, 1, 1, 1, generator=generator) ** 2
    for _ in range(blobs):
        centre = 1.6 * torch.rand(count, 2, 1, 1, generator=generator) - 0.8
        size = 0.04 + 0.25 * torch.rand(count, 1, 1, 1, generator=generator)
        distance = (axis_x - centre[:, :1]) ** 2 + (axis_y - centre[:, 1:]) ** 2
        alpha = amount * torch.exp(-0.5 * distance / size**2)
        mix = torch.rand(count, 1, generator=generator)
        tint = mix * own + (1.0 - mix) * torch.rand(count, 3, generator=generator)
        cover = torch.cat([alpha * tint[:, :, None, None], alpha], dim=1)
        fog = cover + (1.0 - alpha) * fog
    return layers + (1.0 - layers[:, 3:]) * fog


def _blurred(layers: Tensor, config: JudgeTrainingConfig, generator: torch.Generator) -> Tensor:
    """Blur with one width per picture; blends two kernels in place of one convolution per picture."""
    reach = math.ceil(2.5 * config.max_blur)
    offsets = torch.arange(-reach, reach + 1.0)
    kernel = torch.exp(-0.5 * (offsets / config.max_blur) ** 2)
    kernel = (kernel / kernel.sum()).expand(4, 1, -1)
    blurred = F.conv2d(layers, kernel[:, :, :, None], padding=(reach, 0), groups=4)
    blurred = F.conv2d(blurred, kernel[:, :, None, :], padding=(0, reach), groups=4)
    share = torch.rand(len(layers), 1, 1, 1, generator=generator)
    return layers + share * (blurred - layers)
