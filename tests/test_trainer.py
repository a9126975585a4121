"""The loop: what a step does, what it depends on, what stops it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sdi_gs.checkpoint import pack_state, unpack_state
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import DiffusionPrior, NoiseSchedule
from sdi_gs.errors import UserError
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.representations.config import DensifyConfig, GaussiansConfig
from sdi_gs.run_config import RunConfig
from sdi_gs.trainer import Trainer

CPU = torch.device("cpu")


class CertainPrior:
    """A prior that knows one image only: a colour, the same at every pixel."""

    name = "certain"
    image_size = 32

    def __init__(self, colour: tuple[float, float, float] = (0.9, 0.1, 0.1)) -> None:
        self.schedule: NoiseSchedule = scaled_linear_schedule()
        self.image = torch.tensor(colour).reshape(1, 3, 1, 1)
        self.timesteps: list[int] = []
        self.prompts: list[str] = []
        self.broken = False

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        self.prompts += prompts
        return torch.zeros(len(prompts), 1, 4)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images.permute(0, 3, 1, 2)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents.permute(0, 2, 3, 1)

    def predict_noise(self, noised_latents: Tensor, timestep: int, embeddings: Tensor) -> Tensor:
        self.timesteps.append(timestep)
        if self.broken:
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
        densify=DensifyConfig(start=0.0, stop=1.0, every=4, max_gaussians=200, min_gaussians=50, grow_grad2d=1e-9),
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
    assert len(straight.gaussians) == 200


def test_the_seed_decides_the_run() -> None:
    assert_equal_states(trained(config(), 3), trained(config(), 3))
    other = trained(config(seed=1), 3)
    assert not torch.equal(trained(config(), 3).gaussians.params["means"], other.gaussians.params["means"])


def test_global_generators_have_no_say() -> None:
    torch.manual_seed(1)
    first = trained(config(), 5)
    torch.manual_seed(2)
    assert_equal_states(first, trained(config(), 5))


def test_training_moves_the_object_towards_what_the_prior_wants() -> None:
    # The prior knows red pictures only: the grey start has to become red and to grow.
    settings = replace(config(), densify=DensifyConfig(enabled=False), backgrounds=("white",))
    trainer = Trainer(settings, CertainPrior((0.9, 0.1, 0.1)), device=CPU)
    before = trainer.gaussians.params["sh0"].detach().mean(dim=(0, 1))
    distances = [trainer.train_step().losses["distillation"] for _ in range(12)]
    moved = trainer.gaussians.params["sh0"].detach().mean(dim=(0, 1)) - before
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
        assert report.num_gaussians == len(trainer.gaussians)
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
    rate = trainer.optimizers["means"].param_groups[0]["lr"]
    assert rate == pytest.approx(config().gaussians.means_lr_final)


def test_a_value_that_is_not_finite_stops_the_run_before_it_reaches_the_parameters() -> None:
    prior = CertainPrior()
    trainer = trained(config(), 3, prior)
    before = {name: value.detach().clone() for name, value in trainer.gaussians.params.items()}
    prior.broken = True
    with pytest.raises(UserError, match=r"step 4, t = \d+: the distillation loss is nan"):
        trainer.train_step()
    assert trainer.step == 3
    for name, value in trainer.gaussians.params.items():
        assert torch.equal(value, before[name])
