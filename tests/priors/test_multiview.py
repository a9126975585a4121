"""Networks of four views: against a transcription of MVDream's published forward pass, and as folders."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_pipeline import SCHEDULERS, write_model
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.checkpoint_files import CAMERA_MLP, UNET, views_at
from sdi_gs.priors.checkpoint_loading import of_four_views
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.multiview import camera_numbers
from sdi_gs.priors.tuning import set_attention
from sdi_gs.runs.finish import finish
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.saving import save_state
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig

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


@pytest.mark.parametrize("attention", ["sdpa", "plain"])
@pytest.mark.parametrize("timestep", [1, 640])
def test_the_network_is_the_published_one(attention: Any, timestep: int) -> None:
    weights, draws = published_weights(), torch.Generator().manual_seed(1)
    unet = diffusers_unet(weights)
    set_attention(unet, attention)
    # Two branches of one group.
    latents = torch.randn(8, 4, 8, 8, generator=draws)
    text, cameras = torch.randn(8, 5, TEXT, generator=draws), torch.randn(8, 16, generator=draws)
    expected = Published(weights)(latents, timestep, text, cameras)
    found = unet(latents, timestep, encoder_hidden_states=text, class_labels=cameras).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_every_view_answers_to_the_others_of_its_group_and_to_no_other_group() -> None:
    unet, draws = diffusers_unet(published_weights()), torch.Generator().manual_seed(2)
    set_attention(unet, "sdpa")
    text, cameras = torch.randn(8, 5, TEXT, generator=draws), torch.randn(8, 16, generator=draws)
    latents = torch.randn(8, 4, 8, 8, generator=draws)
    changed = latents.clone()
    changed[1] += 1.0
    before, after = (
        unet(given, 300, encoder_hidden_states=text, class_labels=cameras).sample for given in (latents, changed)
    )
    moved = (before - after).flatten(1).abs().amax(dim=1)
    assert all(moved[:4] > 1e-4)
    torch.testing.assert_close(before[4:], after[4:])


def test_camera_numbers_are_those_of_the_published_matrices() -> None:
    azimuth, elevation = torch.tensor([0.0, 30.0, 200.0]), torch.tensor([0.0, 20.0, -10.0])
    cameras = orbit_cameras(azimuth, elevation, 0 * azimuth + 2.7, 0 * azimuth + 40.0, width=8, height=8)
    for row, (turn, height) in enumerate(zip(np.radians(azimuth.numpy()), np.radians(elevation.numpy()), strict=True)):
        place = np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)])
        forward = -place
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack([right, np.cross(right, forward), -forward, place], axis=1)
        np.testing.assert_allclose(camera_numbers(cameras)[row].numpy(), matrix.flatten(), atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in the folder layout whose U-Net takes four views and their cameras."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    path = write_model(tmp_path_factory.mktemp("models") / "four-views", SCHEDULERS["epsilon"])
    config = json.loads((path / "unet" / "config.json").read_text())
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    torch.manual_seed(3)
    unet: Any = UNet2DConditionModel(
        **own | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}
    )
    unet.save_pretrained(path / "unet")
    return path


def settings(folder: Path, **values: Any) -> RunConfig:
    given: dict[str, Any] = {
        "prior": str(folder),
        "steps": 20,
        "views_per_step": 4,
        "cameras.views_per_group": 4,
        "guidance.views": "cameras",
        "gaussians.num_initial": 60,
        "outputs.turntable_frames": 0,
        "outputs.preview_every": 0,
        "prompt_background": False,
    }
    return preset("smoke", given | values, prompt="blue")


def group(*firsts: float) -> CameraBatch:
    azimuth = torch.tensor([first + turn for first in firsts for turn in (0.0, 90.0, 180.0, 270.0)])
    return orbit_cameras(azimuth, 0 * azimuth + 10.0, 0 * azimuth + 3.0, 0 * azimuth + 40.0, width=64, height=64)


def test_a_folder_answers_by_its_cameras_branch_after_branch(folder: Path) -> None:
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert (prior.views_per_group, prior.knows_cameras) == (4, True)
    latents = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    embeddings = prior.embed_prompts(["blue"] * 8 + [""] * 8)
    together = prior.predict_noise(latents, 500, embeddings, group(0.0, 40.0))
    for first, turn in ((0, 0.0), (4, 40.0), (8, 0.0), (12, 40.0)):
        rows = slice(first, first + 4)
        alone = prior.predict_noise(latents[rows], 500, embeddings[rows], group(turn))
        torch.testing.assert_close(together[rows], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together, prior.predict_noise(latents, 500, embeddings, group(40.0, 0.0)), atol=1e-3)
    with pytest.raises(UserError, match="needs to know the cameras"):
        prior.predict_noise(latents, 500, embeddings)
    with pytest.raises(UserError, match="takes 4 views at equal turns together, got 3 in 6 rows"):
        prior.predict_noise(latents[:6], 500, embeddings[:6], group(0.0).rows(slice(3)))


@pytest.mark.parametrize("option", [{"cuda_graphs": True}, {"unet_engine": "openvino"}])
def test_engines_of_single_views_are_refused(folder: Path, option: dict[str, Any]) -> None:
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    with pytest.raises(UserError, match="is for networks of single views"):
        prior.configure(ComputeConfig(**option))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"guidance.views": "words"}, "four-views needs to know the cameras"),
        ({"cameras.views_per_group": 1}, "four-views denoises 4 views .* cameras.views_per_group is 1"),
    ],
)
def test_a_run_without_groups_is_refused_before_loading(folder: Path, values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_prior(settings(folder, **values))


def finished(config: RunConfig, path: Path, *, stop: int | None = None) -> bytes:
    trainer, run = prepare_run(config, folder=path)
    if stop is not None:
        assert not train(trainer, run, should_stop=lambda: trainer.step >= stop)
        save_state(trainer, run)
        trainer, run = prepare_resume(path)
        assert trainer.step == stop
    assert train(trainer, run)
    finish(trainer, run, started=time.perf_counter())
    return run.splats.read_bytes()


def test_a_stopped_run_under_a_folder_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    config = settings(folder)
    assert finished(config, tmp_path / "whole") == finished(config, tmp_path / "stopped", stop=9)


def test_a_single_file_is_known_by_its_embedding_of_cameras(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name, views in ((f"{CAMERA_MLP}0.weight", 4), (f"{UNET}time_embed.0.weight", 1)):
        save_file({name: torch.zeros(2, 2)}, tmp_path / "model.safetensors")
        assert views_at(tmp_path / "model.safetensors") == views
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    assert views_at(tmp_path / "model.safetensors") == views_at(tmp_path / "none") == 1
    assert views_at(folder) == 4


def test_listing_and_checking_name_the_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "list", str(folder)]) == 0
    assert "denoises 4 views of one object together: --cameras.views-per-group 4" in capsys.readouterr().out
    assert main(["priors", "check", str(folder)]) == 0
    assert "4 views of one object together: --guidance.views cameras" in capsys.readouterr().out
