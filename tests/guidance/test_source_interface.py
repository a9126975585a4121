"""The interface of noise sources: recorded numbers of every named one, calls, and sources from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch
from latents_only import LatentsOnlyPrior
from safetensors.torch import load_file
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import GuidanceOutput
from sdi_gs.errors import UserError
from sdi_gs.guidance.noise_sources.catalog import load_noise_source
from sdi_gs.guidance.noise_sources.inversion import Inversion
from sdi_gs.guidance.noise_sources.protocol import InfersNoise, NoiseRequest, NoiseSource, with_defaults
from sdi_gs.guidance.noise_sources.random import Random
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.schedule import add_noise
from sdi_gs.guidance.score_distillation import distill, predictor_calls
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.settings.guidance import GuidanceConfig, InversionOrder, Renoise
from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName

RECORDED = load_file(Path(__file__).parent / "golden" / "noise_sources.safetensors")
RECORDED_SOURCES = sorted({key.partition(".")[0] for key in RECORDED})
PLANS = [
    StepPlan(timestep=700, overshoot=20),
    StepPlan(timestep=430, overshoot=0),
    StepPlan(timestep=180, overshoot=33),
]


class RationalPrior(LatentsOnlyPrior):
    """Computes by additions, multiplications and divisions only, which all machines round alike."""

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        return (noised_latents + embeddings[..., None]) / (1.0 + noised_latents * noised_latents) + timestep / 1000.0


def embeddings(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


CONDITIONS = Conditions(prompt_embeddings=embeddings(2.0, 0.5), negative_embeddings=embeddings(-1.0, -1.0))
LATENTS = torch.linspace(-1.0, 1.5, 12, dtype=torch.float64).reshape(2, 1, 2, 3)


def three_steps(config: GuidanceConfig, source: InfersNoise | None = None) -> list[GuidanceOutput]:
    """Steps that move the latents halfway to the target and hand over what the source carries."""
    carrying = load_noise_source(config.noise) if source is None else with_defaults(source)
    generator, latents, carried, outputs = torch.Generator().manual_seed(0), LATENTS, None, []
    for plan in PLANS:
        output = distill(
            config,
            RationalPrior(),
            latents,
            CONDITIONS,
            plan=plan,
            generator=generator,
            noise_source=source,
            carried_noise=carried,
        )
        carried = carrying.carry(output)
        latents = latents + 0.5 * (output.target - latents)
        outputs.append(output)
    return outputs


@pytest.mark.parametrize("order", get_args(InversionOrder))
@pytest.mark.parametrize("renoise", get_args(Renoise))
@pytest.mark.parametrize("source", RECORDED_SOURCES)
def test_three_carried_steps_give_the_numbers_on_record(
    source: NoiseName, renoise: Renoise, order: InversionOrder
) -> None:
    """The record is of version 0.1, in which every source was a case of one function."""
    config = GuidanceConfig(
        noise=source,
        renoise=renoise,
        inversion_order=order,
        inversion_data_std=0.05,
        guidance_scale=3.0,
        inversion_steps=6,
        fixed_point_iterations=3,
    )
    outputs = three_steps(config)
    key = f"{source}.{renoise}.{order}"
    values = [
        torch.stack([output.noise, output.noised_latents, output.predicted_noise, output.target]) for output in outputs
    ]
    assert torch.equal(torch.stack(values), RECORDED[key])
    calls = [output.predictor_calls for output in outputs]
    assert calls == RECORDED[f"{key}.calls"].tolist()


def test_the_record_is_of_sources_that_differ() -> None:
    assert len(RECORDED_SOURCES) == 6
    second = [RECORDED[f"{source}.reference.2"][1] for source in RECORDED_SOURCES]
    assert all((left != right).any() for index, left in enumerate(second) for right in second[:index])


@pytest.mark.parametrize("order", get_args(InversionOrder))
@pytest.mark.parametrize("source", NOISE_SOURCES)
def test_the_planned_calls_are_made(source: NoiseName, order: InversionOrder) -> None:
    config = GuidanceConfig(noise=source, inversion_order=order, inversion_steps=6, fixed_point_iterations=3)
    planned = [predictor_calls(config, plan, RationalPrior.schedule) for plan in PLANS]
    assert [output.predictor_calls for output in three_steps(config)] == planned


def test_every_name_has_a_source_and_a_summary() -> None:
    for name, row in NOISE_SOURCES.items():
        assert isinstance(load_noise_source(name), NoiseSource)
        assert row.summary
    with pytest.raises(UserError, match=f'unknown noise source "ddpm"; known: {", ".join(NOISE_SOURCES)}'):
        load_noise_source("ddpm")


class Negated:
    """A source from outside: one method, no base class."""

    def infer(self, request: NoiseRequest) -> Tensor:
        return -Random().infer(request)


def test_a_class_with_infer_alone_is_a_noise_source() -> None:
    config = GuidanceConfig(guidance_scale=3.0, renoise="reference")
    outputs, drawn = three_steps(config, Negated()), three_steps(config, Random())
    assert torch.equal(outputs[0].noise, -drawn[0].noise)
    shown = add_noise(LATENTS, outputs[0].noise, RationalPrior.schedule.alpha_cumprod(700))
    assert torch.equal(outputs[0].noised_latents, shown)
    assert [output.predictor_calls for output in outputs] == [1, 1, 1]
    completed = with_defaults(Negated())
    assert completed.carry(outputs[0]) is None
    assert completed.shown_timestep(PLANS[0], config, RationalPrior.schedule) == 700
    assert predictor_calls(config, PLANS[0], RationalPrior.schedule, Negated()) == 1


@dataclass
class Momentum:
    """A source from outside with three of the four methods, which mixes inversion and the previous kappa."""

    share: float = 0.5

    def infer(self, request: NoiseRequest) -> Tensor:
        kappa = Inversion(scale=request.config.guidance_scale).infer(request)
        return kappa if request.carried is None else (1.0 - self.share) * kappa + self.share * request.carried

    def carry(self, output: GuidanceOutput) -> Tensor:
        return output.noise

    def num_calls(self, plan: StepPlan, config: GuidanceConfig, schedule: object) -> int:
        return Inversion().num_calls(plan, config, RationalPrior.schedule)


def test_a_source_may_build_on_another_and_carry_what_it_likes() -> None:
    config = GuidanceConfig(guidance_scale=3.0, inversion_eta=0.0)
    outputs, alone = three_steps(config, Momentum()), three_steps(config, Momentum(share=0.0))
    assert torch.equal(outputs[0].noise, alone[0].noise)
    again = distill(
        config,
        RationalPrior(),
        LATENTS + 0.5 * (outputs[0].target - LATENTS),
        CONDITIONS,
        plan=PLANS[1],
        generator=torch.Generator(),
        noise_source=Momentum(share=0.0),
    )
    assert torch.equal(outputs[1].noise, 0.5 * again.noise + 0.5 * outputs[0].noise)
    planned = [predictor_calls(config, plan, RationalPrior.schedule, Momentum()) for plan in PLANS]
    assert [output.predictor_calls for output in outputs] == planned


@pytest.mark.parametrize(("rows", "handed_over"), [(1, True), (2, True), (3, False)])
def test_noise_carried_for_another_number_of_images_is_not_handed_over(rows: int, handed_over: bool) -> None:
    seen: list[Tensor | None] = []

    class Watching:
        def infer(self, request: NoiseRequest) -> Tensor:
            seen.append(request.carried)
            return Random().infer(request)

    carried = torch.zeros(rows, 1, 2, 3, dtype=torch.float64)
    distill(
        GuidanceConfig(),
        RationalPrior(),
        LATENTS,
        CONDITIONS,
        plan=PLANS[0],
        generator=torch.Generator(),
        noise_source=Watching(),
        carried_noise=carried,
    )
    assert (seen[0] is carried) == handed_over
    assert (seen[0] is None) != handed_over


def test_noise_of_another_shape_is_refused() -> None:
    class Single:
        def infer(self, request: NoiseRequest) -> Tensor:
            return request.latents[:1]

    with pytest.raises(UserError, match=r"source Single: infer returned shape \[1, 1, 2, 3\], not \[2, 1, 2, 3\]"):
        three_steps(GuidanceConfig(), Single())
