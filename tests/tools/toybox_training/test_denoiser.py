"""The U-Net's training: its target, its noise, its sampler, and what becomes of it as a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toybox_training.assessment import AssessmentConfig, assess
from toybox_training.autoencoder import VaeTrainingConfig, build_vae, decode
from toybox_training.denoiser import (
    SCHEDULER,
    UnetTask,
    UnetTrainingConfig,
    build_networks,
    judged,
    sample_images,
    sheet_prompts,
    velocity,
)
from toybox_training.folder import load_networks, write_folder
from toybox_training.latents import encode_examples
from toybox_training.loop import batch_generator, initial_weights, train
from toybox_training.vocabulary import write_tokenizer

from sdi_gs.cameras import VIEW_WORDS
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES
from sdi_gs.toybox.judge import Judge, JudgeNetwork
from sdi_gs.toybox.objects import HELD_OUT_PAIRS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def build_task(unet: UnetTrainingConfig, vae_config: VaeTrainingConfig, tokenizer: Any) -> UnetTask:
    vae = build_vae(vae_config)
    latents = encode_examples(vae, unet.examples, unet.num_latents, at_once=30)
    held_out = encode_examples(vae, unet.examples, 10, split="val", at_once=10)
    with initial_weights(0):
        judge = Judge(JudgeNetwork())
    return UnetTask(unet, latents, held_out, tokenizer=tokenizer, vae=vae, judge=judge)


def test_the_velocity_is_that_of_diffusers() -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler: Any = DDIMScheduler(**SCHEDULER)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 8, 16, generator=generator).unbind()
    timesteps = torch.tensor([0, 3, 100, 400, 700, 900, 990, 999])
    level = scheduler.alphas_cumprod[timesteps]
    noised: Any = scheduler.add_noise(clean, noise, timesteps)
    expected: Any = scheduler.get_velocity(clean, noise, timesteps)
    torch.testing.assert_close(velocity(noised, clean, level), expected, atol=1e-4, rtol=1e-4)


def test_the_scheduler_has_the_constants_of_sd21() -> None:
    from sdi_gs.priors.noise_schedules import scaled_linear_schedule
    from sdi_gs.priors.schedulers import read_scheduler

    schedule, prediction_type = read_scheduler(SCHEDULER)
    published = scaled_linear_schedule()
    assert prediction_type == "v_prediction"
    assert (schedule.steps_offset, schedule.timestep_spacing) == (published.steps_offset, published.timestep_spacing)
    torch.testing.assert_close(schedule.alphas_cumprod, published.alphas_cumprod, atol=1e-6, rtol=0.0)


def test_training_lowers_the_loss_and_reports_what_a_judge_says(
    tmp_path: Path, small_unet: UnetTrainingConfig, small_vae: VaeTrainingConfig, tokenizer: Any
) -> None:
    task = build_task(small_unet, small_vae, tokenizer)
    assert train(small_unet.loop, task, tmp_path, resume=False) is not None
    line = json.loads((tmp_path / "progress.jsonl").read_text().splitlines()[-1])
    assert set(line["judged"]) == {"class", "colour", "view"}
    assert 0.0 < line["held_out_error"] < 3.0
    assert (tmp_path / "sheets/000003.png").is_file()


def test_a_step_depends_on_its_number_alone_and_teaches_both_networks(
    small_unet: UnetTrainingConfig, small_vae: VaeTrainingConfig, tokenizer: Any
) -> None:
    first, second = (build_task(small_unet, small_vae, tokenizer) for _ in range(2))
    first.loss(0.0, 5, batch_generator(0, 5))
    ours, theirs = first.loss(0.0, 2, batch_generator(0, 2))[0], second.loss(0.0, 2, batch_generator(0, 2))[0]
    assert ours.item() == theirs.item()
    ours.backward()
    for name in ("unet", "text_encoder"):
        gradients = [p.grad for p in first.networks[name].parameters()]  # pyright: ignore[reportIndexIssue]
        assert any(gradient is not None and gradient.abs().max() > 0.0 for gradient in gradients), name


def test_prompts_of_the_sheets_say_what_they_ask_for() -> None:
    for held_out in (False, True):
        for text, (class_index, colour, view, _) in sheet_prompts(64, held_out=held_out):
            prompt = parse_prompt(text)
            assert (prompt.class_name, prompt.colour, prompt.view) == (
                CLASSES[class_index],
                COLOUR_NAMES[colour],
                VIEW_WORDS[view],
            )
            assert ((prompt.class_name, prompt.colour) in HELD_OUT_PAIRS) == held_out
            assert prompt.background not in (None, prompt.colour)
    assert sheet_prompts(8) == sheet_prompts(16)[:8]
    assert sheet_prompts(8) != sheet_prompts(8, seed=1)


def test_judged_shares_count_views_only_where_sides_differ() -> None:
    network = JudgeNetwork()
    with torch.no_grad():
        network.heads.weight.zero_()
        network.heads.bias.zero_()
        # Everything is a red robot from the side.
        network.heads.bias[CLASSES.index("robot")] = 1.0
        network.heads.bias[16 + COLOUR_NAMES.index("red")] = 1.0
        network.heads.bias[26 + VIEW_WORDS.index("side view")] = 1.0
    robot, ball = CLASSES.index("robot"), CLASSES.index("ball")
    red, blue = COLOUR_NAMES.index("red"), COLOUR_NAMES.index("blue")
    asked = [(robot, red, 1, 0), (robot, red, 0, 0), (ball, blue, 0, 0), (ball, red, 2, 0)]
    assert judged(Judge(network), torch.rand(4, 3, 64, 64), asked) == {"class": 0.5, "colour": 0.75, "view": 0.5}


@pytest.fixture
def folder(tmp_path: Path, small_unet: UnetTrainingConfig, small_vae: VaeTrainingConfig, tokenizer: Any) -> Path:
    networks = build_networks(small_unet, tokenizer)
    write_folder(
        tmp_path / "model", vae=build_vae(small_vae), unet=networks["unet"], text_encoder=networks["text_encoder"]
    )
    return tmp_path / "model"


def test_the_folder_is_a_stable_diffusion_pipeline_and_samples_as_ours_does(folder: Path) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    networks, tokenizer, vae = load_networks(folder)
    texts = ["a red ball, front view, white background", "a blue robot"]
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    # Images that differ by more than chance.
    latents = pipeline(texts, guidance_scale=3.0, num_inference_steps=5, latents=start, output_type="latent").images
    theirs = decode(vae, latents)
    ours = sample_images(networks, tokenizer, vae, texts, guidance_scale=3.0, steps=5, seed=3)
    # Ours computes in bfloat16 where the processor does.
    assert (ours - theirs).abs().mean() < 0.01
    other = sample_images(networks, tokenizer, vae, texts[::-1], guidance_scale=3.0, steps=5, seed=3)
    assert (other - theirs).abs().mean() > (ours - theirs).abs().mean()


def test_the_folder_is_a_prior_and_small_in_half_precision(folder: Path) -> None:
    from safetensors.torch import load_file

    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert (prior.image_size, prior.prediction_type, prior.name) == (64, "v_prediction", "model")
    for name, file in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        kinds = {value.dtype for value in load_file(folder / name / f"{file}.safetensors").values()}
        assert kinds == {torch.float16}, name
    noise = prior.predict_noise(torch.zeros(1, 4, 16, 16), 500, prior.embed_prompts(["a red ball"]))
    assert torch.isfinite(noise).all()


def test_an_assessment_judges_every_scale_on_seen_and_held_out_pairs(folder: Path, tmp_path: Path) -> None:
    with initial_weights(0):
        judge = Judge(JudgeNetwork())
    out = tmp_path / "out"
    out.mkdir()
    config = AssessmentConfig(guidance_scales=(1.0, 2.5), samples=8, ddim_steps=2, vae_images=40)
    scores = assess(folder, out, judge, config)
    assert json.loads((out / "assessment.json").read_text()) == scores
    assert {which: list(cells) for which, cells in scores["samples"].items()} == {
        "seen": ["1", "2.5"],
        "held_out": ["1", "2.5"],
    }
    assert scores["bytes"]["unet"] == pytest.approx(2 * scores["parameters"]["unet"], rel=0.3)
    sheets = {path.name for path in out.glob("*.png")}
    assert sheets == {"vae.png", *(f"samples-{w}-{s}.png" for w in ("seen", "held_out") for s in ("1", "2.5"))}
