"""The diffusers-backed prior against diffusers' own pipeline and schedulers, on a random model of toy size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from sdi_gs.contracts import NoiseSchedule, PredictionType
from sdi_gs.errors import UserError
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.schedule import add_noise, predicted_clean
from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, LatentDiffusionPrior, noise_from_prediction
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.schedulers import read_scheduler, scheduler_notes

PROMPTS = ["a blue robot, front view", "", "A Blue Chair"]
SD21_BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


@pytest.fixture(params=["epsilon", "v_prediction"])
def folder(request: pytest.FixtureRequest, pristine_models: dict[str, Path]) -> Path:
    return pristine_models[request.param]


@pytest.fixture
def epsilon_folder(pristine_models: dict[str, Path]) -> Path:
    return pristine_models["epsilon"]


def load(folder: Path, dtype: torch.dtype = torch.float32, **config: Any) -> LatentDiffusionPrior:
    return load_latent_diffusion(folder, device="cpu", dtype=dtype, config=LatentDiffusionConfig(**config))


def load_pipeline(folder: Path) -> Any:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_latents(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=seeded(5), dtype=dtype)


def test_embeddings_are_the_pipelines(folder: Path) -> None:
    pipeline, prior = load_pipeline(folder), load(folder)
    conditional, unconditional = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    embeddings = prior.embed_prompts(PROMPTS)
    assert embeddings.shape == (3, 77, 16)
    assert torch.equal(embeddings, conditional)
    assert torch.equal(embeddings[1], unconditional[1])


def test_latents_are_the_pipelines(folder: Path) -> None:
    pipeline, prior = load_pipeline(folder), load(folder)
    images = torch.rand(2, 64, 64, 3, generator=seeded())
    latents = prior.encode_images(images, seeded(3))
    pixels = pipeline.image_processor.normalize(images.permute(0, 3, 1, 2))
    expected = pipeline.vae.encode(pixels).latent_dist.sample(seeded(3)) * 0.18215
    assert prior.image_size == 64
    assert torch.equal(latents, expected)


def pipelines_pictures(pipeline: Any, latents: Tensor) -> Tensor:
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / 0.18215).sample
    return pipeline.image_processor.denormalize(decoded).permute(0, 2, 3, 1)


def test_decoded_images_are_the_pipelines(folder: Path) -> None:
    pipeline, latents = load_pipeline(folder), some_latents()
    rounded = pipelines_pictures(pipeline, latents)
    exact = pipelines_pictures(pipeline.to(dtype=torch.float64), latents.double())
    torch.testing.assert_close(load(folder, torch.float64).decode_latents(latents.double()), exact, atol=1e-12, rtol=0)
    # The order of sums is another than the pipeline's, and no worse.
    pictures = load(folder).decode_latents(latents)
    assert pictures.dtype == torch.float32
    torch.testing.assert_close(pictures, rounded, atol=5e-6, rtol=0)
    ours, theirs = ((each - exact).square().mean().sqrt() for each in (pictures, rounded))
    assert ours < 1.5 * theirs


def test_calls_do_not_look_through_a_networks_modules_for_its_type(
    epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, latents = load(epsilon_folder), some_latents()
    embeddings = prior.embed_prompts(PROMPTS[:2])

    def refuse(_: Any) -> Any:
        raise AssertionError("diffusers walks through all modules for it")

    for name in ("dtype", "device"):
        monkeypatch.setattr(ModelMixin, name, property(refuse))
    with pytest.raises(AssertionError, match="all modules"):
        _ = prior.unet.dtype
    assert prior.predict_noise(latents, 500, embeddings).shape == latents.shape
    assert prior.encode_images(prior.decode_latents(latents), seeded()).shape == latents.shape


def test_guided_denoising_ends_where_the_pipeline_does(folder: Path) -> None:
    """Three steps of DDIM by our algebra and the pipeline's own loop."""
    pipeline, prior = load_pipeline(folder), load(folder)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    start, embeddings = some_latents(1), prior.embed_prompts(["a blue robot", ""])
    predictor = GuidedPredictor(prior, Conditions(prompt_embeddings=embeddings[:1], negative_embeddings=embeddings[1:]))
    ours = start
    for timestep, following in ((667, 334), (334, 1), (1, -332)):
        noise = predictor(ours, timestep, 3.0)
        clean = predicted_clean(ours, noise, prior.schedule.alpha_cumprod(timestep))
        ours = add_noise(clean, noise, prior.schedule.alpha_cumprod(following))
    theirs = pipeline(
        "a blue robot", num_inference_steps=3, guidance_scale=3.0, latents=start.clone(), output_type="latent"
    ).images
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("timestep", [1, 250, 615, 999])
def test_every_prediction_type_implies_the_clean_latent_of_diffusers(
    prediction_type: PredictionType, timestep: int
) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction_type, **SD21_BETAS)
    scheduler.set_timesteps(10)
    schedule, _ = read_scheduler(dict(scheduler.config) | {"_class_name": "DDIMScheduler"})
    predicted, noised = some_latents(dtype=torch.float64), some_latents(dtype=torch.float64).flip(0)
    noise = noise_from_prediction(predicted, noised, schedule, timestep, prediction_type=prediction_type)
    clean = predicted_clean(noised, noise, schedule.alpha_cumprod(timestep))
    step: Any = scheduler.step(predicted, timestep, noised)
    torch.testing.assert_close(clean, step.pred_original_sample, atol=1e-5, rtol=1e-5)


def test_a_clean_latent_is_converted_at_its_own_level() -> None:
    schedule = NoiseSchedule(alphas_cumprod=torch.tensor([0.9, 0.5], dtype=torch.float64), initial_alpha_cumprod=0.95)
    predicted, latents = torch.tensor([[2.0]]), torch.tensor([[3.0]])

    def noise_by(prediction_type: PredictionType, level: float = 0.95) -> float:
        altered = NoiseSchedule(alphas_cumprod=schedule.alphas_cumprod, initial_alpha_cumprod=level)
        return noise_from_prediction(predicted, latents, altered, -99, prediction_type=prediction_type).item()

    assert noise_by("epsilon") == 2.0
    assert noise_by("v_prediction") == pytest.approx(math.sqrt(0.95) * 2.0 + math.sqrt(0.05) * 3.0)
    assert noise_by("v_prediction", level=1.0) == pytest.approx(2.0)
    # What predicts x0 cannot name the noise in a latent of level 1, so level a_0 is taken.
    assert noise_by("sample", level=1.0) == pytest.approx((3.0 - math.sqrt(0.9) * 2.0) / math.sqrt(0.1))


@pytest.mark.parametrize(
    ("published", "timestep", "told"), [(False, -99, 0), (True, -99, -99), (False, 501, 501), (True, 501, 501)]
)
def test_the_unet_is_told_the_time_as_an_exact_integer(
    epsilon_folder: Path, published: bool, timestep: int, told: int
) -> None:
    prior = load(epsilon_folder, torch.bfloat16, published_source_time=published)
    heard = []
    prior.unet.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[1]))
    prior.predict_noise(some_latents(), timestep, prior.embed_prompts(["", ""]))
    assert [(times.tolist(), times.dtype) for times in heard] == [([told, told], torch.int64)]


def test_half_precision_stays_within_the_networks(epsilon_folder: Path) -> None:
    prior, exact = load(epsilon_folder, torch.bfloat16), load(epsilon_folder)
    embeddings = prior.embed_prompts(["a blue robot", ""])
    noise = prior.predict_noise(some_latents(), 500, embeddings)
    latents = prior.encode_images(torch.rand(1, 64, 64, 3), seeded())
    assert prior.unet.dtype == prior.text_encoder.dtype == embeddings.dtype == torch.bfloat16
    assert prior.vae.dtype == noise.dtype == latents.dtype == torch.float32
    reference = exact.predict_noise(some_latents(), 500, exact.embed_prompts(["a blue robot", ""]))
    torch.testing.assert_close(noise, reference, atol=0.1, rtol=0.0)


def test_autocast_reaches_no_network(folder: Path) -> None:
    prior = load(folder)
    images = torch.rand(2, 64, 64, 3, generator=seeded())

    def everything() -> list[Tensor]:
        embeddings = prior.embed_prompts(["a blue robot", ""])
        latents = prior.encode_images(images, seeded())
        return [embeddings, latents, prior.predict_noise(latents, 500, embeddings), prior.decode_latents(latents)]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = everything()
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


def test_gradients_of_latents_reach_the_images(epsilon_folder: Path) -> None:
    prior = load(epsilon_folder, torch.float64)
    images = torch.rand(1, 32, 32, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    towards = torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    pull = torch.randn(1, 4, 8, 8, generator=seeded(2), dtype=torch.float64)

    def value(shift: float) -> Tensor:
        return (prior.encode_images(images + shift * towards, seeded(3)) * pull).sum()

    (gradient,) = torch.autograd.grad(value(0.0), images)
    step = 1e-5
    slope = (value(step) - value(-step)).item() / (2.0 * step)
    assert (gradient * towards).sum().item() == pytest.approx(slope, rel=1e-6)


def test_renders_of_another_size_are_resized_bilinearly(epsilon_folder: Path) -> None:
    prior = load(epsilon_folder, torch.float64, encoding="mode")
    ramp = torch.arange(32, dtype=torch.float64) / 31.0
    # Pixel centres of the large image in pixels of the small one, held at its edges.
    finer = ((torch.arange(64, dtype=torch.float64) + 0.5) / 2.0 - 0.5).clamp(0.0, 31.0) / 31.0
    small, large = (row.expand(1, 3, len(row), len(row)).permute(0, 2, 3, 1) for row in (ramp, finer))
    torch.testing.assert_close(
        prior.encode_images(small, seeded()), prior.encode_images(large, seeded()), atol=1e-10, rtol=0.0
    )


def test_encoding_draws_from_the_generator_or_takes_the_mode(epsilon_folder: Path) -> None:
    image = torch.rand(1, 64, 64, 3, generator=seeded())
    sampling, still = load(epsilon_folder), load(epsilon_folder, encoding="mode")
    posterior = sampling.vae.encode(image.permute(0, 3, 1, 2) * 2.0 - 1.0).latent_dist
    mode = still.encode_images(image, seeded())
    assert torch.equal(mode, posterior.mode() * 0.18215)
    draws = sampling.encode_images(image.expand(32, -1, -1, -1), seeded(7))
    assert torch.equal(draws, sampling.encode_images(image.expand(32, -1, -1, -1), seeded(7)))
    normalised = (draws - mode) / (posterior.std * 0.18215)
    # 8192 draws: the errors of mean and variance are 0.011 and 0.016.
    assert normalised.mean().item() == pytest.approx(0.0, abs=0.05)
    assert normalised.var().item() == pytest.approx(1.0, abs=0.08)


def test_the_model_is_frozen(epsilon_folder: Path) -> None:
    prior = load(epsilon_folder)
    networks = [prior.text_encoder, prior.unet, prior.vae]
    assert not any(weight.requires_grad for network in networks for weight in network.parameters())
    assert not any(network.training for network in networks)
    latents = some_latents().requires_grad_()
    embeddings = prior.embed_prompts(["", ""])
    for output in (embeddings, prior.predict_noise(latents, 10, embeddings), prior.decode_latents(latents)):
        assert not output.requires_grad


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(epsilon_folder: Path) -> None:
    prior = load(epsilon_folder)
    fits = "blue " * 75
    with pytest.warns(UserWarning, match="reads 75 tokens and will not see 'blue blue ?'"):
        cut = prior.embed_prompts([fits + "blue blue"])
    assert torch.equal(cut, prior.embed_prompts([fits]))


def test_stable_diffusions_constants_are_read_from_its_scheduler(folder: Path) -> None:
    prior = load(folder)
    schedule = prior.schedule
    assert prior.prediction_type == folder.name
    assert (schedule.num_timesteps, schedule.steps_offset) == (1000, 1)
    assert schedule.alphas_cumprod.dtype == torch.float64
    # The published model's scheduler config.
    published = {0: 0.99915, 1: 0.998296, 20: 0.981314, 250: 0.673793, 500: 0.276333, 980: 0.005844, 999: 0.00466}
    for timestep, level in published.items():
        assert schedule.alpha_cumprod(timestep) == pytest.approx(level, abs=1e-6)
    assert schedule.alpha_cumprod(-99) == schedule.alpha_cumprod(0)
    assert torch.equal(schedule.alphas_cumprod.float(), DDIMScheduler(**SD21_BETAS).alphas_cumprod)


def test_the_timestep_spacing_is_read_and_is_leading_where_the_file_is_silent() -> None:
    silent, _ = read_scheduler({"_class_name": "PNDMScheduler", **SD21_BETAS})
    trailing, _ = read_scheduler({"_class_name": "DDIMScheduler", **SD21_BETAS, "timestep_spacing": "trailing"})
    assert (silent.timestep_spacing, silent.steps_offset) == ("leading", 1)
    assert trailing.timestep_spacing == "trailing"
    with pytest.raises(UserError, match="timestep_spacing 'karras' has no inversion grid: .*leading, trailing"):
        read_scheduler({"_class_name": "EulerDiscreteScheduler", **SD21_BETAS, "timestep_spacing": "karras"})


def test_linspace_is_read_as_leading_and_said_so() -> None:
    """The default of Euler, DPM-Solver and UniPC in diffusers, which pipelines saved with these schedulers have."""
    config = {"_class_name": "EulerDiscreteScheduler", **SD21_BETAS, "timestep_spacing": "linspace"}
    schedule, _ = read_scheduler(config)
    silent, _ = read_scheduler({"_class_name": "PNDMScheduler", **SD21_BETAS})
    assert schedule.timestep_spacing == "leading"
    assert torch.equal(schedule.alphas_cumprod, silent.alphas_cumprod)
    [note] = scheduler_notes(config)
    assert "linspace" in note
    assert scheduler_notes(SD21_BETAS) == []


@pytest.mark.parametrize("missing", ["beta_start", "beta_end", "beta_schedule"])
def test_a_scheduler_without_betas_is_refused_rather_than_read_as_another_schedule(missing: str) -> None:
    whole = {"_class_name": "EulerDiscreteScheduler", **SD21_BETAS}
    with pytest.raises(UserError, match=f"EulerDiscreteScheduler has no {missing}, so .*0.00085, beta_end 0.012"):
        read_scheduler({key: value for key, value in whole.items() if key != missing})
    with pytest.raises(UserError, match="FlowMatchEulerDiscreteScheduler belongs to a flow model"):
        read_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0})


def test_schedules_that_need_no_ends_are_read() -> None:
    cosine, _ = read_scheduler({"beta_schedule": "squaredcos_cap_v2"})
    # Nichol and Dhariwal (2021), eq. 17: cos^2 of (t + 1) / T, from offset 0.008.
    expected = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2.0) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2.0) ** 2
    assert cosine.alpha_cumprod(499) == pytest.approx(expected, rel=1e-4)
    listed, _ = read_scheduler({"trained_betas": [0.5, 0.5, 0.5]})
    assert listed.alphas_cumprod.tolist() == [0.5, 0.25, 0.125]


def test_zero_signal_at_the_last_timestep_is_taken_as_the_one_before() -> None:
    config = {"_class_name": "DDIMScheduler", **SD21_BETAS, "rescale_betas_zero_snr": True}
    schedule, _ = read_scheduler(config)
    # Lin et al. (2023), algorithm 1, in float64: roots are shifted to end at 0 and scaled to begin where they did.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    roots = (1.0 - betas).cumprod(0).sqrt()
    levels = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])).square()
    assert levels[-1] == 0.0
    torch.testing.assert_close(schedule.alphas_cumprod[:-1], levels[:-1], rtol=1e-3, atol=1e-7)
    assert schedule.alpha_cumprod(999) == schedule.alpha_cumprod(998) > 0.0
    assert schedule.num_timesteps == 1000
    [note] = scheduler_notes(config)
    assert "timestep 999" in note


@pytest.mark.parametrize("class_name", ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_the_clean_level_and_the_offset_follow_the_scheduler_config(class_name: str) -> None:
    kept, _ = read_scheduler({"_class_name": class_name, **SD21_BETAS})
    altered, _ = read_scheduler({"_class_name": class_name, **SD21_BETAS, "set_alpha_to_one": True, "steps_offset": 0})
    assert (kept.initial_alpha_cumprod, kept.steps_offset) == (kept.alpha_cumprod(0), 1)
    assert (altered.initial_alpha_cumprod, altered.steps_offset) == (1.0, 0)
    linear, _ = read_scheduler({**SD21_BETAS, "beta_schedule": "linear"})
    assert linear.alpha_cumprod(1) == pytest.approx((1.0 - 0.00085) * (1.0 - 0.00085 - 0.01115 / 999.0), abs=1e-6)


def test_the_name_is_that_of_the_folder(epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(epsilon_folder).name == "epsilon"
    monkeypatch.chdir(epsilon_folder)
    assert load(Path(".")).name == "epsilon"
