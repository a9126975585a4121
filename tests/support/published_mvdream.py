"""MVDream's U-Net at toy size, transcribed from its description by the names of its checkpoint: the tests' oracle."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.priors.checkpoint_files import CAMERA_MLP, UNET
from sdi_gs.priors.published import of_four_views

WIDTHS, HEADS, GROUPS, TEXT, VIEWS = (32, 64), (4, 8), 8, 16, 4
TINY = {
    "sample_size": 8,
    "block_out_channels": WIDTHS,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": HEADS,
    "norm_num_groups": GROUPS,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
    "use_linear_projection": True,
}


class Published:
    """MVDream's U-Net by the names of its checkpoint, written from its description, block by block.

    Two levels, one residual block in each, attention in the first level and in the middle.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        return y + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def group_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        rows, channels, *side = x.shape
        parts = x.reshape(rows, GROUPS, -1)
        mean, variance = parts.mean(-1, keepdim=True), parts.var(-1, unbiased=False, keepdim=True)
        normed = ((parts - mean) / (variance + eps).sqrt()).reshape(rows, channels, *side)
        return normed * self.weights[f"{name}.weight"][:, None, None] + self.weights[f"{name}.bias"][:, None, None]

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.2", F.silu(self.linear(f"{name}.0", x)))

    def residual(self, name: str, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv(f"{name}.in_layers.2", F.silu(self.group_norm(f"{name}.in_layers.0", x, 1e-5)))
        h = h + self.linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        h = self.conv(f"{name}.out_layers.3", F.silu(self.group_norm(f"{name}.out_layers.0", h, 1e-5)))
        skipped = self.conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in self.weights else x
        return skipped + h

    def attention(self, name: str, x: Tensor, context: Tensor, heads: int) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.to_{letter}", given).unflatten(-1, (heads, -1)).transpose(1, 2)
            for letter, given in (("q", x), ("k", context), ("v", context))
        )
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        return self.linear(f"{name}.to_out.0", (scores @ v).transpose(1, 2).flatten(2))

    def transformer(self, name: str, x: Tensor, context: Tensor, heads: int) -> Tensor:
        rows, channels, height, width = x.shape
        tokens = self.group_norm(f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2)
        tokens, block = self.linear(f"{name}.proj_in", tokens), f"{name}.transformer_blocks.0"

        def normed(number: int, values: Tensor) -> Tensor:
            weight, bias = (self.weights[f"{block}.norm{number}.{part}"] for part in ("weight", "bias"))
            return F.layer_norm(values, weight.shape, weight, bias)

        # The tokens of all views of a group in one sequence.
        joined = tokens.reshape(rows // VIEWS, VIEWS * height * width, channels)
        own = normed(1, joined)
        tokens = (joined + self.attention(f"{block}.attn1", own, own, heads)).reshape(rows, height * width, channels)
        tokens = tokens + self.attention(f"{block}.attn2", normed(2, tokens), context, heads)
        values, gate = self.linear(f"{block}.ff.net.0.proj", normed(3, tokens)).chunk(2, dim=-1)
        tokens = tokens + self.linear(f"{block}.ff.net.2", values * F.gelu(gate))
        tokens = self.linear(f"{name}.proj_out", tokens)
        return tokens.transpose(1, 2).reshape(rows, channels, height, width) + x

    def __call__(self, x: Tensor, timestep: int, context: Tensor, camera: Tensor) -> Tensor:
        half = WIDTHS[0] // 2
        angles = timestep * torch.exp(-math.log(10000.0) * torch.arange(half, dtype=x.dtype) / half)
        waves = torch.cat([angles.cos(), angles.sin()])[None]
        emb = self.mlp("time_embed", waves) + self.mlp("camera_embed", camera)
        first = self.conv("input_blocks.0.0", x)
        second = self.residual("input_blocks.1.0", first, emb)
        second = self.transformer("input_blocks.1.1", second, context, HEADS[0])
        third = self.conv("input_blocks.2.0.op", second, stride=2)
        fourth = self.residual("input_blocks.3.0", third, emb)
        h = self.residual("middle_block.0", fourth, emb)
        h = self.transformer("middle_block.1", h, context, HEADS[1])
        h = self.residual("middle_block.2", h, emb)
        h = self.residual("output_blocks.0.0", torch.cat([h, fourth], dim=1), emb)
        h = self.residual("output_blocks.1.0", torch.cat([h, third], dim=1), emb)
        h = self.conv("output_blocks.1.1.conv", h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        h = self.residual("output_blocks.2.0", torch.cat([h, second], dim=1), emb)
        h = self.transformer("output_blocks.2.1", h, context, HEADS[0])
        h = self.residual("output_blocks.3.0", torch.cat([h, first], dim=1), emb)
        h = self.transformer("output_blocks.3.1", h, context, HEADS[0])
        return self.conv("out.2", F.silu(self.group_norm("out.0", h, 1e-5)))


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of MVDream's checkpoint, at the tiny widths."""
    narrow, wide, inner = *WIDTHS, 4 * WIDTHS[0]
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def residual(name: str, given: int, out: int) -> None:
        layer(f"{name}.in_layers.0", given)
        layer(f"{name}.in_layers.2", out, given, 3, 3)
        layer(f"{name}.emb_layers.1", out, inner)
        layer(f"{name}.out_layers.0", out)
        layer(f"{name}.out_layers.3", out, out, 3, 3)
        if given != out:
            layer(f"{name}.skip_connection", out, given, 1, 1)

    def transformer(name: str, width: int) -> None:
        block = f"{name}.transformer_blocks.0"
        for part in (f"{name}.norm", *(f"{block}.norm{number}" for number in (1, 2, 3))):
            layer(part, width)
        for part in (f"{name}.proj_in", f"{name}.proj_out"):
            layer(part, width, width)
        for attention, seen in (("attn1", width), ("attn2", TEXT)):
            layer(f"{block}.{attention}.to_q", width, width, bias=False)
            layer(f"{block}.{attention}.to_k", width, seen, bias=False)
            layer(f"{block}.{attention}.to_v", width, seen, bias=False)
            layer(f"{block}.{attention}.to_out.0", width, width)
        layer(f"{block}.ff.net.0.proj", 8 * width, width)
        layer(f"{block}.ff.net.2", width, 4 * width)

    for name, given in (("time_embed", narrow), ("camera_embed", 16)):
        layer(f"{name}.0", inner, given)
        layer(f"{name}.2", inner, inner)
    layer("input_blocks.0.0", narrow, 4, 3, 3)
    layer("input_blocks.2.0.op", narrow, narrow, 3, 3)
    layer("output_blocks.1.1.conv", wide, wide, 3, 3)
    for name, given, out in (
        ("input_blocks.1.0", narrow, narrow),
        ("input_blocks.3.0", narrow, wide),
        ("middle_block.0", wide, wide),
        ("middle_block.2", wide, wide),
        ("output_blocks.0.0", wide + wide, wide),
        ("output_blocks.1.0", wide + narrow, wide),
        ("output_blocks.2.0", wide + narrow, narrow),
        ("output_blocks.3.0", narrow + narrow, narrow),
    ):
        residual(name, given, out)
    for name, width in (("input_blocks.1.1", narrow), ("middle_block.1", wide)):
        transformer(name, width)
    for name in ("output_blocks.2.1", "output_blocks.3.1"):
        transformer(name, narrow)
    layer("out.0", narrow)
    layer("out.2", 4, narrow, 3, 3)
    return shapes


def published_weights() -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=draws) / math.sqrt(math.prod(shape[1:]) or 1)
        for name, shape in published_shapes().items()
    }


def diffusers_unet(weights: dict[str, Tensor]) -> Any:
    """The product's network from weights under the checkpoint's names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(**{**of_four_views({}), **TINY})  # pyright: ignore[reportArgumentType]
    named = {f"{UNET}{name}".replace(CAMERA_MLP, f"{UNET}label_emb.0."): value for name, value in weights.items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(named, config=dict(unet.config)), strict=True)
    return unet.requires_grad_(False).eval()
