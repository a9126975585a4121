"""Densification: its bounds, its schedule, its randomness."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sdi_gs.representations.config import DensifyConfig, GaussiansConfig
from sdi_gs.representations.densify import Densifier
from sdi_gs.representations.gaussians import Gaussians, gaussian_ball, gaussian_optimizers

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

    def step(self, index: int, gradients: torch.Tensor | None = None) -> None:
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
        self.densifier.after_step(self.gaussians, self.optimizers, index, meta, self.generator)
        self.counts.append(len(self.gaussians))

    def run(self, steps: int = NUM_STEPS) -> Scene:
        for index in range(steps):
            self.step(index)
        return self

    @property
    def opacities(self) -> torch.Tensor:
        return torch.sigmoid(self.gaussians.params["opacities"].detach())

    def set_opacities(self, opacities: torch.Tensor) -> None:
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
