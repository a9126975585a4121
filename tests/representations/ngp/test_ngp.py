"""Renders, what skipping leaves of them, training steps and state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.errors import UserError
from sdi_gs.representations.ngp import rendering
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.rendering import FieldRender
from sdi_gs.representations.ngp.scene import ngp_losses, ngp_optimizers
from sdi_gs.settings.ngp import NgpConfig, NgpLossConfig

WHITE, BLACK = torch.ones(2, 3), torch.zeros(2, 3)


def test_an_opaque_ball_looks_like_one(make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]) -> None:
    base = make_ngp().config
    ngp = make_ngp(replace(base, blob_scale=4000.0, samples_per_ray=1024))
    ngp.field.params["table"].data.zero_()
    cameras = make_cameras(2, 33)
    render = ngp.render(cameras, WHITE, with_normals=True)
    assert render.normals is not None
    assert render.depth is not None
    # The silhouette of a ball of radius 1/2 at 3.3, counted in pixels.
    focal = cameras.intrinsics[0, 0, 0].item()
    radius = focal * math.tan(math.asin(0.5 / 3.3))
    assert (render.alpha[0] > 0.5).sum().item() == pytest.approx(math.pi * radius**2, rel=0.05)
    middle = render.normals[:, 16, 16]
    torch.testing.assert_close(middle, -cameras.world_from_camera[:, :3, 2], rtol=0.0, atol=1e-3)
    # Density grows as 8000 times the depth below the surface, so light goes 1/2 sqrt(pi / 4000) deep on average.
    depth = 2.8 + 0.5 * math.sqrt(math.pi / 4000.0)
    assert render.depth[:, 16, 16].flatten().tolist() == pytest.approx([depth, depth], abs=5e-4)
    assert render.z_variance[:, 16, 16].max() < 1e-4
    assert render.alpha[:, 16, 16].flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    torch.testing.assert_close(render.rgb[:, 16, 16], torch.full((2, 3), 0.5), rtol=0.0, atol=1e-3)
    assert (render.rgb[:, 0, 0] == 1.0).all()
    assert (render.depth[:, 0, 0] == 0.0).all()


def test_depth_is_along_the_axis_and_not_along_the_ray(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    ngp = make_ngp(replace(make_ngp().config, blob_scale=4e5, samples_per_ray=2048))
    cameras = make_cameras(1, 33)
    depth = ngp.render(cameras, WHITE[:1]).depth
    assert depth is not None
    # Intersection of an off-centre ray with the ball.
    x = (20.5 - 16.5) / cameras.intrinsics[0, 0, 0].item()
    along_axis = (3.3 - math.sqrt(3.3**2 - (1 + x**2) * (3.3**2 - 0.25))) / (1 + x**2)
    assert depth[0, 16, 20].item() == pytest.approx(along_axis, abs=0.004)


@pytest.mark.parametrize("roughness", [0.0, 0.3])
def test_skipping_what_is_empty_changes_no_pixel_by_a_thousandth(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch], roughness: float
) -> None:
    base = make_ngp().config
    whole = make_ngp(replace(base, empty_alpha=0.0), roughness=roughness)
    sparse = make_ngp(base, roughness=roughness)
    sparse.occupancy.refresh(sparse.density_of)
    assert 0.05 < sparse.occupancy.occupied().double().mean() < 0.6
    assert whole.occupancy.occupied().all()
    cameras = make_cameras(2, 48)
    for background in (WHITE, BLACK):
        with torch.no_grad():
            a = whole.render(cameras, background, with_normals=True)
            b = sparse.render(cameras, background, with_normals=True)
        assert len(b.sample_weights) < 0.7 * len(a.sample_weights)
        assert (a.rgb - b.rgb).abs().max() < 1e-3
        assert (a.alpha - b.alpha).abs().max() < 1e-3


def test_occupancy_follows_a_field_that_moves(make_ngp: Callable[..., Ngp]) -> None:
    ngp = make_ngp()
    generator = torch.Generator().manual_seed(0)

    def half(points: Tensor) -> Tensor:
        return 100.0 * (points[:, 0] > 0.0)

    updates = 0
    while ngp.occupancy.occupied()[:16].any():
        ngp.occupancy.update(half, generator, run_share=0.01)
        updates += 1
    assert ngp.occupancy.occupied()[16:].all()
    assert 10 <= updates <= 11, "from wholly occupied to empty in a tenth of the run, whose hundredths are updates"


def test_a_given_decay_counts_updates_and_not_the_run(make_ngp: Callable[..., Ngp]) -> None:
    ngp = make_ngp(replace(make_ngp().config, occupancy_decay=0.5))
    generator = torch.Generator().manual_seed(0)
    for share in (0.1, 1e-6):
        ngp.occupancy.update(lambda points: torch.zeros(len(points)), generator, run_share=share)
    assert (ngp.occupancy.alphas == 0.25).all()


def test_a_thin_wall_is_found_by_the_updates_of_a_fade(make_ngp: Callable[..., Ngp]) -> None:
    """A sixth of a cell's width is as thin as what the steps of a ray resolve."""
    ngp = make_ngp()
    side = ngp.config.occupancy_resolution
    generator = torch.Generator().manual_seed(0)

    def wall(points: Tensor) -> Tensor:
        return 100.0 * ((points[:, 0] > 0.0) & (points[:, 0] < 2.0 / side / 6.0))

    ngp.occupancy.alphas = torch.zeros_like(ngp.occupancy.alphas)
    for _ in range(4):
        ngp.occupancy.update(wall, generator, run_share=0.029)
    assert ngp.occupancy.occupied()[side // 2].double().mean() > 0.9


def test_marching_a_runs_grid_equals_marching_everything(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    """After every update of a training run, to within what the threshold itself leaves out."""
    generator, cameras = torch.Generator().manual_seed(0), make_cameras(2, 32)
    ngp = make_ngp(replace(make_ngp().config, occupancy_every=4))
    marched = []
    for first in range(0, 48, 12):
        train(ngp, cameras, 12, generator, first, num_steps=48)
        assert ngp.steps_since_update == 0
        ngp.before_step((first + 12) / 48, generator, num_steps=48)
        ngp.steps_since_update = 0
        everywhere = make_ngp(ngp.config)
        everywhere.load_state(ngp.state())
        everywhere.occupancy.alphas = torch.ones_like(ngp.occupancy.alphas)
        marched.append(ngp.occupancy.occupied().double().mean().item())
        for background in (WHITE, BLACK):
            with torch.no_grad():
                a, b = (field.render(cameras, background) for field in (everywhere, ngp))
            assert (a.rgb - b.rgb).abs().max() < 1e-3
            assert (a.alpha - b.alpha).abs().max() < 1e-3
    assert marched[0] < 0.4


def test_levels_and_occupancy_are_brought_up_to_date_before_a_step(make_ngp: Callable[..., Ngp]) -> None:
    ngp = make_ngp(NgpConfig())
    generator = torch.Generator().manual_seed(0)
    assert ngp.field.num_levels == 5
    updates = []
    for step in range(33):
        before = ngp.occupancy.alphas
        ngp.before_step(step / 33, generator, num_steps=33)
        if ngp.occupancy.alphas is not before:
            updates.append(step)
    assert ngp.field.num_levels == 8
    assert updates == [0, 16, 32]


@pytest.mark.parametrize("size", [15, 1])
def test_an_image_that_is_too_small_is_refused_in_one_line(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch], size: int
) -> None:
    with pytest.raises(UserError, match=f"{size}x{size} pixels.*at least 16x16") as caught:
        make_ngp().render(make_cameras(2, size), WHITE)
    assert "\n" not in str(caught.value)


def train(
    ngp: Ngp, cameras: CameraBatch, steps: int, generator: torch.Generator, first: int = 0, num_steps: int = 20
) -> FieldRender:
    """A few steps towards red, all regularisers on."""
    optimizers = ngp_optimizers(ngp)
    render = ngp.render(cameras, WHITE)
    for step in range(first, first + steps):
        ngp.before_step(step / num_steps, generator, num_steps=num_steps)
        render = ngp.render_for_training(cameras, WHITE, progress=step / num_steps, generator=generator)
        loss = (render.rgb - torch.tensor([1.0, 0.0, 0.0])).square().mean()
        for term in ngp_losses(ngp.config.losses, render, cameras, step / num_steps).values():
            loss = loss + term
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return render


def test_training_moves_colours_and_every_parameter(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    ngp = make_ngp()
    before = {name: value.detach().clone() for name, value in ngp.parameters().items()}
    train(ngp, make_cameras(), 20, torch.Generator().manual_seed(0))
    assert all(not torch.equal(before[name], value) for name, value in ngp.parameters().items())
    red, green, _ = ngp.render(make_cameras(), WHITE).rgb[0, 12, 12].tolist()
    assert red > 0.6
    assert green < 0.4


def test_regularizers_are_the_terms_that_count(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    ngp, cameras = make_ngp(), make_cameras()
    render = ngp.render_for_training(cameras, WHITE, progress=0.0, generator=torch.Generator().manual_seed(0))
    early, late = (
        ngp_losses(ngp.config.losses, render, cameras, 0.0),
        ngp_losses(ngp.config.losses, render, cameras, 0.9),
    )
    assert set(early) == {"orientation", "sparsity", "opaqueness", "z_variance", "convexity"}
    assert set(late) == set(early) - {"sparsity"}
    assert late["convexity"].item() == pytest.approx(0.1 * early["convexity"].item())
    # A bump of density: only what shines through from its far side faces away, and nothing is dented.
    assert early["orientation"].item() < 5e-3
    assert early["convexity"].item() < -0.01
    none = NgpLossConfig(
        orientation=0.0, sparsity=0.0, opaqueness=0.0, z_variance=0.0, convexity=0.0, convexity_final=0.0
    )
    bare = make_ngp(replace(ngp.config, losses=none))
    render = bare.render_for_training(cameras, WHITE, progress=0.0, generator=torch.Generator().manual_seed(0))
    assert render.normals is None
    assert ngp_losses(bare.config.losses, render, cameras, 0.0) == {}


def test_both_backends_render_and_learn_alike(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    cameras = make_cameras()
    results = []
    for backend in ("numba", "torch"):
        ngp = make_ngp(roughness=0.1)
        ngp.field.backend = backend
        render = ngp.render(cameras, WHITE, with_normals=True)
        assert render.normals is not None
        loss = render.rgb.square().mean() + render.normals.square().mean() + render.z_variance.mean()
        loss.backward()
        table = ngp.field.params["table"].grad
        assert table is not None
        results.append((render.rgb.detach(), render.normals.detach(), table))
    for ours, reference in zip(*results, strict=True):
        assert (ours - reference).norm() < 1e-2 * reference.norm()
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0.0, atol=1e-4)


def test_points_that_are_asked_in_several_goes_give_the_same_picture(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, asked = make_ngp(roughness=0.1), []
    density_of = scene.field.density_of
    monkeypatch.setattr(scene.field, "density_of", lambda points: asked.append(len(points)) or density_of(points))
    cameras = make_cameras(2, 16)
    at_once = scene.render(cameras, WHITE)
    total = sum(asked)
    asked.clear()
    # The last go is not full.
    monkeypatch.setattr(rendering, "POINTS_AT_ONCE", total // 3)
    in_turn = scene.render(cameras, WHITE)
    assert sum(asked) == total
    assert max(asked) == total // 3
    assert torch.equal(at_once.rgb, in_turn.rgb)
    assert torch.equal(at_once.alpha, in_turn.alpha)


def test_backgrounds(make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]) -> None:
    cameras, generator = make_cameras(), torch.Generator().manual_seed(0)
    config = make_ngp().config

    def corner(background: Any) -> tuple[Tensor, Ngp]:
        ngp = make_ngp(replace(config, background=background))
        render = ngp.render_for_training(cameras, WHITE, progress=0.0, generator=generator)
        # Pictures for looking at are over the colour that was asked for.
        assert (ngp.render(cameras, BLACK).rgb[:, 0, 0] == 0.0).all()
        return render.rgb[:, 0, 0], ngp

    assert (corner("given")[0] == 1.0).all()
    drawn = corner("random")[0]
    assert ((drawn > 0.0) & (drawn < 1.0)).all()
    assert not torch.equal(drawn[0], drawn[1])
    learned, ngp = corner("environment")
    assert len(ngp_optimizers(ngp)) == 2
    gradients = torch.autograd.grad(learned.sum(), [ngp.parameters()[f"environment.{n}"] for n in ("first", "out")])
    assert all((gradient != 0.0).any() for gradient in gradients)


def test_lit_views_see_normals(make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]) -> None:
    config = make_ngp().config
    shading = replace(config.shading, enabled=True, albedo_probability=0.0, textureless_probability=1.0)
    ngp = make_ngp(replace(config, shading=shading, blob_scale=100.0))
    render = ngp.render_for_training(make_cameras(), BLACK, progress=0.5, generator=torch.Generator().manual_seed(0))
    solid = render.alpha[..., 0] > 0.99
    grey = render.rgb[solid]
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    assert 0.09 < grey.min() < 0.2
    assert grey.max() > 0.8


def test_a_state_continues_bit_for_bit(make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]) -> None:
    cameras, config = make_cameras(), replace(make_ngp().config, background="environment")
    one = make_ngp(config)
    train(one, cameras, 3, torch.Generator().manual_seed(0))
    state = copy.deepcopy(one.state())
    other = Ngp(config, generator=torch.Generator().manual_seed(9), device=torch.device("cpu"))
    other.load_state(state)
    ends = [train(ngp, cameras, 3, torch.Generator().manual_seed(1), first=3) for ngp in (one, other)]
    assert torch.equal(ends[0].rgb, ends[1].rgb)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters().values(), other.parameters().values(), strict=True))


def test_the_state_of_something_else_is_refused_and_nothing_is_lost(make_ngp: Callable[..., Ngp]) -> None:
    ngp = make_ngp()
    before = copy.deepcopy(ngp.state()["params"])
    others = [make_ngp(replace(ngp.config, hidden_width=16)).state(), {"gaussians": {"means": torch.zeros(3, 3)}}]
    for state in others:
        with pytest.raises(UserError, match="representation"):
            ngp.load_state(state)
    assert all(torch.equal(before[name], value) for name, value in ngp.state()["params"].items())


def test_training_is_bitwise_the_same_for_any_number_of_threads(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch], set_threads: Callable[[int], None]
) -> None:
    tables = []
    for num_threads in (1, 2, 3):
        set_threads(num_threads)
        ngp = make_ngp()
        train(ngp, make_cameras(2, 40), 2, torch.Generator().manual_seed(0))
        tables.append(ngp.field.params["table"].detach())
    assert all(torch.equal(tables[0], table) for table in tables[1:])
