"""Target replay: when targets are computed, which are kept, and what a resumed run needs of them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.runs.checkpoint import pack_state, unpack_state
from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.replay import ReplayBuffer, TargetViews
from sdi_gs.training.trainer import Trainer

SMALL = {
    "ideal_prior.renders_per_view": 8,
    "ideal_prior.unconditional_renders": 16,
    "gaussians.num_initial": 150,
    "densify.enabled": True,
    "densify.every": 3,
    "densify.start": 0.0,
    "ngp.grid.num_levels": 2,
    "ngp.grid.initial_levels": 2,
    "ngp.samples_per_ray": 16,
    "replay.steps_per_target": 4,
    "replay.views": 6,
}


def config(values: dict[str, Any] | None = None, **settings: Any) -> RunConfig:
    return preset("smoke", SMALL | (values or {}), prompt="a blue robot", steps=18, **settings)


class CountingPrior(IdealPrior):
    """The ideal prior, counting what is asked of it."""

    def __init__(self, settings: RunConfig) -> None:
        super().__init__(settings.ideal_prior)
        self.encoded: list[bool] = []
        self.decoded = 0
        self.broken = False

    def encode_images(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        latents = super().encode_images(images, generator)
        self.encoded.append(latents.requires_grad)
        return latents

    def decode_latents(self, latents: Tensor) -> Tensor:
        self.decoded += 1
        pictures = super().decode_latents(latents)
        return pictures * torch.nan if self.broken else pictures


def trainer_of(settings: RunConfig) -> tuple[Trainer, CountingPrior]:
    prior = CountingPrior(settings)
    return Trainer(settings, prior), prior


def trainer_of_saved(settings: RunConfig, state: dict[str, Any]) -> Trainer:
    return Trainer(settings, CountingPrior(settings), saved=state)


def assert_equal_states(left: Trainer, right: Trainer) -> None:
    (tensors, rest), (others, other_rest) = pack_state(left.state()), pack_state(right.state())
    assert rest == other_rest
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert torch.equal(value, others[name]), name


def views(number: int, count: int) -> TargetViews:
    """Views all of whose values are ``number``, but for the azimuths, which tell them apart."""
    azimuth = 10.0 * number + torch.arange(count, dtype=torch.float32)
    rest = torch.zeros(count)
    return TargetViews(
        cameras=orbit_cameras(azimuth, rest, rest + 3.0, rest + 40.0, width=8, height=8),
        background=torch.full((count, 3), float(number)),
        target=torch.full((count, 1, 2, 2), float(number)),
        pictures=torch.full((count, 8, 8, 3), float(number)),
    )


@pytest.mark.parametrize("space", ["latents", "pixels"])
def test_only_the_first_step_of_a_round_costs_calls(space: str) -> None:
    trainer, prior = trainer_of(config({"losses.space": space, "guidance.random_fraction": 1.0}))
    reports = [trainer.train_step() for _ in range(9)]
    assert [report.predictor_calls for report in reports] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert [report.num_rounds for report in reports] == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    # t of a round is the one that its first step would have without replay, and holds for all of its steps.
    assert [report.timestep for report in reports] == [reports[4 * (n // 4)].timestep for n in range(9)]
    if space == "latents":
        assert prior.encoded == [True] * 9
        assert prior.decoded == 0
    else:
        # Once per round, and never for a gradient.
        assert prior.encoded == [False] * 3
        assert prior.decoded == 3


def test_one_step_a_target_keeps_nothing() -> None:
    trainer, _ = trainer_of(config({"replay.steps_per_target": 1}))
    trainer.train_step()
    assert len(trainer.replay) == 0
    assert "replay" not in trainer.state()


def test_a_replayed_step_draws_from_the_latest_targets() -> None:
    buffer = ReplayBuffer(6)
    for number in range(4):
        buffer.push(views(number, 2))
    assert len(buffer) == 6
    generator = torch.Generator().manual_seed(0)
    seen = [buffer.draw(3, generator) for _ in range(60)]
    for drawn in seen:
        assert len(set(drawn.cameras.azimuth_deg.tolist())) == 3
        # Camera, background, target and picture of a view stay together.
        numbers = torch.div(drawn.cameras.azimuth_deg, 10.0, rounding_mode="floor")
        assert drawn.pictures is not None
        for values in (drawn.background, drawn.target, drawn.pictures):
            assert torch.equal(values.flatten(1).mean(dim=1), numbers)
    drawn = {azimuth for draw in seen for azimuth in draw.cameras.azimuth_deg.tolist()}
    assert drawn == {10.0, 11.0, 20.0, 21.0, 30.0, 31.0}


@pytest.mark.parametrize(("max_views", "kept"), [(None, 3), (1, 3), (5, 3), (6, 6), (100, 12)])
def test_the_latest_round_is_kept_however_few_views_are(max_views: int | None, kept: int) -> None:
    buffer = ReplayBuffer(max_views)
    for number in range(4):
        buffer.push(views(number, 3))
    assert len(buffer) == kept
    assert len(buffer.draw(50, torch.Generator().manual_seed(0))) == kept


@pytest.mark.parametrize("source", NOISE_SOURCES)
def test_every_noise_source_replays(source: NoiseName) -> None:
    trainer, _ = trainer_of(config({"guidance.noise": source, "guidance.random_fraction": 0.0}))
    losses = [trainer.train_step().losses["distillation"] for _ in range(12)]
    assert losses[3] < losses[0]


@pytest.mark.parametrize("representation", ["gaussians", "ngp"])
@pytest.mark.parametrize("space", ["latents", "pixels"])
@pytest.mark.parametrize("step", [5, 8])
def test_a_resumed_run_ends_as_an_unbroken_one(representation: str, space: str, step: int) -> None:
    settings = config({"representation": representation, "losses.space": space})
    whole, _ = trainer_of(settings)
    broken, _ = trainer_of(settings)
    for _ in range(step):
        broken.train_step()
    tensors, packed = pack_state(broken.state())
    saved = unpack_state({name: value.clone() for name, value in tensors.items()}, packed)
    resumed = Trainer(settings, CountingPrior(settings), saved=saved)
    assert_equal_states(resumed, broken)
    for _ in range(11):
        whole.train_step()
    for _ in range(11 - step):
        resumed.train_step()
    assert_equal_states(resumed, whole)


def test_the_same_target_in_both_spaces() -> None:
    """The target does not depend on where the loss is measured."""
    targets = []
    for space in ("latents", "pixels"):
        trainer, _ = trainer_of(config({"losses.space": space}))
        trainer.train_step()
        assert trainer.last_views is not None
        targets.append(trainer.last_views.target)
    assert torch.equal(*targets)


def test_the_loss_in_pixels_is_that_of_the_decoded_target() -> None:
    trainer, prior = trainer_of(config({"losses.space": "pixels"}))
    report = trainer.train_step()
    shown = trainer.last_views
    assert shown is not None
    expected = 0.5 * (shown.rgb - prior.decode_latents(shown.target)).double().square().mean().item()
    assert report.losses["distillation"] == pytest.approx(expected, rel=1e-6)


def test_a_round_that_fails_leaves_no_target_behind() -> None:
    settings = config({"losses.space": "pixels"})
    trainer, prior = trainer_of(settings)
    untouched, _ = trainer_of(settings)
    for _ in range(4):
        trainer.train_step()
        untouched.train_step()
    prior.broken = True
    with pytest.raises(NonFiniteError, match="step 5, t = .*: non-finite target's pictures"):
        trainer.train_step()
    assert_equal_states(trainer, untouched)
    prior.broken = False
    trainer.train_step()
    untouched.train_step()
    assert_equal_states(trainer, untouched)


@pytest.mark.parametrize("space", ["latents", "pixels"])
def test_a_replayed_step_that_fails_leaves_everything_as_it_was(space: str) -> None:
    settings = config({"losses.space": space})
    trainer, prior = trainer_of(settings)
    untouched, _ = trainer_of(settings)
    for _ in range(6):
        trainer.train_step()
        untouched.train_step()
    shown, render = trainer.last_views, trainer.scene.render

    def broken(*arguments: Any, **options: Any) -> Any:
        output = render(*arguments, **options)
        return replace(output, rgb=output.rgb * torch.nan)

    trainer.scene.render = broken  # pyright: ignore[reportAttributeAccessIssue]
    # Step 7 is replayed; in pixels no latents are computed of which the line could tell.
    named = "latents" if space == "latents" else "distillation loss"
    with pytest.raises(NonFiniteError, match=f"step 7, t = {trainer.round_timestep}: non-finite {named}"):
        trainer.train_step()
    assert_equal_states(trainer, untouched)
    assert trainer.last_views is shown
    trainer.scene.render = render
    for _ in range(3):
        assert trainer.train_step().losses == untouched.train_step().losses
    assert_equal_states(trainer, untouched)
    assert prior.decoded == (0 if space == "latents" else 3)


def test_the_latest_views_are_those_that_the_targets_are_of() -> None:
    trainer, _ = trainer_of(config({"losses.space": "pixels"}))
    trainer.train_step()
    first = trainer.last_views
    assert first is not None
    assert first.pictures is not None
    assert torch.equal(first.pictures, trainer.prior.decode_latents(first.target))
    for _ in range(3):
        trainer.train_step()
        assert trainer.last_views is first
    trainer.train_step()
    assert trainer.last_views is not first


def test_another_prompt_drops_the_targets_of_the_old_one() -> None:
    trainer, _ = trainer_of(config({"replay.views": 40}))
    for _ in range(9):
        trainer.train_step()
    views = trainer.config.views_per_step
    assert len(trainer.replay) == 3 * views
    trainer.change_settings(replace(trainer.config, learning_rate_scale=0.5))
    assert len(trainer.replay) == 3 * views
    latest = trainer.replay.state()[-1]["target"]
    trainer.change_settings(replace(trainer.config, prompt="a red car"))
    assert len(trainer.replay) == views
    assert torch.equal(trainer.replay.state()[0]["target"], latest)


def test_a_trainer_that_is_moved_into_a_round_begins_with_new_targets() -> None:
    trainer, _ = trainer_of(config())
    trainer.step = 9
    assert [trainer.train_step().predictor_calls > 0 for _ in range(4)] == [True, False, False, True]


@pytest.mark.parametrize("damage", ["without", "empty"])
def test_a_state_without_its_kept_targets_is_refused_in_one_line(damage: str) -> None:
    settings = config()
    trainer, _ = trainer_of(settings)
    for _ in range(4):
        trainer.train_step()
    state = trainer.state()
    if damage == "without":
        del state["replay"]
    else:
        state["replay"] = state["replay"] | {"rounds": []}
    with pytest.raises(UserError, match="state after step 4 has no kept targets, which .* 4 needs: go on") as refused:
        trainer_of_saved(settings, state)
    assert "\n" not in str(refused.value)


def test_a_state_from_before_replay_goes_on() -> None:
    settings = config({"replay.steps_per_target": 1})
    trainer, _ = trainer_of(settings)
    trainer.train_step()
    state = deepcopy(trainer.state())
    assert "replay" not in state
    resumed = trainer_of_saved(settings, state)
    assert resumed.train_step().losses == trainer.train_step().losses


def test_growth_hears_of_replayed_steps() -> None:
    """Statistics of growth count every step, and the diffusion timestep is the round's."""
    trainer, _ = trainer_of(config({"densify.every": 1000}))
    heard: list[float] = []
    update = trainer.scene.update

    def listening(*arguments: Any, **options: Any) -> None:
        heard.append(options["timestep_fraction"])
        update(*arguments, **options)

    trainer.scene.update = listening  # pyright: ignore[reportAttributeAccessIssue]
    timesteps = [trainer.train_step().timestep for _ in range(8)]
    assert heard == [timestep / trainer.prior.schedule.num_timesteps for timestep in timesteps]
    assert heard[:4] == [heard[0]] * 4


def test_views_per_step_may_change_between_rounds() -> None:
    trainer, _ = trainer_of(config({"replay.views": 40}))
    for count in (2, 3, 1):
        trainer.change_settings(replace(trainer.config, views_per_step=count))
        for _ in range(4):
            trainer.train_step()
    assert len(trainer.replay) == 6


def test_pixels_need_a_prior_that_decodes() -> None:
    class Blind(IdealPrior):
        decode_latents = None  # pyright: ignore[reportAssignmentType]

    settings = config({"losses.space": "pixels"})
    with pytest.raises(UserError, match="losses.space pixels needs decoded targets, and toybox-ideal has no decode_la"):
        Trainer(settings, Blind(settings.ideal_prior))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ngp.shading.enabled": True}, "replay.steps_per_target must be 1 with ngp.shading.enabled"),
        ({"ngp.background": "random"}, "replay.steps_per_target must be 1 with ngp.background random"),
        ({"replay.views": 0}, "views"),
        ({"replay.steps_per_target": 0}, "steps_per_target"),
        ({"losses.space": "voxels"}, "space"),
    ],
)
def test_settings_that_do_not_go_with_replay(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        config({"representation": "ngp"} | values)


def test_joined_cameras_share_a_size() -> None:
    from sdi_gs.cameras import joined_cameras

    one = views(0, 2).cameras
    both: CameraBatch = joined_cameras([one, views(1, 1).cameras])
    assert both.azimuth_deg.tolist() == [0.0, 1.0, 10.0]
    assert torch.equal(both.world_from_camera[2], views(1, 1).cameras.world_from_camera[0])
    with pytest.raises(ValueError, match="share an image size"):
        joined_cameras([one, replace(one, width=9)])
