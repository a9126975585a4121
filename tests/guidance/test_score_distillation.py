"""Guidance with stand-in priors whose every answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from latents_only import LatentsOnlyPrior
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.contracts import GuidanceOutput
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.noise_sources.inversion import Inversion
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest
from sdi_gs.guidance.perp_neg import PerpNegBranches
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.guidance.schedule import add_noise
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import StepPlan, plan_step
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName
from sdi_gs.training.losses import distillation_loss


class LinearPrior(LatentsOnlyPrior):
    """Answers with the latents plus the number in the embedding, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, list[float]]] = []

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        self.asked.append((timestep, len(noised_latents), embeddings.flatten().tolist()))
        return noised_latents + embeddings[:, :, :, None]


CONDITIONAL = torch.tensor([2.0, 5.0], dtype=torch.float64)[:, None, None]
UNCONDITIONAL = torch.tensor([1.0, 1.0], dtype=torch.float64)[:, None, None]
CONDITIONS = Conditions(prompt_embeddings=CONDITIONAL, negative_embeddings=UNCONDITIONAL)


def two_latents() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def guide(config: GuidanceConfig, prior: LinearPrior, plan: StepPlan, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return distill(config, prior, two_latents(), CONDITIONS, plan=plan, generator=generator)


def make_plan(config: GuidanceConfig, step: int, seed: int = 0) -> StepPlan:
    generator = torch.Generator().manual_seed(seed)
    return plan_step(config, step, 100, num_timesteps=1000, generator=generator)


@pytest.mark.parametrize("scale", [7.5, -7.5, 0.5])
def test_both_branches_ride_in_one_call(scale: float) -> None:
    prior, latents = LinearPrior(), two_latents()
    predictor = GuidedPredictor(prior, CONDITIONS)
    guided = predictor(latents, 300, scale)
    assert prior.asked == [(300, 4, [2.0, 5.0, 1.0, 1.0])]
    assert predictor.calls == 1
    # e_u + s (e_c - e_u) per sample: the standard convention, without threestudio's extra 1.
    shift = torch.tensor([1.0 + scale * 1.0, 1.0 + scale * 4.0], dtype=torch.float64)
    torch.testing.assert_close(guided, latents + shift[:, None, None, None])


@pytest.mark.parametrize(("scale", "embeddings"), [(1.0, [2.0, 5.0]), (0.0, [1.0, 1.0])])
def test_a_branch_without_weight_is_left_out(scale: float, embeddings: list[float]) -> None:
    prior, latents = LinearPrior(), two_latents()
    guided = GuidedPredictor(prior, CONDITIONS)(latents, 300, scale)
    assert prior.asked == [(300, 2, embeddings)]
    torch.testing.assert_close(guided, latents + torch.tensor(embeddings)[:, None, None, None])


def test_inversion_runs_under_the_negative_of_the_guidance_scale_by_default() -> None:
    assert GuidanceConfig(guidance_scale=3.0).resolved_inversion_scale == -3.0
    assert GuidanceConfig(guidance_scale=3.0, inversion_guidance_scale=0.0).resolved_inversion_scale == 0.0
    plan = StepPlan(timestep=300)
    default = guide(GuidanceConfig(guidance_scale=3.0), LinearPrior(), plan)
    stated = guide(GuidanceConfig(guidance_scale=3.0, inversion_guidance_scale=-3.0), LinearPrior(), plan)
    opposite = guide(GuidanceConfig(guidance_scale=3.0, inversion_guidance_scale=3.0), LinearPrior(), plan)
    assert torch.equal(default.noise, stated.noise)
    assert not torch.allclose(default.noise, opposite.noise)


def test_inversion_asks_along_the_grid_and_then_once_at_the_timestep() -> None:
    prior = LinearPrior()
    output = guide(GuidanceConfig(), prior, StepPlan(timestep=250, overshoot=30))
    assert [timestep for timestep, _, _ in prior.asked] == [-99, 1, 101, 201, 250]
    assert output.predictor_calls == 5
    assert output.timestep == 250


def test_random_noise_costs_one_call_and_is_the_generators() -> None:
    prior, plan = LinearPrior(), StepPlan(timestep=250, overshoot=30)
    output = guide(GuidanceConfig(noise="random"), prior, plan, seed=4)
    drawn = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.equal(output.noise, drawn)
    assert [timestep for timestep, _, _ in prior.asked] == [250]
    assert output.predictor_calls == 1


@pytest.mark.parametrize("source", ["inversion", "random"])
def test_the_prior_is_shown_the_latents_noised_at_the_timestep_itself(source: Any) -> None:
    output = guide(GuidanceConfig(noise=source), LinearPrior(), StepPlan(timestep=400, overshoot=33))
    level = LinearPrior.schedule.alpha_cumprod(400)
    assert torch.equal(output.noised_latents, add_noise(two_latents(), output.noise, level))
    answer = GuidedPredictor(LinearPrior(), CONDITIONS)(output.noised_latents, 400, 7.5)
    assert torch.equal(output.predicted_noise, answer)


def test_the_overshoot_changes_the_noise_that_is_inferred() -> None:
    def noise(overshoot: int) -> Tensor:
        request = NoiseRequest(
            config=GuidanceConfig(inversion_eta=0.0),
            plan=StepPlan(timestep=400, overshoot=overshoot),
            schedule=LinearPrior.schedule,
            latents=two_latents(),
            predict=GuidedPredictor(LinearPrior(), CONDITIONS),
            generator=torch.Generator(),
        )
        return Inversion().infer(request)

    assert not torch.allclose(noise(0), noise(33), rtol=1e-2)


def test_the_loss_pulls_every_element_by_its_distance_over_their_number() -> None:
    latents = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    latents.requires_grad_()
    target = torch.zeros_like(latents) + 0.3
    loss = distillation_loss(latents, target)
    (gradient,) = torch.autograd.grad(loss, latents)
    torch.testing.assert_close(gradient, (latents.detach() - target) / 16384.0)
    assert loss.item() == pytest.approx(0.5 * ((latents.detach() - 0.3) ** 2).mean().item())


def test_a_clip_bounds_the_gradient_of_every_element_and_nothing_else() -> None:
    plan = StepPlan(timestep=600)
    latents = two_latents().requires_grad_()
    free = guide(GuidanceConfig(), LinearPrior(), plan).target
    clip = (latents - free).abs().median().item()
    clipped = guide(GuidanceConfig(gradient_clip=clip), LinearPrior(), plan).target
    full, bounded = (
        torch.autograd.grad(distillation_loss(latents, target), latents)[0] * latents.numel()
        for target in (free, clipped)
    )
    assert full.abs().max() > clip > full.abs().min()
    torch.testing.assert_close(bounded, full.clamp(-clip, clip))


def test_a_clip_does_not_hide_what_is_not_finite() -> None:
    class BrokenPrior(LinearPrior):
        def predict_noise(
            self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
        ) -> Tensor:
            return torch.full_like(noised_latents, torch.inf)

    plan = StepPlan(timestep=600)
    target = guide(GuidanceConfig(noise="random", gradient_clip=0.5, guidance_scale=1.0), BrokenPrior(), plan).target
    assert not target.isfinite().any()


def test_a_plan_follows_the_runs_own_length_and_its_generator() -> None:
    config = GuidanceConfig()
    assert [make_plan(config, step).timestep for step in (0, 50, 99)] == [980, 615, 257]
    assert make_plan(config, 3, seed=1) == make_plan(config, 3, seed=1)
    overshoots = [make_plan(config, 3, seed=seed).overshoot for seed in range(300)]
    assert (min(overshoots), max(overshoots)) == (0, 33)


@pytest.mark.parametrize(("fraction", "random_steps"), [(0.0, 0), (0.4, 40), (1.0, 100)])
def test_the_run_may_begin_with_random_noise(fraction: float, random_steps: int) -> None:
    config = GuidanceConfig(random_fraction=fraction)
    warming_up = [make_plan(config, step).warming_up for step in range(100)]
    assert warming_up == [True] * random_steps + [False] * (100 - random_steps)


@pytest.mark.parametrize("source", NOISE_SOURCES)
def test_the_noise_of_a_warm_up_is_random_whatever_the_source_is(source: NoiseName) -> None:
    config = GuidanceConfig(noise=source, renoise="reference")
    warm_up = guide(config, LinearPrior(), StepPlan(timestep=400, overshoot=33, warming_up=True), seed=5)
    drawn = guide(GuidanceConfig(noise="random"), LinearPrior(), StepPlan(timestep=400), seed=5)
    for name in ("target", "noise", "predicted_noise", "noised_latents", "predictor_calls"):
        assert torch.equal(torch.as_tensor(getattr(warm_up, name)), torch.as_tensor(getattr(drawn, name))), name


def test_a_warm_up_draws_as_the_rest_does() -> None:
    """So that two runs which differ in it alone see the same cameras."""
    states = []
    for fraction in (0.0, 1.0):
        generator = torch.Generator().manual_seed(0)
        plan_step(GuidanceConfig(random_fraction=fraction), 0, 10, num_timesteps=1000, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    "wrong",
    [
        {"t_min": 0.0},
        {"t_min": 0.9, "t_max": 0.5},
        {"t_max": 1.5},
        {"inversion_steps": 0},
        {"inversion_steps": 1001},
        {"random_fraction": -0.1},
        {"random_fraction": 1.1},
        {"inversion_eta": -0.3},
        {"inversion_overshoot": 0.2},
        {"inversion_overshoot": -0.01},
        {"inversion_order": 3},
        {"inversion_spacing": "steps"},
        {"inversion_eta": math.nan},
        {"fixed_point_iterations": 0},
        {"noise": "ddpm"},
        {"renoise": "never"},
        {"guidance_scale": math.inf},
        {"inversion_guidance_scale": math.nan},
        {"gradient_clip": 0.0},
        {"gradient_clip": math.nan},
    ],
)
def test_a_config_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).removeprefix("inversion_").split("_")[0]):
        GuidanceConfig(**wrong)


@pytest.mark.parametrize(("views", "branches"), [(1, 0), (0, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_few_rows_at_once_have_the_same_answer(views: int, branches: int, scale: float) -> None:
    branches_of_perp_neg = PerpNegBranches(
        embeddings=torch.tensor([[3.0, 4.0], [0.5, 6.0]], dtype=torch.float64)[..., None, None],
        weights=torch.tensor([[-1.0, -0.5], [-0.3, -2.0]], dtype=torch.float64),
    )
    config = GuidanceConfig(guidance_scale=scale, inversion_guidance_scale=0.0, inversion_steps=4)
    plan = StepPlan(timestep=600, overshoot=10)

    def answer(compute: ComputeConfig) -> tuple[Any, LinearPrior]:
        prior = LinearPrior()
        draws = torch.Generator().manual_seed(0)
        conditions = replace(CONDITIONS, perp_neg=branches_of_perp_neg)
        output = distill(config, prior, two_latents(), conditions, plan=plan, generator=draws, compute=compute)
        return output, prior

    (whole, _), (pieces, asked) = (
        answer(ComputeConfig()),
        answer(ComputeConfig(views_at_once=views, branches_at_once=branches)),
    )
    for name in ("target", "noise", "predicted_noise", "noised_latents"):
        assert torch.equal(getattr(whole, name), getattr(pieces, name)), name
    assert whole.predictor_calls == pieces.predictor_calls
    most = (views or 2) * (branches or 4)
    assert max(rows for _, rows, _ in asked.asked) == most


@pytest.mark.parametrize(("views", "branches"), [(0, 0), (1, 0), (2, 0), (0, 1), (2, 3), (1, 1)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("perp_neg", [False, True])
def test_every_row_is_of_the_camera_of_its_view(views: int, branches: int, scale: float, perp_neg: bool) -> None:
    class CameraPrior(LatentsOnlyPrior):
        """Checks the rule that maps rows to cameras: latents and embeddings hold the azimuth of their image."""

        knows_cameras = True

        def __init__(self) -> None:
            self.seen: list[float] = []

        def predict_noise(
            self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
        ) -> Tensor:
            assert cameras is not None
            assert len(noised_latents) % len(cameras) == 0
            own = [cameras.azimuth_deg[row % len(cameras)].item() for row in range(len(noised_latents))]
            assert noised_latents[:, 0, 0, 0].tolist() == embeddings[:, 0, 0].tolist() == own
            self.seen += own
            return noised_latents

    azimuths = torch.tensor([10.0, 130.0, 250.0])
    cameras = orbit_cameras(azimuths, 0.0 * azimuths, 0.0 * azimuths + 3.0, 0.0 * azimuths + 40.0, width=8, height=8)
    rows = azimuths[:, None, None]
    negatives = PerpNegBranches(embeddings=rows[:, None].expand(-1, 2, -1, -1), weights=-torch.ones(3, 2))
    conditions = Conditions(
        prompt_embeddings=rows,
        negative_embeddings=rows,
        perp_neg=negatives if perp_neg else None,
        cameras=cameras,
    )
    prior, compute = CameraPrior(), ComputeConfig(views_at_once=views, branches_at_once=branches)
    GuidedPredictor(prior, conditions, compute)(rows[..., None].expand(3, 1, 2, 2), 300, scale)
    num_branches = 1 if scale == 0.0 or (scale == 1.0 and not perp_neg) else 4 if perp_neg else 2
    assert sorted(prior.seen) == sorted(num_branches * azimuths.tolist())


class CurvedPrior(LinearPrior):
    """Answers in a direction of its own to each embedding, so that wrong views have something to be pushed along."""

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        super().predict_noise(noised_latents, timestep, embeddings)
        return torch.cos(embeddings[:, :, :, None] * noised_latents)


def test_wrong_views_can_be_pushed_away_in_the_last_call_alone() -> None:
    negatives = PerpNegBranches(
        embeddings=torch.tensor([[3.0, 4.0], [0.5, 6.0]], dtype=torch.float64)[..., None, None],
        weights=torch.tensor([[-1.0, -0.5], [-0.3, -2.0]], dtype=torch.float64),
    )
    config = GuidanceConfig(inversion_steps=4, perp_neg_calls="last")
    plan = StepPlan(timestep=600, overshoot=10)

    def answer(config: GuidanceConfig, branches: PerpNegBranches | None) -> tuple[GuidanceOutput, CurvedPrior]:
        prior, draws = CurvedPrior(), torch.Generator().manual_seed(0)
        conditions = replace(CONDITIONS, perp_neg=branches)
        return distill(config, prior, two_latents(), conditions, plan=plan, generator=draws), prior

    last, asked = answer(config, negatives)
    everywhere, _ = answer(replace(config, perp_neg_calls="all"), negatives)
    nowhere, _ = answer(config, None)
    # Two views: two branches of them in every call but the last.
    assert [rows for _, rows, _ in asked.asked] == [4] * (last.predictor_calls - 1) + [8]
    assert last.predictor_calls == everywhere.predictor_calls
    assert torch.equal(last.noise, nowhere.noise)
    assert not torch.allclose(last.noise, everywhere.noise)
    assert not torch.allclose(last.predicted_noise, nowhere.predicted_noise)
    schedule = CurvedPrior().schedule
    conditions = replace(CONDITIONS, perp_neg=negatives)
    guided = GuidedPredictor(CurvedPrior(), conditions)(last.noised_latents, plan.timestep, config.guidance_scale)
    assert torch.equal(last.predicted_noise, guided)
    expected = add_noise(two_latents(), nowhere.noise, schedule.alpha_cumprod(plan.timestep))
    torch.testing.assert_close(last.noised_latents, expected)


class ScalingPrior(LinearPrior):
    """Answers with the latents times the number in the embedding."""

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        super().predict_noise(noised_latents, timestep, embeddings, cameras)
        return noised_latents * embeddings[:, :, :, None]


class FourViewPrior(ScalingPrior):
    """Denoises four views together."""

    views_per_group = 4


def published_target(noised: Tensor, conditional: Tensor, unconditional: Tensor, level: float, scale: float) -> Tensor:
    """MVDream's clean latents in numpy's terms: those under guidance, half of them rescaled group by group."""
    root, rest = math.sqrt(level), math.sqrt(1.0 - level)
    guided = (noised - rest * (unconditional + scale * (conditional - unconditional))) / root
    plain = (noised - rest * conditional) / root
    groups = []
    for begin in range(0, len(noised), 4):
        rows = slice(begin, begin + 4)
        factor = (plain[rows].numpy().std(ddof=1) + 1e-8) / (guided[rows].numpy().std(ddof=1) + 1e-8)
        groups.append(0.5 * guided[rows] * factor + 0.5 * guided[rows])
    return torch.cat(groups)


@pytest.mark.parametrize("at_once", [0, 4])
def test_half_of_the_target_has_the_spread_of_the_prediction_without_guidance(at_once: int) -> None:
    prior, draws = FourViewPrior(), torch.Generator().manual_seed(3)
    latents = torch.randn(8, 3, 4, 4, generator=draws, dtype=torch.float64)
    rows = 1.0 + torch.rand(2, 8, 1, 1, generator=draws, dtype=torch.float64)
    conditions = Conditions(prompt_embeddings=rows[0], negative_embeddings=rows[1])
    config = GuidanceConfig(noise="random", guidance_scale=50.0, target_rescale=0.5)
    found = distill(
        config,
        prior,
        latents,
        conditions,
        plan=StepPlan(timestep=500),
        generator=torch.Generator().manual_seed(0),
        compute=ComputeConfig(views_at_once=at_once),
    )
    noised = found.noised_latents
    level = prior.schedule.alpha_cumprod(500)
    expected = published_target(noised, noised * rows[0][..., None], noised * rows[1][..., None], level, 50.0)
    torch.testing.assert_close(found.target, expected)
    assert found.predictor_calls == 1
    plain = distill(
        replace(config, target_rescale=0.0),
        prior,
        latents,
        conditions,
        plan=StepPlan(timestep=500),
        generator=torch.Generator().manual_seed(0),
    )
    assert plain.target.std() > 1.5 * found.target.std()


@pytest.mark.parametrize(("scale", "share"), [(1.0, 1.0), (0.0, 0.5)])
def test_rescaling_without_guidance_changes_nothing_and_without_the_prompt_asks_for_it(
    scale: float, share: float
) -> None:
    plan, prior = StepPlan(timestep=400), ScalingPrior()
    config = GuidanceConfig(noise="random", guidance_scale=scale, target_rescale=share)
    found, plain = guide(config, prior, plan), guide(replace(config, target_rescale=0.0), ScalingPrior(), plan)
    if scale == 1.0:
        torch.testing.assert_close(found.target, plain.target)
    else:
        assert [rows for _, rows, _ in prior.asked] == [4]
        assert not torch.allclose(found.target, plain.target)
