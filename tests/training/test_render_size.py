"""Training renders smaller than the prior's pictures, and their schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, camera_rays, orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.runs.checkpoint import pack_state
from sdi_gs.settings.render_size import RenderConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer
from sdi_gs.training.views import resized

CPU = torch.device("cpu")
SCHEDULE = RenderConfig(sizes=(16, 24, 32), milestones=(0.25, 0.5))


class RedPrior:
    """Wants pictures of 32 pixels to be red; records the sizes of those that it is given."""

    name = "red"
    image_size = 32
    knows_cameras = False
    schedule = scaled_linear_schedule()

    def __init__(self) -> None:
        self.sides: list[int] = []

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 4)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        self.sides.append(images.shape[1])
        return images.permute(0, 3, 1, 2)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents.permute(0, 2, 3, 1)

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        level = self.schedule.alpha_cumprod(timestep)
        red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        return (noised_latents - level**0.5 * red) / (1.0 - level) ** 0.5


def config(**changes: Any) -> RunConfig:
    base = preset("smoke", prompt="a blue robot", steps=8)
    return replace(base, gaussians=replace(base.gaussians, num_initial=100), render=SCHEDULE, **changes)


def rendered_sides(trainer: Trainer, steps: int) -> list[int]:
    """Take steps, and return the side of each one's renders."""
    sides, render = [], trainer.scene.render

    def recorded(cameras: CameraBatch, *arguments: Any, **named: Any) -> Any:
        seen = render(cameras, *arguments, **named)
        assert seen.rgb.shape[1:3] == (cameras.height, cameras.width)
        sides.append(cameras.width)
        return seen

    trainer.scene.render = recorded
    for _ in range(steps):
        trainer.train_step()
    return sides


@pytest.mark.parametrize("representation", ["gaussians", "ngp"])
def test_renders_grow_by_the_schedule_and_the_prior_sees_its_own_size(representation: Any) -> None:
    prior = RedPrior()
    trainer = Trainer(config(representation=representation), prior, device=CPU)
    assert rendered_sides(trainer, 8) == [16, 16, 24, 24, 32, 32, 32, 32]
    assert set(prior.sides) == {32}
    assert trainer.last_views is not None
    assert trainer.last_views.rgb.shape[1:3] == (32, 32)
    assert trainer.last_views.cameras.width == 32


@pytest.mark.parametrize("space", ["latents", "pixels"])
def test_kept_targets_of_several_sizes_are_rendered_at_the_size_of_the_step(space: Any) -> None:
    settings = config()
    settings = replace(
        settings,
        replay=replace(settings.replay, steps_per_target=2, views=6),
        losses=replace(settings.losses, space=space),
    )
    trainer = Trainer(settings, RedPrior(), device=CPU)
    assert rendered_sides(trainer, 8) == [16, 16, 24, 24, 32, 32, 32, 32]


def test_a_run_resumed_across_a_milestone_ends_with_the_same_bits() -> None:
    whole = Trainer(config(), RedPrior(), device=CPU)
    stopped = Trainer(config(), RedPrior(), device=CPU)
    for _ in range(8):
        whole.train_step()
    for _ in range(3):
        stopped.train_step()
    resumed = Trainer(config(), RedPrior(), device=CPU, saved=stopped.state())
    for _ in range(5):
        resumed.train_step()
    (tensors, rest), (others, other_rest) = pack_state(whole.state()), pack_state(resumed.state())
    assert rest == other_rest
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())


def test_a_view_of_another_size_is_the_same_view() -> None:
    one = torch.ones(1)
    small, large = (
        orbit_cameras(30.0 * one, 20.0 * one, 3.0 * one, 40.0 * one, width=side, height=side) for side in (16, 64)
    )
    torch.testing.assert_close(small.of_size(64).intrinsics, large.intrinsics)
    corners = [camera_rays(cameras).directions[0] for cameras in (small.of_size(64), large)]
    torch.testing.assert_close(*corners)
    assert large.of_size(64) is large


def test_a_ramp_stays_a_ramp_and_gradients_pass() -> None:
    ramp = torch.linspace(0.0, 1.0, 16)[None, None, :, None].expand(1, 16, 16, 3).clone().requires_grad_()
    large = resized(ramp, 64)
    # Pixel centres of the large picture in pixels of the small one, whose ends are held.
    places = ((torch.arange(64) + 0.5) / 4.0 - 0.5).clamp(0.0, 15.0)
    torch.testing.assert_close(large[0, 5, :, 0], places / 15.0)
    large.sum().backward()
    assert ramp.grad is not None
    # Every large pixel's weights add up to one.
    assert ramp.grad.sum().item() == pytest.approx(64 * 64 * 3, rel=1e-5)
    assert resized(ramp, 16) is ramp
    # Stripes of a pixel average out where pictures shrink.
    stripes = (torch.arange(32) % 2).float()[None, None, :, None].expand(1, 32, 32, 3)
    assert (resized(stripes, 8)[:, 2:-2, 2:-2] - 0.5).abs().max().item() < 0.05


def test_shares_of_the_run_add_up() -> None:
    assert SCHEDULE.shares(512) == [(16, 0.25), (24, 0.25), (32, 0.5)]
    assert RenderConfig().shares(512) == [(512, 1.0)]
    assert (SCHEDULE.largest(512), RenderConfig().largest(512)) == (32, 512)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"sizes": (64, 128)}, "milestones must be one fewer than sizes, 1 for 2 sizes, got 0"),
        ({"milestones": (0.5,)}, "milestones must be one fewer than sizes, 0 for 0 sizes, got 1"),
        ({"sizes": (64, 128, 256), "milestones": (0.5, 0.2)}, "milestones must not decrease, got 0.5 0.2"),
        ({"sizes": (8,)}, "sizes must be 16 to 2048, got 8"),
        ({"sizes": (64, 32), "milestones": (1.5,)}, "milestones must be 0 to 1, got 1.5"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RenderConfig(**wrong)
    with pytest.raises(UserError, match=named):
        preset("smoke", {f"render.{name}": list(value) for name, value in wrong.items()}, prompt="a blue robot")
