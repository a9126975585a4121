"""The sources of kappa beside inversion: what each is a disguise of."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from latents_only import LatentsOnlyPrior
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import GuidanceOutput
from sdi_gs.guidance.noise_sources.catalog import load_noise_source
from sdi_gs.guidance.noise_sources.fixed_point import FixedPoint
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.schedule import sigma
from sdi_gs.guidance.score_distillation import distill, predictor_calls
from sdi_gs.guidance.step_plan import StepPlan, plan_step
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.noise_sources import NoiseName

if TYPE_CHECKING:
    from conftest import GoldenCase

SCHEDULE = scaled_linear_schedule()


def guide(
    case: GoldenCase, latents: Tensor, config: GuidanceConfig, timestep: int, *, seed: int = 0, **options: Any
) -> GuidanceOutput:
    count = len(latents)
    return distill(
        config,
        case.prior,
        latents,
        Conditions(
            prompt_embeddings=case.tensors["cond"].expand(count, -1, -1),
            negative_embeddings=case.tensors["uncond"].expand(count, -1, -1),
        ),
        plan=StepPlan(timestep=timestep, overshoot=17),
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def test_with_the_cached_prediction_a_latent_that_jumps_to_its_target_runs_ddim(golden: GoldenCase) -> None:
    """49 steps of diffusers' own loop; its random start is the first kappa."""
    scheduler: Any = DDIMScheduler.from_config(golden_scheduler())
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(50)
    config = GuidanceConfig(guidance_scale=3.0, noise="cached")
    latents, carried = golden.tensors["z"], torch.randn_like(golden.tensors["z"])
    theirs = scheduler.add_noise(latents, carried, scheduler.timesteps[0])
    cond, uncond = golden.tensors["cond"], golden.tensors["uncond"]
    for timestep in scheduler.timesteps.tolist():
        output = guide(golden, latents, config, timestep, carried_noise=carried)
        latents, carried = output.target, load_noise_source(config.noise).carry(output)
        step = torch.tensor([timestep])
        without = golden.prior.unet(theirs, step, encoder_hidden_states=uncond).sample
        prompted = golden.prior.unet(theirs, step, encoder_hidden_states=cond).sample
        moved = scheduler.step(without + 3.0 * (prompted - without), timestep, theirs)
        torch.testing.assert_close(latents, moved.pred_original_sample, atol=1e-10, rtol=0.0)
        theirs = moved.prev_sample


def golden_scheduler() -> dict[str, Any]:
    return {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }


def test_without_a_prediction_yet_the_cached_source_draws(golden: GoldenCase) -> None:
    latents = golden.tensors["z"]
    first = guide(golden, latents, GuidanceConfig(noise="cached"), 400, seed=3)
    drawn = guide(golden, latents, GuidanceConfig(noise="random"), 400, seed=3)
    assert torch.equal(first.noise, drawn.noise)


def test_fixed_noise_is_drawn_once_and_is_the_same_for_every_view(golden: GoldenCase) -> None:
    config, latents = GuidanceConfig(noise="fixed-random"), golden.tensors["z"].expand(3, -1, -1, -1)
    first = guide(golden, latents, config, 400, seed=1)
    carried = load_noise_source(config.noise).carry(first)
    assert carried is not None
    assert carried.shape == (1, *latents.shape[1:])
    assert torch.equal(first.noise, carried.expand_as(latents))
    second = guide(golden, latents, config, 300, seed=2, carried_noise=carried)
    assert torch.equal(second.noise, first.noise)
    assert second.predictor_calls == 1


@pytest.mark.parametrize("source", ["inversion", "random", "unconditional", "interval", "fixed-point"])
def test_the_other_sources_carry_nothing(golden: GoldenCase, source: NoiseName) -> None:
    config = GuidanceConfig(noise=source, fixed_point_iterations=1)
    assert load_noise_source(config.noise).carry(guide(golden, golden.tensors["z"], config, 101)) is None


def test_unconditional_noise_is_inversion_without_the_prompt(golden: GoldenCase) -> None:
    latents = golden.tensors["z"]
    unconditional = guide(golden, latents, GuidanceConfig(noise="unconditional"), 400)
    inverted = guide(golden, latents, GuidanceConfig(inversion_guidance_scale=0.0), 400)
    assert torch.equal(unconditional.noise, inverted.noise)
    assert torch.equal(unconditional.target, inverted.target)
    assert not torch.equal(unconditional.noise, guide(golden, latents, GuidanceConfig(), 400).noise)


@pytest.mark.parametrize(("timestep", "visited"), [(980, [1, 201, 401, 601, 801, 930]), (400, [1, 201, 350])])
def test_interval_noise_is_the_score_that_diffusers_inversion_ends_at(
    golden: GoldenCase, timestep: int, visited: list[int]
) -> None:
    """ISM's gradient sigma(t) (eps_t - eps_s), with s by diffusers' own inversion without the prompt."""
    scheduler: Any = DDIMInverseScheduler.from_config(golden_scheduler())
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.initial_alpha_cumprod = scheduler.alphas_cumprod[0]
    uncond = golden.tensors["uncond"]

    def without_prompt(noised: Tensor, at: int) -> Tensor:
        return golden.prior.unet(noised, torch.tensor([at]), encoder_hidden_states=uncond).sample

    latents = golden.tensors["z"]
    noised = latents
    sources = [-199, *visited[:-1]]
    scheduler.num_inference_steps = 100
    for source, destination in zip(sources, visited, strict=True):
        noise = without_prompt(noised, source)
        # The scheduler takes its source to be one stride, this number over the steps, below its destination.
        scheduler.register_to_config(num_train_timesteps=100 * (destination - source))
        noised = scheduler.step(noise, destination, noised).prev_sample
    subtracted = without_prompt(noised, visited[-1])
    golden.told.clear()
    config = GuidanceConfig(noise="interval", guidance_scale=3.0, inversion_steps=5)
    output = guide(golden, latents, config, timestep)
    assert golden.told == [*sources, visited[-1], timestep]
    assert output.predictor_calls == len(visited) + 2 == predictor_calls(config, StepPlan(timestep=timestep), SCHEDULE)
    torch.testing.assert_close(output.noise, subtracted, atol=1e-10, rtol=0.0)
    gradient = sigma(golden.prior.schedule, timestep) * (output.predicted_noise - subtracted)
    torch.testing.assert_close(latents - output.target, gradient, atol=1e-10, rtol=0.0)


def test_an_interval_that_would_pass_the_first_timestep_ends_there(golden: GoldenCase) -> None:
    config = GuidanceConfig(noise="interval", inversion_steps=5)
    output = guide(golden, golden.tensors["z"], config, 20)
    assert golden.told == [-199, 1, 20]
    assert output.predictor_calls == predictor_calls(config, StepPlan(timestep=20), SCHEDULE)


def test_fixed_point_iterations_ask_at_the_timestep_under_the_guidance_scale(golden: GoldenCase) -> None:
    config = GuidanceConfig(noise="fixed-point", fixed_point_iterations=4)
    output = guide(golden, golden.tensors["z"], config, 400)
    assert golden.told == [400] * 5
    assert output.predictor_calls == 5
    # The next iteration is the prediction at what this one noised.
    further = guide(golden, golden.tensors["z"], replace(config, fixed_point_iterations=5), 400)
    torch.testing.assert_close(further.noise, output.predicted_noise, atol=1e-12, rtol=0.0)


@pytest.mark.parametrize(("timestep", "contraction"), [(250, 0.431), (980, 0.996)])
def test_fixed_point_iteration_contracts_as_a_gaussian_says(timestep: int, contraction: float) -> None:
    """For data N(mu, s^2): towards sigma (z - mu) / s^2, by sigma^2 / (s^2 + sigma^2) each time."""
    mean, std, spread = 1.3, 0.8, sigma(SCHEDULE, timestep)

    def predict(noised: Tensor, at: int, scale: float) -> Tensor:
        scaled = noised / math.sqrt(SCHEDULE.alpha_cumprod(at))
        return sigma(SCHEDULE, at) * (scaled - mean) / (std**2 + sigma(SCHEDULE, at) ** 2)

    points = torch.tensor([-0.5, 0.2, 2.0, 3.1], dtype=torch.float64)
    start = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = spread * (points - mean) / std**2
    factor = spread**2 / (std**2 + spread**2)
    assert factor == pytest.approx(contraction, abs=1e-3)
    for iterations in (1, 7):
        request = NoiseRequest(
            config=GuidanceConfig(fixed_point_iterations=iterations),
            plan=StepPlan(timestep=timestep),
            schedule=SCHEDULE,
            latents=points,
            predict=predict,
            generator=torch.Generator().manual_seed(0),
        )
        noise = FixedPoint().infer(request)
        torch.testing.assert_close(noise - solution, factor**iterations * (start - solution))


def shown_with(overshoot: int, timestep: int) -> GuidanceOutput:
    """The published form for a prior that says nothing, on latents of one."""

    class SilentPrior(LatentsOnlyPrior):
        schedule = SCHEDULE

        def predict_noise(
            self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
        ) -> Tensor:
            return torch.zeros_like(noised_latents)

    one, empty = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.float64)
    return distill(
        GuidanceConfig(renoise="reference", inversion_eta=0.0),
        SilentPrior(),
        one,
        Conditions(prompt_embeddings=empty, negative_embeddings=empty),
        plan=StepPlan(timestep=timestep, overshoot=overshoot),
        generator=torch.Generator(),
    )


@pytest.mark.parametrize(("timestep", "pull"), [(980, -0.107), (750, -0.190), (500, -0.120), (250, -0.064)])
def test_the_published_form_pulls_latents_towards_grey(timestep: int, pull: float) -> None:
    """Its z - coefficient, sqrt(a_T / a_t) - 1 with overshoot 50."""
    output = shown_with(50, timestep)
    last, level = SCHEDULE.alpha_cumprod(min(timestep + 50, 999)), SCHEDULE.alpha_cumprod(timestep)
    from_noise = math.sqrt(1.0 - last) / math.sqrt(level) * output.noise.item()
    assert output.target.item() - 1.0 - from_noise == pytest.approx(math.sqrt(last / level) - 1.0, abs=1e-12)
    assert math.sqrt(last / level) - 1.0 == pytest.approx(pull, abs=1e-3)


def test_the_published_form_passes_t_by_up_to_a_stride() -> None:
    def overshoots(**config: Any) -> list[int]:
        return [
            plan_step(
                GuidanceConfig(**config), 0, 10, num_timesteps=1000, generator=torch.Generator().manual_seed(seed)
            ).overshoot
            for seed in range(1500)
        ]

    assert (min(overshoots(renoise="reference")), max(overshoots(renoise="reference"))) == (0, 99)
    assert max(overshoots(renoise="reference", inversion_steps=20)) == 49
    assert max(overshoots(renoise="paper")) == 33


@pytest.mark.parametrize("source", ["random", "fixed-random", "cached", "fixed-point"])
def test_what_is_not_inverted_is_noised_at_t_in_both_forms(golden: GoldenCase, source: NoiseName) -> None:
    paper = GuidanceConfig(noise=source, fixed_point_iterations=2)
    forms = [
        guide(golden, golden.tensors["z"], config, 400).noised_latents
        for config in (paper, replace(paper, renoise="reference"))
    ]
    assert torch.equal(*forms)
