"""Stable Diffusion 2.1 without its weights: the true architecture, and a whole step on a toy model of its kind."""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.contracts import GuidanceOutput
from sdi_gs.errors import UserError
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.published import ModelName, published_networks
from sdi_gs.settings.guidance import GuidanceConfig


def empty_networks(model: ModelName) -> tuple[Any, Any, Any]:
    """Text encoder, U-Net and VAE of full size, on no device."""
    networks = published_networks(model, device="meta", dtype=torch.float32)
    return networks.text_encoder, networks.unet, networks.vae


def num_parameters(network: Any) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("model", "image_size"), [("sd21-base", 512), ("sd21", 768)])
def test_the_true_components_fit_together(model: ModelName, image_size: int) -> None:
    text_encoder, unet, vae = empty_networks(model)
    assert num_parameters(unet) == 865_910_724
    assert num_parameters(vae) == 83_653_863
    # 23 layers of width w = 1024 with 4 w + w^2 (4 + 8) + 9 w weights each, 49,408 words, 77 places, a last norm.
    layer = 12 * 1024**2 + 13 * 1024
    assert num_parameters(text_encoder) == 23 * layer + (49_408 + 77 + 2) * 1024 == 340_387_840
    tokenizer: Any = None
    prior = LatentDiffusionPrior(
        name="sd21",
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        schedule=scaled_linear_schedule(),
        prediction_type="v_prediction",
    )
    assert prior.image_size == image_size
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    latents = prior.vae.encode(image).latent_dist.mode()
    assert latents.shape == (1, 4, image_size // 8, image_size // 8)
    tokens = torch.empty(1, 77, dtype=torch.int64, device="meta")
    embeddings = prior.text_encoder(tokens).last_hidden_state
    assert embeddings.shape == (1, 77, 1024)
    noise = prior.unet(latents, torch.zeros(1, device="meta"), encoder_hidden_states=embeddings).sample
    assert noise.shape == latents.shape


def attentions(unet: Any) -> list[Any]:
    return [module for name, module in unet.named_modules() if name.endswith((".attn1", ".attn2"))]


@pytest.mark.parametrize(("model", "upcast"), [("sd21-base", False), ("sd21", True)])
def test_upcast_attention_reaches_every_attention_of_the_unet(model: ModelName, upcast: bool) -> None:
    _, unet, _ = empty_networks(model)
    flags = [module.upcast_attention for module in attentions(unet)]
    # 2 in each of 2 + 2 + 2 blocks down, 1 in the middle, 3 + 3 + 3 up.
    assert flags == [upcast] * 32


def set_upcast(folder: Path, upcast: bool) -> None:
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"upcast_attention": upcast}))


@pytest.mark.parametrize("upcast", [False, True])
def test_attention_scores_beyond_half_precision_leave_the_noise_finite(
    model_copy: Callable[..., Path], upcast: bool
) -> None:
    """The scores of 2.1 at 768 pixels overflow float16; the flag's plain path and torch's fused one both survive."""
    folder = model_copy()
    set_upcast(folder, upcast)
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float16)
    exact = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert {module.upcast_attention for module in attentions(prior.unet)} == {upcast}
    scores: list[float] = []
    with torch.no_grad():
        for module in (*attentions(prior.unet), *attentions(exact.unet)):
            module.to_q.weight *= 400.0
            module.to_k.weight *= 400.0
    for module in attentions(exact.unet)[:1]:
        module.to_q.register_forward_hook(lambda _, __, out: scores.append(out.abs().max().item()))
        module.to_k.register_forward_hook(lambda _, __, out: scores.append(out.abs().max().item()))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = prior.predict_noise(latents, 500, prior.embed_prompts(["a blue robot"]))
    exact_noise = exact.predict_noise(latents, 500, exact.embed_prompts(["a blue robot"]))
    assert scores[0] * scores[1] > 65_504.0, "the test provokes nothing"
    assert noise.isfinite().all()
    torch.testing.assert_close(noise, exact_noise, atol=0.2, rtol=0.0)


# A whole step from a saved folder.


def sdi_step(prior: LatentDiffusionPrior, **changes: Any) -> tuple[GuidanceOutput, Tensor, Tensor]:
    """Render-like images to latents to target and back: guidance, latents, gradient of the images."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.0, 1.0, 48)
    images = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"), dim=-1)
    images = torch.cat([images, images[..., :1] * images[..., 1:]], dim=-1).expand(2, -1, -1, -1)
    images = images.clone().requires_grad_()
    embeddings = prior.embed_prompts(["a blue robot, front view", "a blue robot, back view", ""])
    latents = prior.encode_images(images, generator)
    output = distill(
        GuidanceConfig(**changes),
        prior,
        latents.detach(),
        Conditions(prompt_embeddings=embeddings[:2], negative_embeddings=embeddings[2:].expand(2, -1, -1)),
        plan=StepPlan(timestep=500, overshoot=20),
        generator=generator,
    )
    loss = 0.5 * (latents - output.target).square().mean()
    (gradient,) = torch.autograd.grad(loss, images)
    return output, latents.detach(), gradient


def check_step(prior: LatentDiffusionPrior) -> None:
    output, latents, gradient = sdi_step(prior)
    assert output.predictor_calls == 7
    assert latents.shape == output.target.shape == (2, 4, 8, 8)
    assert {output.target.dtype, output.noise.dtype, gradient.dtype} == {torch.float32}
    # z - target = sigma (eps - kappa) whatever the network predicts.
    level = prior.schedule.alpha_cumprod(500)
    pull = ((1.0 - level) / level) ** 0.5 * (output.predicted_noise - output.noise)
    torch.testing.assert_close(latents - output.target, pull, atol=1e-4, rtol=1e-4)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0.0).all()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_one_sdi_step_runs_from_a_saved_folder(
    pristine_models: dict[str, Path], prediction_type: str, dtype: torch.dtype
) -> None:
    prior = load_latent_diffusion(pristine_models[prediction_type], device="cpu", dtype=dtype)
    assert (prior.unet.dtype, prior.vae.dtype) == (dtype, torch.float32)
    assert prior.prediction_type == prediction_type
    check_step(prior)


def test_what_the_config_says_is_predicted_decides_the_step(model_copy: Callable[..., Path]) -> None:
    """The same weights under the other name give another target, so nothing is assumed of them."""
    folder = model_copy()
    one, _, _ = sdi_step(load_latent_diffusion(folder, device="cpu", dtype=torch.float32))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    other, _, _ = sdi_step(load_latent_diffusion(folder, device="cpu", dtype=torch.float32))
    assert (one.target - other.target).abs().max() > 0.1


def test_a_small_gradient_survives_the_encoder_of_a_half_precision_model(pristine_models: dict[str, Path]) -> None:
    """A pull of 1e-4 gives dL/dz = 6e-9 at SD's 16,384 latents, where float16 ends at 6e-8."""
    half = load_latent_diffusion(pristine_models["epsilon"], device="cpu", dtype=torch.float16)
    exact = load_latent_diffusion(pristine_models["epsilon"], device="cpu", dtype=torch.float64)
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pull = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5e-9
    assert (pull.half() == 0.0).all()
    gradients = []
    for prior, dtype in ((half, torch.float32), (exact, torch.float64)):
        prior.config = type(prior.config)(encoding="mode")
        images = pixels.to(dtype).requires_grad_()
        latents = prior.encode_images(images, torch.Generator())
        gradients.append(torch.autograd.grad((latents * pull.to(dtype)).sum(), images)[0].double())
    # The text encoder and the U-Net were rounded to half precision, the encoder was not.
    # Single elements cancel to almost nothing, and keep fewer digits than the rest.
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()
    assert gradients[0].count_nonzero() == gradients[1].count_nonzero()


# What does not fit.


def test_a_vae_of_other_latent_channels_is_refused(model_copy: Callable[..., Path]) -> None:
    folder = model_copy()
    replace_vae(folder, latent_channels=3)
    with pytest.raises(UserError, match="its unet has in_channels 4, its vae needs 3"):
        load_latent_diffusion(folder, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize(("made_for", "fits"), [(16, False), (32, True), (64, True), (192, True), (768, False)])
def test_a_vae_made_for_images_of_quite_another_size_is_refused(
    model_copy: Callable[..., Path], made_for: int, fits: bool
) -> None:
    """8 latent pixels times 8 are images of 64 pixels; a VAE for a quarter or four times of that is another model's."""
    folder = model_copy()
    replace_vae(folder, sample_size=made_for)
    if fits:
        assert load_latent_diffusion(folder, device="cpu", dtype=torch.float32).image_size == 64
        return
    with pytest.raises(UserError, match=f"factor 8 are images of 64 pixels, but the vae is made for {made_for}"):
        load_latent_diffusion(folder, device="cpu", dtype=torch.float32)


def replace_vae(folder: Path, **changes: Any) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    stored: dict[str, Any] = json.loads((folder / "vae" / "config.json").read_text())
    vae: Any = AutoencoderKL(**{key: value for key, value in stored.items() if not key.startswith("_")} | changes)
    vae.save_pretrained(folder / "vae")


# CLIP's own vocabulary, where its file is at hand (pip install --no-deps open_clip_torch; 1.4 MB).


def clip_merges() -> Path | None:
    """The BPE file in open_clip, which is found and not imported: that would need torchvision and timm."""
    found = importlib.util.find_spec("open_clip")
    file = Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if found and found.origin else None
    return file if file is not None and file.is_file() else None


def write_clip_tokenizer(folder: Path, merges_file: Path) -> dict[str, int]:
    """CLIP's vocabulary as its authors build it: bytes, bytes at a word's end, merges, two special words."""
    with gzip.open(merges_file, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49_152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair.split()) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    return vocabulary


@pytest.mark.skipif(clip_merges() is None, reason="needs CLIP's BPE file: pip install --no-deps open_clip_torch")
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_one_sdi_step_runs_with_clips_own_tokenizer(model_copy: Callable[..., Path], prediction_type: str) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    merges_file = clip_merges()
    assert merges_file is not None
    folder = model_copy(prediction_type)
    for file in (folder / "tokenizer").glob("*.json"):
        if file.name == "tokenizer.json":
            file.unlink()
    vocabulary = write_clip_tokenizer(folder / "tokenizer", merges_file)
    assert len(vocabulary) == 49_408
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.vocab_size = len(vocabulary)
    config.bos_token_id, config.eos_token_id = 49_406, 49_407
    shutil.rmtree(folder / "text_encoder")
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    ids: Any = prior.tokenizer("a photo of a cat").input_ids
    # The ids that CLIP's own repository prints for these words.
    assert ids == [49_406, 320, 1125, 539, 320, 2368, 49_407]
    check_step(prior)
    with pytest.warns(UserWarning, match="reads 75 tokens and will not see 'robot robot ?'"):
        prior.embed_prompts(["robot " * 77])
