"""The voxel grid against sums over eight corners, and what doubling, directions and total variation do."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.representations.voxels.scene import VoxelScene, total_variation, voxel_losses
from sdi_gs.representations.voxels.voxels import Voxels, resampled
from sdi_gs.settings.voxels import VoxelLossConfig, VoxelsConfig

CPU = torch.device("cpu")


def some_voxels(**changes: Any) -> Voxels:
    """A grid of random numbers, not a cube's symmetric ones."""
    voxels = Voxels(VoxelsConfig(resolution=16, upsample_at=(), occupancy_resolution=16, **changes), device=CPU)
    generator = torch.Generator().manual_seed(0)
    for value in voxels.params.values():
        value.data = torch.randn(value.shape, generator=generator)
    return voxels


def points_inside(count: int, radius: float) -> Tensor:
    return radius * (2.0 * torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 1.0)


def by_corners(grid: np.ndarray, point: np.ndarray, radius: float) -> float:
    """Weighted sum over the eight vertices around a point x, y, z; the grid's axes are z, y, x."""
    place = (point + radius) / (2.0 * radius) * (len(grid) - 1)
    low = np.minimum(np.floor(place).astype(int), len(grid) - 2)
    total = 0.0
    for corner in itertools.product((0, 1), repeat=3):
        shares = np.where(corner, place - low, 1.0 - (place - low))
        x, y, z = low + np.array(corner)
        total += shares.prod() * grid[z, y, x]
    return float(total)


def test_values_are_linear_between_vertices() -> None:
    voxels, points = some_voxels(radius=0.8), points_inside(50, 0.8)
    density, colour = (voxels.params[name].detach().double().numpy() for name in ("density", "colour"))
    found = voxels.values_at(points, points)
    for k, point in enumerate(points.double().numpy()):
        raw = by_corners(density, point, 0.8)
        assert found.density[k].item() == pytest.approx(math.log1p(math.exp(raw)), rel=1e-4)
        for channel in range(3):
            logit = by_corners(colour[channel], point, 0.8)
            assert found.albedo[k, channel].item() == pytest.approx(1.0 / (1.0 + math.exp(-logit)), rel=1e-4)
    torch.testing.assert_close(voxels.density_of(points), found.density)
    torch.testing.assert_close(voxels.albedo_of(points), found.albedo)
    assert voxels.density_of(torch.tensor([[0.81, 0.0, 0.0]])).item() == 0.0


@pytest.mark.parametrize("degree", [1, 2])
def test_colours_of_a_degree_depend_on_the_direction_around_the_albedo(degree: int) -> None:
    voxels, points = some_voxels(sh_degree=degree), points_inside(20, 1.0)
    along = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]), dim=-1).expand(20, 3)
    logits = [torch.logit(voxels.values_at(points, sign * along).albedo.double()) for sign in (1.0, -1.0)]
    assert not torch.allclose(logits[0], logits[1], atol=0.1)
    if degree == 1:
        # Odd harmonics cancel between opposite directions.
        mean = torch.sigmoid(0.5 * (logits[0] + logits[1])).float()
        torch.testing.assert_close(mean, voxels.albedo_of(points), atol=1e-5, rtol=1e-4)


def test_the_start_is_a_bump_of_density_at_the_origin() -> None:
    voxels = Voxels(VoxelsConfig(resolution=64), device=CPU)
    assert voxels.resolution == 16 and voxels.describe() == "a voxel grid of 16³"
    middle, edge, corner = voxels.density_of(torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.9, 0.9, 0.9]])).tolist()
    assert middle > 7.0 and edge == pytest.approx(math.log(2.0), rel=0.3) and corner < 1e-6


def test_more_vertices_show_the_same_object() -> None:
    voxels, points = some_voxels(), points_inside(200, 1.0)
    before = voxels.density_of(points)
    # 16 vertices are 15 cells: 31 vertices have one in the middle of each.
    voxels.params["density"].data = resampled(voxels.params["density"].data, 31)
    torch.testing.assert_close(voxels.density_of(points), before, atol=1e-5, rtol=1e-4)
    channels = torch.randn(2, 5, 5, 5)
    finer = resampled(channels, 9)
    assert torch.equal(finer[:, ::2, ::2, ::2], channels)
    torch.testing.assert_close(finer[:, 1, 0, 0], 0.5 * (channels[:, 0, 0, 0] + channels[:, 1, 0, 0]))


def test_total_variation_is_the_mean_length_of_the_gradient() -> None:
    grid = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    values, lengths = grid.detach().double().numpy(), []
    for channel, z, y, x in itertools.product(range(2), range(3), range(3), range(3)):
        here = values[channel, z, y, x]
        steps = (
            values[channel, z + 1, y, x] - here,
            values[channel, z, y + 1, x] - here,
            values[channel, z, y, x + 1] - here,
        )
        lengths.append(math.sqrt(sum(step**2 for step in steps)))
    found = total_variation(grid)
    assert found.item() == pytest.approx(np.mean(lengths), rel=1e-5)
    found.backward()
    flat = torch.zeros(1, 4, 4, 4, requires_grad=True)
    total_variation(flat).backward()
    assert flat.grad is not None and torch.isfinite(flat.grad).all(), "a constant grid has a gradient"


def test_the_grid_doubles_at_its_shares_and_adam_goes_on() -> None:
    base = preset("smoke", prompt="a red ball", representation="voxels", steps=10)
    settings = VoxelsConfig(resolution=32, upsample_at=(0.2, 0.5), occupancy_resolution=16, samples_per_ray=32)
    config = preset("smoke", {"representation": "voxels"}, prompt="a red ball", steps=10, voxels=settings)
    assert base.voxels == VoxelsConfig()
    scene = VoxelScene(config, generator=torch.Generator(), device=CPU)
    draws, sides = torch.Generator().manual_seed(0), []
    angles = torch.tensor([0.0, 90.0])
    cameras = orbit_cameras(angles, 0.0 * angles, 0.0 * angles + 3.3, 0.0 * angles + 40.0, width=16, height=16)
    for step in range(10):
        sides.append(scene.voxels.resolution)
        render = scene.render(cameras, torch.ones(2, 3), progress=step / 10, generator=draws)
        losses = voxel_losses(scene.voxels, render, step / 10)
        scene.backward(render.rgb.mean() + sum(losses.values()), render, step=step)
        scene.update(render, step=step, generator=draws)
    assert sides == [8, 8, 16, 16, 16, 32, 32, 32, 32, 32]
    for name, optimizer in scene.optimizers.items():
        (value,) = optimizer.param_groups[0]["params"]
        assert value is scene.voxels.params[name] and set(optimizer.state) == {value}
        assert optimizer.state[value]["step"] == 10
        assert optimizer.state[value]["exp_avg_sq"].shape == value.shape
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * {"density": 1.5, "colour": 0.05}[name])


@pytest.mark.parametrize("left_out", ["tv_density", "tv_colour", "sparsity", "opaqueness", "z_variance"])
def test_a_weight_of_zero_leaves_its_term_out(left_out: str) -> None:
    voxels = some_voxels(losses=VoxelLossConfig(**{left_out: 0.0}))
    angle = torch.zeros(1)
    cameras = orbit_cameras(angle, angle, angle + 3.3, angle + 40.0, width=16, height=16)
    render = voxels.render(cameras, torch.ones(1, 3))
    terms = voxel_losses(voxels, render, 0.0)
    assert set(terms) == {"tv_density", "tv_colour", "sparsity", "opaqueness", "z_variance"} - {left_out}
    assert "sparsity" not in voxel_losses(voxels, render, 0.9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"upsample_at": (0.5, 0.2)}, "upsample_at must be in order, got 0.5 0.2"),
        ({"upsample_at": (0.1, 0.2, 0.3, 0.4)}, "starts with 4 vertices along a side, of at least 8"),
        ({"resolution": 8}, "resolution must be 16 to 512, got 8"),
        ({"sh_degree": 3}, "sh_degree must be 0 to 2, got 3"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VoxelsConfig(**values)
