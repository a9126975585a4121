"""The loop: what a step does, what it depends on, what stops it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import DiffusionPrior, GuidanceOutput, NoiseSchedule
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.guidance.noise_sources.protocol import InfersNoise, NoiseRequest
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.runs.checkpoint import pack_state, unpack_state
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.densify import DensifyConfig, Strategy
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.guidance import ViewPromptsConfig
from sdi_gs.settings.noise_sources import NoiseName
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.steering import STEERABLE
from sdi_gs.settings.tree import with_values
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")


def gaussians_of(trainer: Trainer) -> Gaussians:
    assert isinstance(trainer.scene.representation, Gaussians)
    return trainer.scene.representation


def optimizers_of(trainer: Trainer) -> dict[str, torch.optim.Optimizer]:
    assert isinstance(trainer.scene, GaussianScene)
    return trainer.scene.optimizers


class CertainPrior:
    """A prior that knows one image only: a colour, the same at every pixel."""

    name = "certain"
    image_size = 32
    knows_cameras = False

    def __init__(self, colour: tuple[float, float, float] = (0.9, 0.1, 0.1)) -> None:
        self.schedule: NoiseSchedule = scaled_linear_schedule()
        self.image = torch.tensor(colour).reshape(1, 3, 1, 1)
        self.timesteps: list[int] = []
        self.prompts: list[str] = []
        self.broken = ""

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        self.prompts += prompts
        return torch.zeros(len(prompts), 1, 4)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        latents = images.permute(0, 3, 1, 2)
        if self.broken == "latents":
            latents = latents * torch.inf
        if self.broken == "gradient":
            latents.register_hook(lambda gradient: gradient * torch.nan)
        return latents

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents.permute(0, 2, 3, 1)

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        self.timesteps.append(timestep)
        if self.broken == "target":
            return torch.full_like(noised_latents, torch.nan)
        level = self.schedule.alpha_cumprod(timestep)
        # The noise that leads from the one image to this one.
        return (noised_latents - level**0.5 * self.image) / (1.0 - level) ** 0.5


def config(**changes: object) -> RunConfig:
    base = preset_named("smoke").config
    return replace(
        base,
        prompt="a blue robot",
        steps=12,
        gaussians=GaussiansConfig(num_initial=150, initial_opacity=0.5),
        densify=DensifyConfig(start=0.0, stop=1.0, every=4, max_gaussians=200, min_gaussians=50, grow_share=0.2),
        **changes,
    )


def trained(settings: RunConfig, steps: int, prior: DiffusionPrior | None = None) -> Trainer:
    trainer = Trainer(settings, prior or CertainPrior(), device=CPU)
    for _ in range(steps):
        trainer.train_step()
    return trainer


def assert_equal_states(left: Trainer, right: Trainer) -> None:
    """Every tensor bit for bit, and everything that is no tensor."""
    (tensors, rest), (others, other_rest) = pack_state(left.state()), pack_state(right.state())
    assert rest == other_rest
    assert set(tensors) == set(others)
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []


@pytest.mark.parametrize("stop", [3, 6, 11])
def test_a_continued_run_ends_bit_equal_to_one_that_never_stopped(stop: int) -> None:
    straight = trained(config(), 12)
    tensors, packed = pack_state(trained(config(), stop).state())
    resumed = Trainer(config(), CertainPrior(), device=CPU)
    resumed.load_state(unpack_state({name: value.clone() for name, value in tensors.items()}, packed))
    while resumed.step < 12:
        resumed.train_step()
    assert_equal_states(straight, resumed)
    # Densification took part, so that its state was needed.
    assert len(gaussians_of(straight)) == 200


@pytest.mark.parametrize("strategy", ["share", "threshold", "mcmc"])
@pytest.mark.parametrize("stop", [4, 7])
def test_every_strategy_can_be_resumed_bit_for_bit(strategy: Strategy, stop: int) -> None:
    settings = config()
    densify = replace(
        settings.densify, strategy=strategy, every=2, grow_grad2d=1e-9, prune_opacity=0.45, prune_component=0.01
    )
    guarded = replace(settings.gaussians, axis_ratio_cap=1.5, scales_lr=0.2)
    settings = replace(settings, densify=densify, gaussians=guarded)
    straight = trained(settings, 10)
    tensors, packed = pack_state(trained(settings, stop).state())
    resumed = Trainer(settings, CertainPrior(), device=CPU)
    resumed.load_state(unpack_state({name: value.clone() for name, value in tensors.items()}, packed))
    while resumed.step < 10:
        resumed.train_step()
    assert_equal_states(straight, resumed)
    assert len(gaussians_of(straight)) != 150


def test_the_cap_on_axes_holds_after_every_step() -> None:
    settings = config()
    wild = replace(settings.gaussians, scales_lr=0.3)
    weights = replace(settings.losses, needles=0.0)

    def ratio(cap: float | None) -> float:
        trainer = trained(replace(settings, gaussians=replace(wild, axis_ratio_cap=cap), losses=weights), 6)
        axes = gaussians_of(trainer).params["scales"].detach().sort(dim=-1).values
        return (axes[:, 2] - axes[:, 1]).max().exp().item()

    assert ratio(None) > 1.6
    assert ratio(1.2) == pytest.approx(1.2, rel=1e-5)


def test_the_lower_limit_on_axes_holds_after_every_step() -> None:
    settings = config()
    shrinking = replace(settings.gaussians, scales_lr=0.3)

    def thinnest(limit: float | None) -> float:
        trainer = trained(replace(settings, gaussians=replace(shrinking, smallest_scale=limit)), 6)
        return gaussians_of(trainer).params["scales"].detach().min().exp().item()

    assert thinnest(None) < 0.03
    assert thinnest(0.03) == pytest.approx(0.03, rel=1e-5)


def test_the_densifier_is_told_how_noisy_the_step_was() -> None:
    # t falls linearly from 0.98 to 0.25: 0.5 is passed at about two thirds of the run.
    settings = config()
    for share, resets in ((0.4, True), (0.8, False)):
        densify = replace(settings.densify, reset_opacity_at=share, every=100)
        trainer = Trainer(replace(settings, densify=densify), CertainPrior(), device=CPU)
        for _ in range(int(share * 12)):
            trainer.train_step()
        before = torch.sigmoid(gaussians_of(trainer).params["opacities"].detach()).max()
        if resets:
            trainer.train_step()
        else:
            with pytest.warns(UserWarning, match="reset at step 10 is left out"):
                trainer.train_step()
        after = torch.sigmoid(gaussians_of(trainer).params["opacities"].detach()).max()
        assert (after < 0.2 * before) == resets


def test_a_start_over_the_cap_is_refused() -> None:
    settings = config()
    with pytest.raises(UserError, match="starts with 150 Gaussians"):
        Trainer(replace(settings, densify=replace(settings.densify, max_gaussians=149)), CertainPrior(), device=CPU)


def test_the_seed_decides_the_run() -> None:
    assert_equal_states(trained(config(), 3), trained(config(), 3))
    other = trained(config(seed=1), 3)
    assert not torch.equal(gaussians_of(trained(config(), 3)).params["means"], gaussians_of(other).params["means"])


def test_global_generators_have_no_say() -> None:
    torch.manual_seed(1)
    first = trained(config(), 5)
    torch.manual_seed(2)
    assert_equal_states(first, trained(config(), 5))


def test_training_moves_the_object_towards_what_the_prior_wants() -> None:
    # The prior knows red pictures only: the grey start has to become red and to grow.
    settings = replace(config(), densify=DensifyConfig(enabled=False), backgrounds=("white",))
    trainer = Trainer(settings, CertainPrior((0.9, 0.1, 0.1)), device=CPU)
    before = gaussians_of(trainer).params["sh0"].detach().mean(dim=(0, 1))
    distances = [trainer.train_step().losses["distillation"] for _ in range(12)]
    moved = gaussians_of(trainer).params["sh0"].detach().mean(dim=(0, 1)) - before
    assert moved[0] > 0.1
    assert max(moved[1], moved[2]) < -0.1
    assert sum(distances[-4:]) < 0.95 * sum(distances[:4])


def test_a_report_tells_of_its_step() -> None:
    prior = CertainPrior()
    trainer = Trainer(config(), prior, device=CPU)
    for expected in (1, 2):
        prior.timesteps.clear()
        report = trainer.train_step()
        assert report.step == trainer.step == expected
        assert report.num_points == len(gaussians_of(trainer))
        assert report.predictor_calls == len(prior.timesteps)
        assert prior.timesteps[-1] == report.timestep
        assert report.seconds > 0.0


def test_timesteps_fall_over_the_runs_own_length() -> None:
    for steps in (5, 12):
        settings = replace(config(), steps=steps)
        trainer = Trainer(settings, CertainPrior(), device=CPU)
        timesteps = [trainer.train_step().timestep for _ in range(steps)]
        assert timesteps[0] == int(1000 * settings.guidance.t_max)
        assert timesteps == sorted(timesteps, reverse=True)
        stride = 1000 * (settings.guidance.t_max - settings.guidance.t_min) / steps
        assert timesteps[-1] == pytest.approx(1000 * settings.guidance.t_min + stride, abs=1)


def test_noise_is_random_for_its_share_of_the_run_and_inverted_after_it() -> None:
    settings = config()
    settings = replace(settings, guidance=replace(settings.guidance, random_fraction=0.5))
    trainer = Trainer(settings, CertainPrior(), device=CPU)
    calls = [trainer.train_step().predictor_calls for _ in range(12)]
    assert calls[:6] == [1] * 6
    assert min(calls[6:]) > 1


def test_the_prior_is_asked_under_every_side_of_the_prompt() -> None:
    prior = CertainPrior()
    Trainer(replace(config(), negative_prompt="a blue cube"), prior, device=CPU)
    for side in ("front view", "side view", "back view", "overhead view"):
        assert any(text.startswith("a blue robot") and side in text for text in prior.prompts)
    assert "a blue cube" in prior.prompts


def test_weightless_terms_are_left_out_of_the_loss() -> None:
    settings = config()
    weights = replace(settings.losses, fog=0.0, needles=0.0, compactness=0.0)
    report = Trainer(replace(settings, losses=weights), CertainPrior(), device=CPU).train_step()
    assert set(report.losses) == {"distillation"}


def test_the_fog_term_ramps_up_from_its_start() -> None:
    settings = config()
    weights = replace(settings.losses, fog=1.0, fog_start=0.5)
    trainer = Trainer(replace(settings, losses=weights), CertainPrior(), device=CPU)
    fog = [trainer.train_step().losses.get("fog", 0.0) for _ in range(12)]
    assert fog[:7] == [0.0] * 7
    assert fog[7] > 0.0
    # Mean a(1 - a) is at most 1/4, times the ramp.
    assert all(value <= 0.25 * (step - 6) / 6 for step, value in enumerate(fog) if step > 6)


def test_the_centres_learn_at_the_final_rate_in_the_last_step() -> None:
    trainer = trained(config(), 12)
    rate = optimizers_of(trainer)["means"].param_groups[0]["lr"]
    assert rate == pytest.approx(config().gaussians.means_lr_final)


@pytest.mark.parametrize(
    ("broken", "named"), [("latents", "latents"), ("target", "target"), ("gradient", r"gradient of \w+")]
)
def test_a_value_that_is_not_finite_stops_the_run_and_leaves_its_state(broken: str, named: str) -> None:
    prior = CertainPrior()
    trainer, untouched = trained(config(), 3, prior), trained(config(), 3)
    prior.broken = broken
    with pytest.raises(NonFiniteError, match=rf"step 4, t = \d+: non-finite {named};"):
        trainer.train_step()
    assert trainer.step == 3
    assert_equal_states(trainer, untouched)
    # And when the cause is mended, the run goes on as if nothing had been.
    prior.broken = ""
    trainer.train_step()
    untouched.train_step()
    assert_equal_states(trainer, untouched)


def test_a_loss_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config()
    trainer = trained(replace(settings, losses=replace(settings.losses, compactness=1.0)), 1)
    plain = trainer.scene.losses
    monkeypatch.setattr(trainer.scene, "losses", lambda *given: {"compactness": plain(*given)["compactness"] / 0.0})
    with pytest.raises(NonFiniteError, match=r"step 2, t = \d+: non-finite compactness loss"):
        trainer.train_step()


def with_guidance(**changes: Any) -> RunConfig:
    settings = config()
    return replace(settings, guidance=replace(settings.guidance, random_fraction=0.0, **changes))


@pytest.mark.parametrize("source", ["cached", "fixed-random", "fixed-point", "unconditional", "random"])
def test_every_noise_source_can_be_resumed_bit_for_bit(source: NoiseName) -> None:
    settings = with_guidance(noise=source, fixed_point_iterations=2)
    straight, stopped = trained(settings, 6), trained(settings, 3)
    tensors, packed = pack_state(stopped.state())
    resumed = Trainer(settings, CertainPrior(), device=CPU)
    resumed.load_state(unpack_state({name: value.clone() for name, value in tensors.items()}, packed))
    for _ in range(3):
        resumed.train_step()
    assert_equal_states(straight, resumed)
    assert (resumed.carried_noise is not None) == (source in ("cached", "fixed-random"))


def test_a_run_of_fixed_noise_keeps_its_first_draw() -> None:
    trainer = trained(with_guidance(noise="fixed-random"), 1)
    first = trainer.carried_noise
    assert first is not None
    assert first.shape == (1, 3, 32, 32)
    trainer.train_step()
    assert trainer.carried_noise is not None
    assert torch.equal(trainer.carried_noise, first)


class Scaled:
    """A noise source from outside: no base class, and only the methods that it needs."""

    def infer(self, request: NoiseRequest) -> Tensor:
        if request.carried is None:
            return torch.randn(request.latents.shape, generator=request.generator)
        return 0.9 * request.carried + 0.01 * request.config.guidance_scale

    def carry(self, output: GuidanceOutput) -> Tensor:
        return output.noise


class Flat:
    """The least that a noise source may be."""

    def infer(self, request: NoiseRequest) -> Tensor:
        return torch.full_like(request.latents, 0.5)


@pytest.mark.parametrize("source", [Scaled(), Flat()])
def test_a_noise_source_of_ones_own_trains_and_is_resumed_bit_for_bit(source: InfersNoise) -> None:
    settings = with_guidance()

    def steps(trainer: Trainer, count: int) -> Trainer:
        for _ in range(count):
            trainer.train_step()
        return trainer

    straight = steps(Trainer(settings, CertainPrior(), device=CPU, noise_source=source), 6)
    stopped = steps(Trainer(settings, CertainPrior(), device=CPU, noise_source=source), 3)
    tensors, packed = pack_state(stopped.state())
    saved = unpack_state({name: value.clone() for name, value in tensors.items()}, packed)
    resumed = steps(Trainer(settings, CertainPrior(), device=CPU, noise_source=source, saved=saved), 3)
    assert_equal_states(straight, resumed)
    assert (resumed.carried_noise is not None) == isinstance(source, Scaled)
    name = type(source).__name__
    with pytest.raises(UserError, match=f"noise source is {name}, not the configured one: pass noise_source={name}"):
        Trainer(settings, CertainPrior(), device=CPU, saved=saved)
    with pytest.raises(UserError, match=f"noise source is the configured one, not {name}: leave noise_source out"):
        Trainer(settings, CertainPrior(), device=CPU, noise_source=source, saved=trained(settings, 1).state())


def test_a_noise_source_of_ones_own_waits_for_the_warm_up_and_reads_the_settings_in_force() -> None:
    asked: list[tuple[int, float]] = []

    class Watching(Scaled):
        def infer(self, request: NoiseRequest) -> Tensor:
            asked.append((trainer.step, request.config.guidance_scale))
            return super().infer(request)

    settings = with_guidance(guidance_scale=1.0)
    settings = replace(settings, guidance=replace(settings.guidance, random_fraction=0.25))
    trainer = Trainer(settings, CertainPrior(), device=CPU, noise_source=Watching())
    for _ in range(4):
        trainer.train_step()
    trainer.change_settings(with_values(trainer.config, {"guidance.guidance_scale": 2.0}))
    trainer.train_step()
    assert asked == [(3, 1.0), (4, 2.0)]


def test_the_configured_source_follows_settings_that_change_while_it_trains() -> None:
    trainer = trained(with_guidance(inversion_steps=5), 1)
    trainer.change_settings(with_values(trainer.config, {"guidance.inversion_steps": 20}))
    assert trainer.train_step().predictor_calls > 10


def test_the_exact_prior_is_guided_under_blended_view_words() -> None:
    settings = with_guidance(perp_neg=True, guidance_scale=7.5)
    settings = replace(settings, ideal_prior=replace(settings.ideal_prior, renders_per_view=4, unconditional_renders=4))
    asked: list[tuple[int, Tensor]] = []

    class WatchedPrior(IdealPrior):
        def predict_noise(
            self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
        ) -> Tensor:
            asked.append((len(noised_latents), embeddings))
            return super().predict_noise(noised_latents, timestep, embeddings, cameras)

    trainer = Trainer(settings, WatchedPrior(settings.ideal_prior), device=CPU)
    report = trainer.train_step()
    assert math.isfinite(report.losses["distillation"])
    rows, embeddings = asked[0]
    assert rows == 4 * settings.views_per_step
    # View weights of the positive branch are blends: two words each, which add up to one.
    views = embeddings[: settings.views_per_step, 0, 26:30]
    torch.testing.assert_close(views.sum(dim=1), torch.ones(len(views)))
    assert ((views > 0.0).sum(dim=1) == 2).all()


def test_sides_can_have_prompts_of_their_own() -> None:
    prior = CertainPrior()
    settings = replace(config(), view_prompts=ViewPromptsConfig(back="a plain back"))
    Trainer(settings, prior, device=CPU)
    assert any(text.startswith("a plain back, ") for text in prior.prompts)
    assert not any("back view" in text for text in prior.prompts)


STEERED: dict[str, Any] = {
    "prompt": "a red car",
    "negative_prompt": "a blue cube",
    "views_per_step": 3,
    "learning_rate_scale": 0.5,
    "guidance.guidance_scale": 3.0,
    "guidance.inversion_guidance_scale": 0.0,
    "guidance.inversion_steps": 7,
    "guidance.t_min": 0.1,
    "guidance.t_max": 0.9,
}


def test_settings_that_may_change_do_so_from_the_next_step() -> None:
    assert set(STEERED) == set(STEERABLE)
    prior = CertainPrior()
    trainer = trained(config(), 2, prior)
    changed = trainer.change_settings(with_values(trainer.config, STEERED))
    assert {key: after for key, (_, after) in changed.items()} == STEERED
    assert trainer.changes == [{"step": 2, "changed": changed}]
    assert any(text.startswith("a red car") for text in prior.prompts)
    report = trainer.train_step()
    assert report.step == 3
    # t at the third of twelve steps of the new range.
    assert report.timestep == int(1000 * ((0.9 - 0.1) * (1.0 - 2 / 12) + 0.1))
    assert trainer.last_views is not None
    assert trainer.last_views.rgb.shape == (3, 32, 32, 3)


def test_the_rate_scale_multiplies_every_rate() -> None:
    plain, halved = trained(config(), 2), trained(config(), 2)
    halved.change_settings(replace(halved.config, learning_rate_scale=0.5))
    for trainer in (plain, halved):
        trainer.train_step()
    for name, optimizer in optimizers_of(plain).items():
        rate = optimizer.param_groups[0]["lr"]
        assert optimizers_of(halved)[name].param_groups[0]["lr"] == pytest.approx(0.5 * rate), name


def test_no_change_is_no_change() -> None:
    left, right = trained(config(), 3), trained(config(), 2)
    assert right.change_settings(config()) == {}
    assert right.changes == []
    right.train_step()
    assert_equal_states(left, right)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 99}, "steps cannot change while a run trains; these can: prompt, "),
        ({"guidance.noise": "random"}, "guidance.noise cannot change"),
        ({"gaussians.num_initial": 3}, "gaussians.num_initial cannot change"),
        ({"compute.fused_adam": True}, "compute.fused_adam cannot change"),
        ({"compute.precision": "float16"}, "compute.precision cannot change"),
        ({"prompt": " "}, "the prompt is empty"),
    ],
)
def test_what_a_run_was_built_with_cannot_change_under_it(values: dict[str, Any], says: str) -> None:
    trainer, untouched = trained(config(), 2), trained(config(), 2)
    with pytest.raises(UserError, match=says):
        trainer.change_settings(with_values(trainer.config, values))
    assert trainer.config == untouched.config
    assert_equal_states(trainer, untouched)


def test_a_prompt_that_the_prior_does_not_know_leaves_everything_as_it_was() -> None:
    settings = config()
    prior = IdealPrior(settings.ideal_prior)
    trainer = Trainer(settings, prior, device=CPU)
    conditions = trainer.conditions
    with pytest.raises(UserError, match="dragon"):
        trainer.change_settings(with_values(settings, {"prompt": "a red dragon", "views_per_step": 3}))
    assert trainer.config == settings
    assert trainer.conditions is conditions
    assert trainer.changes == []


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 3)])
def test_cached_noise_of_other_views_is_not_used(before: int, after: int) -> None:
    settings = replace(with_guidance(noise="cached"), views_per_step=before)
    trainer = trained(settings, 2)
    assert trainer.carried_noise is not None
    trainer.change_settings(with_values(trainer.config, {"views_per_step": after}))
    without = trained(settings, 2)
    without.change_settings(with_values(without.config, {"views_per_step": after}))
    without.carried_noise = None
    trainer.train_step()
    without.train_step()
    assert_equal_states(trainer, without)
    assert trainer.carried_noise.shape == (after, 3, 32, 32)


def test_the_last_views_can_be_looked_at() -> None:
    trainer = trained(config(), 1)
    views = trainer.last_views
    assert views is not None
    assert not views.rgb.requires_grad
    assert not views.target.requires_grad
    assert len(views.cameras) == len(views.rgb) == len(views.target) == config().views_per_step


def test_a_step_reads_its_numbers_together(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trained(replace(config(), densify=DensifyConfig(enabled=False)), 1)
    read: list[int] = []
    tolist = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda values: read.append(values.numel()) or tolist(values))
    report = trainer.train_step()
    # The losses, then a flag for latents, target, each loss and each gradient; what else is read are host cameras.
    views = trainer.config.views_per_step
    together = 2 * len(report.losses) + 2 + len(gaussians_of(trainer).params)
    assert [count for count in read if count != views] == [together]


@pytest.mark.parametrize("source", ["inversion", "cached", "fixed-random"])
@pytest.mark.parametrize("strategy", ["share", "mcmc"])
def test_a_run_in_groups_of_views_is_the_run_of_all_at_once(source: NoiseName, strategy: Strategy) -> None:
    settings = with_guidance(noise=source, perp_neg=True)
    settings = replace(settings, views_per_step=3, densify=replace(settings.densify, strategy=strategy, every=2))
    whole, pieces = (
        Trainer(replace(settings, compute=compute), CertainPrior(), device=CPU)
        for compute in (ComputeConfig(), ComputeConfig(views_at_once=1, branches_at_once=2))
    )
    for trainer in (whole, pieces):
        # The rotation of round ones would be moved by rounding alone, and with it whatever splits.
        noise = torch.randn(150, 3, generator=torch.Generator().manual_seed(8))
        gaussians_of(trainer).params["scales"].data += 0.5 * noise
        for _ in range(4):
            trainer.train_step()
    assert len(gaussians_of(whole)) == len(gaussians_of(pieces)) > 150
    assert torch.equal(whole.device_generator.get_state(), pieces.device_generator.get_state())
    assert torch.equal(whole.host_generator.get_state(), pieces.host_generator.get_state())
    for name, value in gaussians_of(whole).params.items():
        close = torch.isclose(gaussians_of(pieces).params[name], value, rtol=1e-3, atol=1e-4)
        # Adam's first steps follow the sign of a gradient, however small it is.
        assert close.double().mean() > 0.95, name
    if source != "inversion":
        assert whole.carried_noise is not None
        assert pieces.carried_noise is not None
        torch.testing.assert_close(pieces.carried_noise, whole.carried_noise, rtol=1e-2, atol=1e-2)


def test_running_out_of_memory_leaves_the_state_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = CertainPrior()
    trainer, untouched = trained(config(), 3, prior), trained(config(), 3)
    predict = prior.predict_noise

    def out_of_memory(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(prior, "predict_noise", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train_step()
    assert_equal_states(trainer, untouched)
    monkeypatch.setattr(prior, "predict_noise", predict)
    trainer.train_step()
    untouched.train_step()
    assert_equal_states(trainer, untouched)
