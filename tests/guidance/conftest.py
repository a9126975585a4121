"""The tiny U-Net whose answers by the published algorithm are on record (golden/)."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from sdi_gs.guidance.perp_neg import PerpNegBranches
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior
from sdi_gs.priors.published import Networks
from sdi_gs.priors.schedulers import read_scheduler

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One run of the published algorithm in float64."""

    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    prior: LatentDiffusionPrior
    told: list[int]
    """Timesteps of the U-Net's calls in this test."""

    @property
    def conditions(self) -> Conditions:
        """The embeddings, with Perp-Neg's branches if the case has them."""
        branches = None
        if "negatives" in self.tensors:
            weights = self.tensors["negative_weights"]
            branches = PerpNegBranches(embeddings=self.tensors["negatives"][None], weights=weights)
        return Conditions(
            prompt_embeddings=self.tensors["cond"], negative_embeddings=self.tensors["uncond"], perp_neg=branches
        )


@pytest.fixture(autouse=True)
def one_thread_in_every_test(one_thread: None) -> None:
    """Every test here computes on small tensors."""


@pytest.fixture
def golden() -> GoldenCase:
    """Case 0: t = 500, overshoot 50, epsilon, no Perp-Neg."""
    return load_case(0)


@pytest.fixture(params=range(len(json.loads((GOLDEN / "sdi_reference.json").read_text())["cases"])))
def every_golden(request: pytest.FixtureRequest) -> GoldenCase:
    """Each case on record."""
    return load_case(request.param)


@pytest.fixture(params=["epsilon", "v_prediction", "sample"])
def perp_neg_golden(request: pytest.FixtureRequest) -> GoldenCase:
    """The inputs of case 1, which has negatives, with a U-Net that predicts any of the three."""
    return load_case(1, prediction_type=request.param)


@functools.cache
def recorded_networks() -> tuple[Networks, list[int]]:
    """Load the recorded U-Net beside two unused networks, and a list that receives the timesteps of its calls.

    Loaded once, because it takes longer than most of the tests.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    stored: dict[str, Any] = json.loads((GOLDEN / "sdi_reference.json").read_text())
    unet: Any = UNet2DConditionModel(**stored["unet"]).double()
    unet.load_state_dict(load_file(GOLDEN / "tiny_unet_fp64.safetensors"))
    told: list[int] = []
    unet.register_forward_pre_hook(lambda _, arguments: told.append(int(arguments[1][0])))
    small = dict[str, Any](vocab_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text_encoder = CLIPTextModel(CLIPTextConfig(**small, hidden_size=16))
    vae = AutoencoderKL(**dict[str, Any](norm_num_groups=4, block_out_channels=(4,), sample_size=8))
    return Networks(text_encoder=text_encoder, unet=unet, vae=vae), told


def load_case(index: int, *, prediction_type: str | None = None) -> GoldenCase:
    """Load a recorded case; another prediction type interprets its U-Net's output differently."""
    stored: dict[str, Any] = json.loads((GOLDEN / "sdi_reference.json").read_text())
    networks, told = recorded_networks()
    told.clear()
    settings = stored["cases"][index]
    predicts = {"prediction_type": prediction_type or settings["prediction_type"]}
    schedule, prediction_type = read_scheduler(stored["scheduler"] | predicts)
    # Embeddings and latents are given, so that no tokenizer is used.
    untouched: Any = None
    prior = LatentDiffusionPrior(
        name="golden",
        tokenizer=untouched,
        text_encoder=networks.text_encoder,
        unet=networks.unet,
        vae=networks.vae,
        schedule=schedule,
        prediction_type=prediction_type,
        config=LatentDiffusionConfig(published_source_time=True),
    )
    tensors = load_file(GOLDEN / "sdi_reference.safetensors")
    return GoldenCase(
        settings=settings,
        tensors={
            name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(index)
        },
        prior=prior,
        told=told,
    )
