"""A cloud and a field under the same contract: what a step does, what a state holds, what a failed step leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import sample_cameras
from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.representations.catalog import make_scene, restore_representation
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.representations.ngp.scene import NgpScene
from sdi_gs.representations.voxels.scene import VoxelScene
from sdi_gs.runs.checkpoint import pack_state, unpack_state
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.ngp import HashGridConfig, NgpConfig, NgpLossConfig
from sdi_gs.settings.representations import REPRESENTATIONS
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.voxels import VoxelsConfig
from sdi_gs.training.trainer import Trainer

Scene = GaussianScene | NgpScene | VoxelScene
Kind = Literal["gaussians", "ngp", "voxels"]
CPU = torch.device("cpu")
KINDS: tuple[Kind, ...] = ("gaussians", "ngp", "voxels")
STEPS = 8
both_kinds = pytest.mark.parametrize("kind", KINDS)


def config(kind: Kind, **changes: Any) -> RunConfig:
    """Growth of the cloud and updates of the field's occupancy within a few steps; finer levels join halfway."""
    base = preset_named("smoke").config
    small = replace(
        base,
        prompt="a blue robot",
        representation=kind,
        steps=STEPS,
        gaussians=GaussiansConfig(num_initial=120, initial_opacity=0.5),
        densify=DensifyConfig(start=0.0, stop=1.0, every=3, max_gaussians=200, min_gaussians=50, grow_share=0.2),
        ngp=NgpConfig(
            grid=HashGridConfig(num_levels=3, initial_levels=2, log2_table_size=8, bands_start=0.3, bands_end=0.5),
            hidden_width=8,
            samples_per_ray=32,
            occupancy_resolution=16,
            occupancy_every=2,
            geometry_lr=0.05,
        ),
        voxels=VoxelsConfig(
            resolution=32,
            samples_per_ray=32,
            occupancy_resolution=16,
            occupancy_every=2,
            upsample_at=(0.3, 0.5),
            density_lr=1.0,
            colour_lr=0.5,
        ),
        ideal_prior=replace(base.ideal_prior, renders_per_view=2, unconditional_renders=4),
    )
    return replace(small, **changes)


def scene_of(settings: RunConfig, saved: dict[str, Any] | None = None) -> Scene:
    scene = make_scene(settings, generator=torch.Generator().manual_seed(1), device=CPU, saved=saved)
    assert isinstance(scene, GaussianScene | NgpScene | VoxelScene)
    return scene


def taken(scene: Scene, steps: range, draws: torch.Generator) -> None:
    """Steps towards dark red."""
    for step in steps:
        progress = step / STEPS
        cameras = sample_cameras(scene.config.cameras, 2, width=24, height=24, generator=draws)
        render = scene.render(cameras, torch.ones(2, 3), progress=progress, generator=draws)
        distance = (render.rgb - torch.tensor([0.5, 0.0, 0.0])).square().mean()
        losses = [distance, *scene.losses(render, cameras, progress).values()]
        scene.backward(torch.stack(losses).sum(), render, step=step)
        scene.update(render, step=step, generator=draws, timestep_fraction=0.5)


def flat(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Copies of the leaves of a state by their path."""
    leaves: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, dict):
            leaves |= flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value.clone() if isinstance(value, Tensor) else repr(value)
    return leaves


def differing(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Names of leaves that are not the same, bit for bit."""
    assert set(left) == set(right)
    return [
        name
        for name, value in left.items()
        if not (torch.equal(value, right[name]) if isinstance(value, Tensor) else value == right[name])
    ]


def parameters(scene: Scene) -> dict[str, Tensor]:
    """What the optimisers move, copied."""
    groups = {
        f"{name} {index}": value.detach().clone()
        for name, optimizer in scene.optimizers.items()
        for index, value in enumerate(optimizer.param_groups[0]["params"])
    }
    assert groups
    return groups


def test_the_config_names_the_kind() -> None:
    assert isinstance(scene_of(config("gaussians")), GaussianScene)
    assert isinstance(scene_of(config("ngp")), NgpScene)
    assert isinstance(scene_of(config("voxels")), VoxelScene)
    assert scene_of(config("gaussians")).representation.num_points == 120
    assert scene_of(config("ngp")).representation.num_points == 0


def test_both_kinds_are_in_the_catalogue() -> None:
    assert set(KINDS) == set(REPRESENTATIONS)
    with pytest.raises(ValueError, match="representation must be one of gaussians, ngp, voxels, got 'planes'"):
        replace(config("ngp"), representation="planes")


@both_kinds
def test_a_state_holds_the_tensors_by_the_kinds_name(kind: Kind) -> None:
    settings = config(kind)
    scene = scene_of(settings)
    restored = restore_representation(settings, scene.state(), device=CPU)
    cameras = sample_cameras(settings.cameras, 2, width=24, height=24, generator=torch.Generator().manual_seed(2))
    ours, theirs = (each.render(cameras, torch.ones(2, 3)).rgb for each in (restored, scene.representation))
    assert torch.equal(ours, theirs)


@both_kinds
@torch.no_grad()
def test_a_representation_has_splats_and_a_density_or_says_that_it_has_none(kind: Kind) -> None:
    representation = scene_of(config(kind)).representation
    splats, density = representation.splats(), representation.density(resolution=32)
    assert representation.num_points == (0 if splats is None else len(splats))
    assert (splats is None) == (kind != "gaussians")
    names = {"gaussians": "120 Gaussians", "ngp": "a field", "voxels": "a voxel grid of 8³"}
    assert representation.describe() == names[kind]
    low, high = (torch.tensor(corner) for corner in (density.box.low, density.box.high))
    points = low + (high - low) * torch.rand(200, 3, generator=torch.Generator().manual_seed(3))
    assert float(density.density_of(points).min()) >= 0.0
    assert float(density.density_of(points).max()) > 0.0
    assert density.albedo_of(points).shape == (200, 3)


@both_kinds
def test_a_step_moves_what_the_optimisers_hold(kind: Kind) -> None:
    scene = scene_of(config(kind, densify=DensifyConfig(enabled=False)))
    before = parameters(scene)
    taken(scene, range(1), torch.Generator().manual_seed(2))
    moved = set(differing(before, parameters(scene)))
    # Round Gaussians look the same however they are turned, but for rounding.
    assert moved | {"quats 0"} == set(before) | {"quats 0"}


@both_kinds
def test_steps_lead_towards_what_the_loss_wants(kind: Kind) -> None:
    scene, draws = scene_of(config(kind)), torch.Generator().manual_seed(2)
    cameras = sample_cameras(scene.config.cameras, 2, width=24, height=24, generator=draws)

    def error() -> float:
        with torch.no_grad():
            rgb = scene.representation.render(cameras, torch.ones(2, 3)).rgb
        return float((rgb - torch.tensor([0.5, 0.0, 0.0])).square().mean())

    before = error()
    taken(scene, range(STEPS), draws)
    assert error() < 0.95 * before


@both_kinds
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_scene_goes_on_from_its_state_bit_for_bit(kind: Kind, stop: int) -> None:
    settings, draws = config(kind), torch.Generator().manual_seed(2)
    straight = scene_of(settings)
    taken(straight, range(stop), draws)
    # Through what a checkpoint holds, as copies.
    packed, meta = pack_state(straight.state())
    saved = unpack_state({name: value.clone() for name, value in packed.items()}, meta)
    resumed = scene_of(settings, saved)
    resumed.load_state(saved)
    assert differing(flat(straight.state()), flat(resumed.state())) == []
    drawn = draws.get_state()
    taken(straight, range(stop, STEPS), draws)
    draws.set_state(drawn)
    taken(resumed, range(stop, STEPS), draws)
    assert differing(flat(straight.state()), flat(resumed.state())) == []


def test_the_state_of_a_field_holds_more_than_its_parameters() -> None:
    scene, draws = scene_of(config("ngp")), torch.Generator().manual_seed(2)
    assert isinstance(scene, NgpScene)
    start = flat(scene.ngp.state())
    taken(scene, range(STEPS), draws)
    moved = differing(start, flat(scene.ngp.state()))
    assert {"occupancy", "num_levels"} <= set(moved)


@both_kinds
def test_dropped_gradients_leave_the_scene_as_it_was(kind: Kind) -> None:
    scene, draws = scene_of(config(kind)), torch.Generator().manual_seed(2)
    taken(scene, range(4), draws)
    before = flat(scene.state())
    cameras = sample_cameras(scene.config.cameras, 2, width=24, height=24, generator=draws)
    render = scene.render(cameras, torch.ones(2, 3), progress=0.9, generator=draws)
    if kind == "ngp":
        # What is dropped is more than gradients: rendering let a level join and looked at the occupancy.
        assert {"ngp.num_levels", "ngp.occupancy"} <= set(differing(before, flat(scene.state())))
    render.rgb.mean().backward()
    assert scene.gradients()
    scene.drop_gradients()
    assert scene.gradients() == {}
    assert differing(before, flat(scene.state())) == []


@both_kinds
@pytest.mark.parametrize("where", ["latents", "gradient"])
def test_a_step_that_comes_to_nothing_leaves_the_trainers_state(kind: Kind, where: str) -> None:
    settings = config(kind)
    prior = load_prior(settings, device=CPU)
    trainer = Trainer(settings, prior, device=CPU)
    for _ in range(2):
        trainer.train_step()
    before, encode = flat(trainer.state()), prior.encode_images

    def broken(images: Tensor, generator: torch.Generator) -> Tensor:
        latents = encode(images, generator)
        if where == "latents":
            return latents * torch.nan
        latents.register_hook(lambda gradient: gradient * torch.nan)
        return latents

    prior.encode_images = broken
    with pytest.raises(NonFiniteError, match=f"step 3, t = \\d+: non-finite {where}"):
        trainer.train_step()
    assert differing(before, flat(trainer.state())) == []
    prior.encode_images = encode
    assert trainer.train_step().step == 3


@both_kinds
def test_the_rates_follow_the_configs_factor(kind: Kind) -> None:
    settings = config(kind)
    scene = scene_of(settings)
    plain = {name: optimizer.param_groups[0]["lr"] for name, optimizer in scene.optimizers.items()}
    for factor in (0.5, 3.0, 1.0):
        scene.update_config(replace(settings, learning_rate_scale=factor))
        rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in scene.optimizers.items()}
        assert rates == pytest.approx({name: factor * rate for name, rate in plain.items()})
    scaled = scene_of(replace(settings, learning_rate_scale=0.5))
    assert scaled.optimizers[next(iter(plain))].param_groups[0]["lr"] == pytest.approx(0.5 * next(iter(plain.values())))


@both_kinds
def test_the_rates_still_follow_after_a_resume(kind: Kind) -> None:
    settings = config(kind, learning_rate_scale=2.0)
    state = scene_of(settings).state()
    resumed = scene_of(settings, state)
    resumed.load_state(state)
    doubled = {name: optimizer.param_groups[0]["lr"] for name, optimizer in resumed.optimizers.items()}
    resumed.update_config(replace(settings, learning_rate_scale=1.0))
    for name, optimizer in resumed.optimizers.items():
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * doubled[name]), name


@pytest.mark.parametrize("last", [None, 5e-4])
def test_a_fields_rate_falls_by_the_same_factor_at_every_step(last: float | None) -> None:
    first, factor, draws = 0.05, 2.0, torch.Generator().manual_seed(0)
    base = config("ngp", learning_rate_scale=factor)
    scene = scene_of(replace(base, ngp=replace(base.ngp, geometry_lr=first, geometry_lr_final=last)))
    rates = []
    for step in range(STEPS):
        taken(scene, range(step, step + 1), draws)
        rates.append(scene.optimizers["field"].param_groups[0]["lr"])
    expected = torch.logspace(math.log10(first), math.log10(last or first), STEPS, dtype=torch.float64)
    assert rates == pytest.approx((factor * expected).tolist())


@both_kinds
def test_a_state_of_the_other_kind_is_refused(kind: Kind) -> None:
    other: Kind = "ngp" if kind == "gaussians" else "gaussians"
    with pytest.raises(UserError) as refused:
        scene_of(config(kind), scene_of(config(other)).state())
    assert str(refused.value).startswith(f"the checkpoint holds no {kind}, the representation that its settings name")
    assert "\n" not in str(refused.value)


def test_a_field_of_another_size_is_refused() -> None:
    small = config("ngp")
    large = replace(small, ngp=replace(small.ngp, hidden_width=16))
    scene, state = scene_of(small), scene_of(large).state()
    with pytest.raises(UserError, match="not that of a field of this size"):
        scene.load_state(state)


def loss_and_gradients(settings: RunConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The terms of a step of four views, and the gradients of their sum."""
    draws = torch.Generator().manual_seed(2)
    scene = scene_of(settings)
    if isinstance(scene, GaussianScene):
        # Round ones would have no gradient in their rotation.
        scene.gaussians.params["scales"].data += 0.3 * torch.randn(120, 3, generator=draws)
    cameras = sample_cameras(settings.cameras, 4, width=24, height=24, generator=draws)
    render = scene.render(cameras, torch.ones(4, 3), progress=0.6, generator=draws)
    losses = {"distance": render.rgb.square().mean()} | scene.losses(render, cameras, 0.6)
    torch.stack(list(losses.values())).sum().backward()
    return losses, scene.gradients()


@both_kinds
@pytest.mark.parametrize(
    "compute", [ComputeConfig(views_at_once=1), ComputeConfig(views_at_once=3), ComputeConfig(rays_at_once=300)]
)
def test_groups_give_the_same_terms_and_gradients(kind: Kind, compute: ComputeConfig) -> None:
    settings = config(kind)
    # Every regulariser of the field, what it is seen over, and light.
    field = replace(
        settings.ngp,
        background="environment",
        shading=replace(settings.ngp.shading, enabled=True, albedo_probability=0.3),
        losses=NgpLossConfig(),
    )
    settings = replace(settings, ngp=field)
    terms, gradients = loss_and_gradients(settings)
    grouped = replace(settings, compute=compute)
    other_terms, other_gradients = loss_and_gradients(grouped)
    assert set(terms) == set(other_terms)
    assert len(terms) >= 3
    for name, value in terms.items():
        torch.testing.assert_close(other_terms[name], value, rtol=1e-5, atol=0.0)
    assert set(gradients) == set(other_gradients)
    for name, gradient in gradients.items():
        atol = 1e-5 * float(gradient.abs().max())
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=atol)


@both_kinds
def test_a_run_in_groups_with_fused_adam_can_be_resumed_bit_for_bit(kind: Kind) -> None:
    settings = config(kind, compute=ComputeConfig(views_at_once=1, fused_adam=True))
    straight, stopped = scene_of(settings), scene_of(settings)
    draws = torch.Generator().manual_seed(4)
    taken(straight, range(6), draws)
    draws = torch.Generator().manual_seed(4)
    taken(stopped, range(4), draws)
    tensors, packed = pack_state(stopped.state())
    saved = unpack_state({name: value.clone() for name, value in tensors.items()}, packed)
    resumed = scene_of(settings, saved)
    resumed.load_state(saved)
    taken(resumed, range(4, 6), draws)
    assert differing(flat(straight.state()), flat(resumed.state())) == []
    assert all(optimizer.param_groups[0]["fused"] for optimizer in resumed.optimizers.values())


@both_kinds
def test_fused_adam_moves_the_parameters_as_the_other_does(kind: Kind) -> None:
    plain, fused = scene_of(config(kind)), scene_of(config(kind, compute=ComputeConfig(fused_adam=True)))
    start = flat(plain.state())
    for scene in (plain, fused):
        taken(scene, range(1), torch.Generator().manual_seed(4))
    for name, value in flat(plain.state()).items():
        # The rest of a state is not of the parameters, or moved by noise in the sign of a gradient of nothing.
        if name.endswith(("means", "sh0", "opacities", "field.table", "field.density_out")):
            torch.testing.assert_close(flat(fused.state())[name], value, rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, start[name]), name
