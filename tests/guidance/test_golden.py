"""Parity with the published SDI code in float64, on a random U-Net with recorded answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from sdi_gs.contracts import GuidanceOutput
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.inversion import invert_ddim
from sdi_gs.guidance.perp_neg import PerpNegBranches
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.schedule import inversion_grid, sigma
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig, InversionOrder, Renoise
from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName

if TYPE_CHECKING:
    from conftest import GoldenCase

PARITY: dict[str, Any] = {"atol": 1e-10, "rtol": 0.0}
PLAN = StepPlan(timestep=500, overshoot=50)
both_forms = pytest.mark.parametrize("renoise", ["paper", "reference"])


def guide(
    case: GoldenCase, config: GuidanceConfig, plan: StepPlan = PLAN, generator: torch.Generator | None = None
) -> GuidanceOutput:
    return distill(
        config,
        case.prior,
        case.tensors["z"],
        case.conditions,
        plan=plan,
        generator=generator or torch.Generator(),
    )


def published(case: GoldenCase, timestep: int, last: int) -> dict[str, Tensor]:
    """The published code's step from its description, in terms of what the U-Net predicts."""
    prior, given = case.prior, case.tensors
    levels = prior.schedule.alphas_cumprod.tolist()
    latents, negatives = given["z"], case.conditions.perp_neg

    def level(at: int) -> float:
        return levels[max(at, 0)]

    def answer(noised: Tensor, told: int, scale: float) -> tuple[Tensor, Tensor]:
        """Predicted clean latent and noise after guidance."""
        prompts = [given["cond"], given["uncond"]]
        prompts += [] if negatives is None else list(negatives.embeddings[0, :, None])
        outputs = [prior.unet(noised, torch.tensor([told]), encoder_hidden_states=text).sample for text in prompts]
        towards = outputs[0] - outputs[1]
        guided = towards
        for index, output in enumerate(outputs[2:]):
            away, along = (output - outputs[1]).flatten(), towards.flatten()
            away = away - torch.dot(away, along) / max(torch.dot(along, along).item(), 1e-6) * along
            guided = guided + given["negative_weights"][0, index] * away.view_as(towards)
        model = outputs[1] + scale * guided
        signal, spread = math.sqrt(level(told)), math.sqrt(1.0 - level(told))
        if prior.prediction_type == "epsilon":
            return (noised - spread * model) / signal, model
        if prior.prediction_type == "sample":
            return model, (noised - signal * model) / spread
        return signal * noised - spread * model, signal * model + spread * noised

    grid = [-99, *(at for at in range(1, 1000, 100) if at < timestep), last]
    inverted = latents
    for source, destination in zip(grid[:-1], grid[1:], strict=True):
        clean, noise = answer(inverted, source, -7.5)
        inverted = math.sqrt(level(destination)) * clean + math.sqrt(1.0 - level(destination)) * noise
    kappa = (inverted - math.sqrt(level(last)) * latents) / math.sqrt(1.0 - level(last))
    noised = math.sqrt(level(timestep)) * latents + math.sqrt(1.0 - level(timestep)) * kappa
    return {
        "x_T": inverted,
        "kappa": kappa,
        "target_paper": answer(noised, timestep, 7.5)[0],
        "target_reference": answer(inverted, timestep, 7.5)[0],
    }


def assert_agrees(case: GoldenCase, expected: dict[str, Tensor], plan: StepPlan) -> None:
    """Our two forms against x_T, kappa and both targets."""
    forms: tuple[Renoise, ...] = ("paper", "reference")
    for renoise in forms:
        output = guide(case, GuidanceConfig(inversion_eta=0.0, renoise=renoise), plan)
        torch.testing.assert_close(output.noise, expected["kappa"], **PARITY)
        torch.testing.assert_close(output.target, expected[f"target_{renoise}"], **PARITY)
        if renoise == "reference":
            torch.testing.assert_close(output.noised_latents, expected["x_T"], **PARITY)


def test_the_inverted_latent_is_the_published_one(every_golden: GoldenCase) -> None:
    tensors, settings, schedule = every_golden.tensors, every_golden.settings, every_golden.prior.schedule
    predictor = GuidedPredictor(every_golden.prior, every_golden.conditions)
    grid = inversion_grid(settings["t"], settings["delta"], num_steps=settings["n_steps"], schedule=schedule)
    inverted = invert_ddim(
        lambda noised, timestep: predictor(noised, timestep, settings["inversion_scale"]),
        tensors["z"],
        grid,
        schedule=schedule,
        eta=0.0,
        generator=torch.Generator(),
    )
    torch.testing.assert_close(inverted, tensors["x_T"], **PARITY)


def test_noise_and_targets_are_the_published_ones_in_both_forms(every_golden: GoldenCase) -> None:
    settings = every_golden.settings
    plan = StepPlan(timestep=settings["t"], overshoot=settings["delta"])
    assert_agrees(every_golden, every_golden.tensors, plan)
    # Both forms ask as often as the published code, which the record lists with one more call for the second target.
    calls = settings["unet_timesteps"][:-1]
    assert every_golden.told == [*calls, *calls]


def test_the_written_out_algorithm_gives_the_record(every_golden: GoldenCase) -> None:
    settings = every_golden.settings
    expected = published(every_golden, settings["t"], min(settings["t"] + settings["delta"], 999))
    for name, value in expected.items():
        torch.testing.assert_close(value, every_golden.tensors[name], **PARITY)


@pytest.mark.parametrize(("timestep", "overshoot"), [(980, 60), (500, 0), (101, 99), (20, 7)])
@pytest.mark.parametrize("perp_neg", [False, True])
def test_every_prediction_type_is_guided_as_published(
    perp_neg_golden: GoldenCase, timestep: int, overshoot: int, perp_neg: bool
) -> None:
    case = perp_neg_golden
    if not perp_neg:
        case = replace(case, tensors={key: case.tensors[key] for key in ("z", "cond", "uncond")})
    expected = published(case, timestep, min(timestep + overshoot, 999))
    assert_agrees(case, expected, StepPlan(timestep=timestep, overshoot=overshoot))


@pytest.mark.parametrize("source", NOISE_SOURCES)
def test_the_distance_to_the_target_is_that_of_the_noises_in_units_of_sigma(
    golden: GoldenCase, source: NoiseName
) -> None:
    plan = StepPlan(timestep=500, overshoot=20)
    output = guide(golden, GuidanceConfig(noise=source), plan, torch.Generator().manual_seed(0))
    expected = sigma(golden.prior.schedule, 500) * (output.predicted_noise - output.noise)
    torch.testing.assert_close(golden.tensors["z"] - output.target, expected, **PARITY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "order"),
    [(source, 1) for source in NOISE_SOURCES] + [("inversion", 2), ("unconditional", 2)],
)
@pytest.mark.parametrize("perp_neg", [False, True])
@both_forms
def test_a_batch_is_guided_as_its_members_are(
    golden: GoldenCase, source: NoiseName, perp_neg: bool, renoise: Renoise, order: InversionOrder
) -> None:
    generator = torch.Generator().manual_seed(1)
    latents, kept = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    embeddings = torch.randn(3, 4, 5, 16, generator=generator, dtype=torch.float64)
    weights = -torch.rand(3, 2, generator=generator, dtype=torch.float64)

    def guide_rows(rows: slice, generator: torch.Generator) -> Tensor:
        branches = PerpNegBranches(embeddings=embeddings[rows, 2:], weights=weights[rows]) if perp_neg else None
        output = distill(
            GuidanceConfig(
                inversion_eta=0.0, inversion_order=order, renoise=renoise, noise=source, fixed_point_iterations=3
            ),
            golden.prior,
            latents[rows],
            Conditions(
                prompt_embeddings=embeddings[rows, 0], negative_embeddings=embeddings[rows, 1], perp_neg=branches
            ),
            plan=PLAN,
            generator=generator,
            carried_noise={"cached": kept[rows], "fixed-random": kept[:1]}.get(source),
        )
        return torch.stack([output.target, output.noise])

    together = guide_rows(slice(None), torch.Generator().manual_seed(2))
    # One generator for all of them, so that each is given the draws that it had in the batch.
    one_by_one = torch.Generator().manual_seed(2)
    apart = torch.cat([guide_rows(slice(index, index + 1), one_by_one) for index in range(3)], dim=1)
    torch.testing.assert_close(together, apart, **PARITY)
    assert (together[0, 0] - together[0, 1]).abs().mean() > 0.1


@pytest.mark.parametrize("scale", [7.5, 1.0, 0.0])
def test_the_prior_sees_no_gradient(golden: GoldenCase, scale: float) -> None:
    golden.tensors["z"].requires_grad_()
    output = guide(golden, GuidanceConfig(guidance_scale=scale))
    assert not any(value.requires_grad for value in (output.target, output.noise, output.predicted_noise))
