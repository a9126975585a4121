"""Densification: its bounds, its schedule, its randomness."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gsplat import DefaultStrategy
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.representations.densify import Densifier
from sdi_gs.representations.gaussians import Gaussians, gaussian_optimizers
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.representations.strategies import BoundedStrategy
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.gaussians import GaussiansConfig

NUM_STEPS = 20
SIZE = 32


class Scene:
    """A cloud whose screen-space gradients are made up, so that growth can be steered."""

    def __init__(self, config: DensifyConfig, count: int = 100) -> None:
        self.config = GaussiansConfig(num_initial=count)
        self.gaussians: Gaussians = gaussian_ball(
            self.config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
        )
        self.optimizers = gaussian_optimizers(self.gaussians, self.config)
        self.densifier = Densifier(config, NUM_STEPS)
        self.generator = torch.Generator().manual_seed(3)
        self.counts: list[int] = []

    def step(self, index: int, gradients: Tensor | None = None, *, timestep_fraction: float | None = None) -> None:
        """One step in which Gaussian n has the given gradient on the screen, in gsplat's normalised units."""
        count = len(self.gaussians)
        gradients = torch.linspace(1.0, 2.0, count) if gradients is None else gradients
        corners = torch.zeros(1, count, 2, requires_grad=True)
        meta: dict[str, Any] = {
            "means2d": corners * 1.0,
            "radii": torch.ones(1, count, 2, dtype=torch.int32),
            "width": SIZE,
            "height": SIZE,
            "n_cameras": 1,
            "gaussian_ids": None,
        }
        self.densifier.before_backward(self.gaussians, self.optimizers, index, meta)
        # gsplat multiplies by half the image's width.
        (meta["means2d"][0, :, 0] * gradients / (SIZE / 2)).sum().backward()
        for name, parameter in self.gaussians.params.items():
            parameter.grad = torch.zeros_like(parameter)
            self.optimizers[name].step()
        self.densifier.after_step(
            self.gaussians, self.optimizers, index, meta, self.generator, timestep_fraction=timestep_fraction
        )
        self.counts.append(len(self.gaussians))

    def run(self, steps: int = NUM_STEPS) -> Scene:
        for index in range(steps):
            self.step(index)
        return self

    @property
    def opacities(self) -> Tensor:
        return torch.sigmoid(self.gaussians.params["opacities"].detach())

    def set_opacities(self, opacities: Tensor) -> None:
        with torch.no_grad():
            self.gaussians.params["opacities"].copy_(torch.logit(opacities))


def config(**changes: Any) -> DensifyConfig:
    """Growth by threshold, anything that moves, in every other step."""
    base = {
        "strategy": "threshold",
        "start": 0.0,
        "stop": 1.0,
        "every": 2,
        "min_gaussians": 1,
        "prune_opacity": 1e-3,
        "prune_scale3d": 10.0,
    }
    return DensifyConfig(**(base | changes))


def test_growth_reaches_the_cap_and_never_passes_it() -> None:
    scene = Scene(config(max_gaussians=250)).run()
    assert max(scene.counts) == 250
    assert scene.counts[-1] == 250
    assert sorted(set(scene.counts)) == sorted({100, 200, 250} & set(scene.counts))


def test_under_the_cap_those_with_the_largest_gradient_grow() -> None:
    scene = Scene(config(max_gaussians=105, grow_scale3d=10.0))
    gradients = torch.rand(100, generator=torch.Generator().manual_seed(1)) + 1.0
    before = scene.gaussians.params["means"].detach().clone()
    for index in range(3):
        scene.step(index, gradients)
    assert len(scene.gaussians) == 105
    # Small ones are cloned in place, so every newcomer stands where its parent does.
    parents = torch.cdist(scene.gaussians.params["means"].detach()[100:], before).argmin(dim=1)
    assert set(parents.tolist()) == set(gradients.topk(5).indices.tolist())


def test_below_the_threshold_nothing_grows() -> None:
    scene = Scene(config(grow_grad2d=2.0)).run()
    assert set(scene.counts) == {100}


def test_pruning_stops_at_the_floor_and_keeps_the_most_opaque() -> None:
    scene = Scene(config(min_gaussians=30, prune_opacity=0.5, grow_grad2d=2.0))
    opacities = torch.linspace(0.01, 0.4, 100)
    scene.set_opacities(opacities)
    scene.run(4)
    assert len(scene.gaussians) == 30
    torch.testing.assert_close(scene.opacities.sort().values, opacities[-30:], rtol=0.0, atol=1e-6)


def test_the_transparent_and_the_huge_are_removed() -> None:
    scene = Scene(config(prune_opacity=0.05, prune_scale3d=0.3, grow_grad2d=2.0))
    opacities = torch.full((100,), 0.5)
    opacities[:7] = 0.01
    scene.set_opacities(opacities)
    with torch.no_grad():
        scene.gaussians.params["scales"][7:10] = math.log(0.5)
    scene.run(4)
    assert len(scene.gaussians) == 90
    assert scene.opacities.min() > 0.05


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_opacities_are_reset_once_at_their_share_of_the_run(share: float) -> None:
    scene = Scene(config(reset_opacity_at=share, prune_opacity=0.02, grow_grad2d=2.0))
    scene.set_opacities(torch.full((100,), 0.9))
    maxima = []
    for index in range(NUM_STEPS):
        scene.step(index)
        maxima.append(scene.opacities.max().item())
    reset = int(share * NUM_STEPS)
    assert maxima[:reset] == pytest.approx([0.9] * reset)
    assert maxima[reset:] == pytest.approx([0.04] * (NUM_STEPS - reset))


def test_without_a_reset_opacities_stay() -> None:
    # gsplat has a reset of its own, which is not to come on top.
    scene = Scene(config(grow_grad2d=2.0))
    scene.set_opacities(torch.full((100,), 0.9))
    scene.run()
    assert scene.opacities.min().item() == pytest.approx(0.9)


def test_the_reset_forgets_the_momentum_of_opacities_only() -> None:
    scene = Scene(config(reset_opacity_at=0.5, grow_grad2d=2.0))
    moments = {name: opt.state for name, opt in scene.optimizers.items()}
    for index in range(NUM_STEPS // 2):
        scene.step(index)
    for optimizer in moments.values():
        for state in optimizer.values():
            state["exp_avg"].fill_(1.0)
    scene.step(NUM_STEPS // 2)
    [opacities] = scene.optimizers["opacities"].state.values()
    [means] = scene.optimizers["means"].state.values()
    assert opacities["exp_avg"].abs().max() == 0.0
    assert means["exp_avg"].min() > 0.5


def test_refinement_happens_between_start_and_stop_only() -> None:
    scene = Scene(config(start=0.3, stop=0.6, every=1, max_gaussians=10_000)).run()
    changed = [index for index in range(1, NUM_STEPS) if scene.counts[index] != scene.counts[index - 1]]
    assert changed
    assert min(changed) > 0.3 * NUM_STEPS
    assert max(changed) < 0.6 * NUM_STEPS


def test_switched_off_it_changes_nothing_and_draws_nothing() -> None:
    scene = Scene(config(enabled=False, prune_opacity=0.5))
    before = scene.generator.get_state()
    # Without densification nobody asks for the gradient of the screen-space means.
    for index in range(4):
        scene.densifier.before_backward(scene.gaussians, scene.optimizers, index, {})
        scene.densifier.after_step(scene.gaussians, scene.optimizers, index, {}, scene.generator)
    assert len(scene.gaussians) == 100
    assert torch.equal(scene.generator.get_state(), before)


def test_optimisers_follow_the_gaussians() -> None:
    scene = Scene(config(max_gaussians=250)).run(5)
    assert len(scene.gaussians) > 100
    for name, optimizer in scene.optimizers.items():
        [parameter] = optimizer.param_groups[0]["params"]
        assert parameter is scene.gaussians.params[name]
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_the_given_generator_decides_and_the_global_one_is_left_alone() -> None:
    # Large Gaussians are split, which draws where the halves go.
    split = config(max_gaussians=250, grow_scale3d=1e-4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Scene(split).run(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = Scene(split).run(5)
    assert len(first.gaussians) == 250
    assert torch.equal(first.gaussians.params["means"], again.gaussians.params["means"])
    other = Scene(split)
    other.generator.manual_seed(4)
    other.run(5)
    assert not torch.equal(first.gaussians.params["means"], other.gaussians.params["means"])


def share(**changes: Any) -> DensifyConfig:
    return replace(config(strategy="share", grow_share=0.1, grow_scale3d=10.0, max_gaussians=10_000), **changes)


def parents_of_newcomers(scene: Scene, before: Tensor) -> set[int]:
    """Who was cloned: small Gaussians are, in place."""
    return set(torch.cdist(scene.gaussians.params["means"].detach()[len(before) :], before).argmin(dim=1).tolist())


def test_a_share_of_the_largest_gradients_grows() -> None:
    scene = Scene(share())
    gradients = torch.rand(100, generator=torch.Generator().manual_seed(1))
    before = scene.gaussians.params["means"].detach().clone()
    for index in range(3):
        scene.step(index, gradients)
    assert parents_of_newcomers(scene, before) == set(gradients.topk(10).indices.tolist())


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1.0, 1e3, 1e9])
def test_the_unit_of_the_gradients_is_nothing_to_a_share(unit: float) -> None:
    scenes = [Scene(share()) for _ in range(2)]
    for scene, factor in zip(scenes, (1.0, unit), strict=True):
        for index in range(7):
            gradients = torch.rand(len(scene.gaussians), generator=torch.Generator().manual_seed(index))
            scene.step(index, factor * gradients)
    assert scenes[0].counts == scenes[1].counts
    assert scenes[0].counts[-1] > 130
    assert torch.equal(scenes[0].gaussians.params["means"], scenes[1].gaussians.params["means"])


@pytest.mark.parametrize(("unit", "count"), [(1e-3, 100), (1.0, 150), (1e3, 200)])
def test_the_unit_of_the_gradients_is_everything_to_a_threshold(unit: float, count: int) -> None:
    scene = Scene(config(grow_grad2d=0.5, grow_scale3d=10.0))
    gradients = torch.linspace(0.005, 0.995, 100)
    for index in range(3):
        scene.step(index, unit * gradients)
    assert len(scene.gaussians) == count


def test_what_was_never_seen_to_move_does_not_grow() -> None:
    scene = Scene(share(grow_share=0.5))
    gradients = torch.zeros(100)
    gradients[:7] = torch.linspace(1e-6, 1e-3, 7)
    before = scene.gaussians.params["means"].detach().clone()
    for index in range(3):
        scene.step(index, gradients)
    assert parents_of_newcomers(scene, before) == set(range(7))


def test_a_share_of_nothing_only_prunes() -> None:
    scene = Scene(share(grow_share=0.0, prune_opacity=0.05))
    scene.set_opacities(torch.linspace(0.001, 0.9, 100))
    scene.run(5)
    assert set(scene.counts[3:]) == {int((torch.linspace(0.001, 0.9, 100) > 0.05).sum())}


def test_growth_by_share_stops_at_the_cap() -> None:
    scene = Scene(share(max_gaussians=133)).run()
    assert scene.counts[-1] == max(scene.counts) == 133


def test_pruning_goes_on_after_growth_where_asked() -> None:
    still = {"stop": 0.3, "every": 1, "prune_opacity": 0.05}
    for prune_stop, expected in ((None, 100), (0.9, 90)):
        scene = Scene(share(prune_stop=prune_stop, grow_share=0.0, **still))
        scene.set_opacities(torch.full((100,), 0.5))
        for index in range(NUM_STEPS):
            if index == NUM_STEPS // 2:
                scene.set_opacities(torch.where(torch.arange(100) < 10, 0.01, 0.5))
            scene.step(index)
        assert len(scene.gaussians) == expected
    grown = Scene(share(prune_stop=1.0, stop=0.3, every=1)).run()
    assert grown.counts[6] == grown.counts[-1] > 100


def test_floaters_are_removed_where_asked() -> None:
    for component, expected in ((None, 100), (0.1, 96)):
        scene = Scene(share(prune_component=component, grow_share=0.0))
        scene.set_opacities(torch.full((100,), 0.9))
        with torch.no_grad():
            scene.gaussians.params["means"][:4] = torch.tensor([0.0, 0.0, 4.0])
        scene.run(4)
        assert len(scene.gaussians) == expected


def test_the_size_prune_can_be_switched_off() -> None:
    for limit, expected in ((0.3, 97), (None, 100)):
        scene = Scene(share(prune_scale3d=limit, grow_share=0.0))
        with torch.no_grad():
            scene.gaussians.params["scales"][:3] = math.log(0.5)
        scene.run(4)
        assert len(scene.gaussians) == expected


def test_a_cloud_that_is_doomed_to_the_last_keeps_its_floor() -> None:
    for strategy in ("share", "threshold", "mcmc"):
        scene = Scene(config(strategy=strategy, min_gaussians=20, prune_opacity=0.5, grow_share=0.0, grow_grad2d=1e9))
        with torch.no_grad():
            scene.gaussians.params["opacities"].fill_(-200.0)
        scene.run()
        assert len(scene.gaussians) >= 20
        assert all(value.isfinite().all() for value in scene.gaussians.params.values())


def test_no_reset_happens_once_the_noise_is_low() -> None:
    late = config(reset_opacity_at=0.5, prune_opacity=0.02, grow_grad2d=2.0, reset_min_timestep=0.5)
    for fraction, expected in ((0.5, 0.04), (None, 0.04)):
        scene = Scene(late)
        scene.set_opacities(torch.full((100,), 0.9))
        for index in range(NUM_STEPS):
            scene.step(index, timestep_fraction=fraction)
        assert scene.opacities.max().item() == pytest.approx(expected)
    scene = Scene(late)
    scene.set_opacities(torch.full((100,), 0.9))
    for index in range(NUM_STEPS // 2):
        scene.step(index, timestep_fraction=0.4)
    with pytest.warns(UserWarning, match=r"reset at step 11 is left out: t = 0.40 is below .* 0.50"):
        scene.step(NUM_STEPS // 2, timestep_fraction=0.4)
    assert scene.opacities.max().item() == pytest.approx(0.9)


def mcmc(**changes: Any) -> DensifyConfig:
    return replace(config(strategy="mcmc", max_gaussians=120), **changes)


def test_mcmc_adds_five_percent_up_to_the_cap() -> None:
    scene = Scene(mcmc()).run()
    counts = list(dict.fromkeys(scene.counts))
    assert counts == [100, 105, 110, 115, 120]


def test_mcmc_moves_the_dead_to_the_opaque_and_removes_nobody() -> None:
    scene = Scene(mcmc(max_gaussians=100, prune_opacity=0.05, mcmc_noise_lr=0.0))
    before = scene.gaussians.params["means"].detach().clone()
    opacities = torch.full((100,), 0.5)
    opacities[:30] = 0.01
    scene.set_opacities(opacities)
    for index in range(3):
        scene.step(index)
    means = scene.gaussians.params["means"].detach()
    assert len(means) == 100
    assert torch.equal(means[30:], before[30:])
    homes = torch.cdist(means[:30], before).min(dim=1)
    assert homes.values.max() == 0.0
    assert homes.indices.min() >= 30
    # Those who share a place have become fainter, together as opaque as the one before.
    sharers = torch.bincount(homes.indices, minlength=100) + 1
    together = 1.0 - (1.0 - scene.opacities) ** sharers
    torch.testing.assert_close(together[30:], torch.full((70,), 0.5))
    assert scene.opacities.min() > 0.05


def test_mcmc_moves_the_huge_and_the_floaters_too() -> None:
    scene = Scene(mcmc(max_gaussians=100, prune_scale3d=0.3, prune_component=0.1, mcmc_noise_lr=0.0))
    scene.set_opacities(torch.full((100,), 0.9))
    with torch.no_grad():
        scene.gaussians.params["scales"][:3] = math.log(0.5)
        scene.gaussians.params["means"][3:6] = torch.tensor([0.0, 0.0, 4.0])
    scene.run(3)
    assert scene.gaussians.params["scales"].max() < math.log(0.3)
    assert scene.gaussians.params["means"][:, 2].max() < 1.0
    assert len(scene.gaussians) == 100


def test_mcmc_shakes_the_faint_and_leaves_the_opaque() -> None:
    scene = Scene(mcmc(start=1.0, mcmc_noise_lr=100.0))
    scene.set_opacities(torch.where(torch.arange(100) < 50, 0.001, 0.9))
    before = scene.gaussians.params["means"].detach().clone()
    scene.step(0)
    moved = (scene.gaussians.params["means"].detach() - before).norm(dim=-1)
    width = scene.gaussians.params["scales"].exp().mean().item()
    rate = scene.optimizers["means"].param_groups[0]["lr"]
    # Noise is isotropic here: its deviation is lr * noise * width^2, times the switch at opacity 0.005.
    switch = 1.0 / (1.0 + math.exp(-100.0 * (0.999 - 0.995)))
    expected = rate * 100.0 * width**2 * switch * math.sqrt(3.0)
    assert moved[:50].square().mean().sqrt().item() == pytest.approx(expected, rel=0.25)
    assert moved[50:].max() < 1e-12


def test_mcmc_draws_from_the_given_generator_only() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Scene(mcmc()).run(9)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = Scene(mcmc()).run(9)
    assert torch.equal(first.gaussians.params["means"], again.gaussians.params["means"])
    other = Scene(mcmc())
    other.generator.manual_seed(4)
    assert not torch.equal(first.gaussians.params["means"], other.run(9).gaussians.params["means"])


def test_optimisers_follow_mcmc() -> None:
    scene = Scene(mcmc()).run(5)
    for name, optimizer in scene.optimizers.items():
        [parameter] = optimizer.param_groups[0]["params"]
        assert parameter is scene.gaussians.params[name]
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_a_start_over_the_cap_is_refused() -> None:
    scene = Scene(config(max_gaussians=99))
    with pytest.raises(UserError, match=r"starts with 100 Gaussians, more than densify\.max-gaussians 99"):
        scene.densifier.require_room(scene.gaussians)
    Scene(config(max_gaussians=100)).densifier.require_room(scene.gaussians)
    Scene(config(max_gaussians=99, enabled=False)).densifier.require_room(scene.gaussians)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": "magic"}, "strategy must be one of share, threshold, mcmc, got 'magic'"),
        ({"stop": 0.5, "prune_stop": 0.4}, "prune_stop must be at least stop, got 0.4 and 0.5"),
        ({"grow_share": 1.5}, "grow_share must be 0 to 1, got 1.5"),
        ({"prune_component": math.nan}, "prune_component must be 0 to 1, got nan"),
        ({"prune_scale3d": 0.0}, "prune_scale3d must be above 0 and at most 1000000, got 0.0"),
        ({"mcmc_noise_lr": -1.0}, "mcmc_noise_lr must be 0 to 1000000000, got -1.0"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DensifyConfig(**changes)


def test_gradients_are_added_up_as_gsplat_does_without_asking_which_are_visible() -> None:
    draws = torch.Generator().manual_seed(0)
    ours, theirs = BoundedStrategy(), DefaultStrategy()
    states = [strategy.initialize_state() for strategy in (ours, theirs)]
    params = torch.nn.ParameterDict({"means": torch.zeros(200, 3)})
    for _ in range(3):
        means2d = torch.zeros(4, 200, 2, requires_grad=True)
        means2d.grad = torch.randn(4, 200, 2, generator=draws)
        radii = torch.randint(0, 3, (4, 200, 2), generator=draws, dtype=torch.int32)
        meta = {"means2d": means2d, "radii": radii, "width": 48, "height": 32, "n_cameras": 4, "gaussian_ids": None}
        for strategy, state in zip((ours, theirs), states, strict=True):
            strategy._update_state(params, state, meta)
    for name in ("grad2d", "count"):
        assert torch.equal(states[0][name], states[1][name]), name
    assert 0 < states[0]["count"].min() < states[0]["count"].max() < 12


@pytest.mark.parametrize(("stop", "resets"), [(1.0, (4, 9, 14)), (0.6, (4, 9))])
def test_opacities_are_reset_again_and_again_while_the_cloud_grows(stop: float, resets: tuple[int, ...]) -> None:
    scene = Scene(config(reset_opacity_every=5, stop=stop, prune_opacity=0.02, grow_grad2d=2.0))
    found = []
    for index in range(NUM_STEPS):
        scene.set_opacities(torch.full((len(scene.gaussians),), 0.9))
        scene.step(index)
        if scene.opacities.max().item() == pytest.approx(0.04):
            found.append(index)
    assert tuple(found) == resets


def test_resets_at_intervals_end_where_the_noise_is_low() -> None:
    scene = Scene(config(reset_opacity_every=5, prune_opacity=0.02, grow_grad2d=2.0, reset_min_timestep=0.5))
    scene.set_opacities(torch.full((100,), 0.9))
    for index in range(NUM_STEPS):
        scene.step(index, timestep_fraction=0.4)
    assert scene.opacities.max().item() == pytest.approx(0.9)
