"""Rays of cameras, their way through the cube, and the samples they leave."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, Rays, camera_rays
from sdi_gs.representations.ngp.marching import cube_spans, march


def make_rays(origins: list[list[float]], directions: list[list[float]]) -> Rays:
    return Rays(
        origins=torch.tensor(origins),
        directions=torch.nn.functional.normalize(torch.tensor(directions), dim=-1),
        cosines=torch.ones(len(origins)),
    )


def test_points_along_a_ray_project_to_the_middle_of_its_pixel(make_cameras: Callable[..., CameraBatch]) -> None:
    cameras = make_cameras(3, 20)
    rays = camera_rays(cameras)
    assert len(rays) == 3 * 20 * 20
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(len(rays)))
    points = (rays.origins + 2.5 * rays.directions).unflatten(0, (3, -1))
    in_camera = torch.einsum("bij,bpj->bpi", cameras.camera_from_world[:, :3, :3], points)
    in_camera = in_camera + cameras.camera_from_world[:, None, :3, 3]
    torch.testing.assert_close(in_camera[..., 2].flatten(), 2.5 * rays.cosines, rtol=1e-4, atol=1e-4)
    pixels = torch.einsum("bij,bpj->bpi", cameras.intrinsics, in_camera / in_camera[..., 2:])[..., :2]
    rows, columns = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    expected = torch.stack([columns, rows], dim=-1).flatten(0, 1).expand(3, -1, -1)
    torch.testing.assert_close(pixels, expected, rtol=0.0, atol=1e-3)


def test_spans_of_the_cube() -> None:
    rays = make_rays(
        [[-3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [3.0, 0.5, 0.5], [-3.0, 1.5, 0.0], [-3.0, -3.0, -3.0]],
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]],
    )
    near, far = cube_spans(rays, 1.0)
    torch.testing.assert_close((far - near), torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0, 2.0 * math.sqrt(3.0)]))
    torch.testing.assert_close(near[[0, 1, 5]], torch.tensor([2.0, 0.0, 2.0 * math.sqrt(3.0)]))


def test_samples_lie_in_occupied_cells_only_and_in_order() -> None:
    occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
    occupied[4:6, 8, 8] = occupied[12, 8, 8] = True
    rays = make_rays(
        [[-3.0, 0.01, 0.01], [3.0, 0.01, 0.01], [0.0, 0.5, 3.0]], [[1.0, 0, 0], [-1.0, 0, 0], [0, 0, -1.0]]
    )
    samples = march(rays, occupied, 1.0, step=0.025, offsets=torch.full((3,), 0.5))
    # Three cells of 1/8, five samples each; the third ray passes them by.
    assert samples.ray_starts.tolist() == [0, 15, 30, 30]
    forth = -1.0 + 0.025 * (torch.cat([torch.arange(20, 30), torch.arange(60, 65)]) + 0.5)
    torch.testing.assert_close(samples.points[:15, 0], forth)
    torch.testing.assert_close(samples.points[15:30, 0], forth.flip(0))
    torch.testing.assert_close(samples.distances[:15], forth + 3.0)
    assert samples.ray_ids.tolist() == [0] * 15 + [1] * 15


def samples_of_both(rays: Rays, occupied: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each candidate was taken by the kernels and by torch, told by distances rounded to steps."""
    step = 0.03
    near, _ = cube_spans(rays, 1.0)
    ours = march(rays, occupied, 1.0, step=step, offsets=offsets, backend="numba")
    reference = march(rays, occupied, 1.0, step=step, offsets=offsets, backend="torch")
    grids = []
    for samples in (ours, reference):
        grid = torch.zeros(len(rays), 140, dtype=torch.bool)
        numbers = ((samples.distances - near[samples.ray_ids]) / step - offsets[samples.ray_ids]).round().long()
        grid[samples.ray_ids, numbers] = True
        torch.testing.assert_close(
            samples.points,
            rays.origins[samples.ray_ids] + samples.distances[:, None] * rays.directions[samples.ray_ids],
        )
        assert int(grid.sum()) == len(samples) == samples.ray_starts[-1]
        grids.append(grid)
    return grids[0], grids[1]


def test_kernels_and_torch_take_the_same_samples(make_cameras: Callable[..., CameraBatch]) -> None:
    generator = torch.Generator().manual_seed(0)
    rays = camera_rays(make_cameras(2, 40))
    occupied = torch.rand((16, 16, 16), generator=generator) < 0.3
    ours, reference = samples_of_both(rays, occupied, torch.rand(len(rays), generator=generator))
    # They may differ where rounding decides on which side of a cell's face a sample lies.
    assert ours.sum() > 20_000
    assert (ours ^ reference).sum() < 1e-3 * ours.sum()


def test_keeping_some_samples_keeps_rays_in_step() -> None:
    rays = make_rays([[-3.0, 0.0, 0.0]] * 3, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    everywhere = torch.ones(16, 16, 16, dtype=torch.bool)
    samples = march(rays, everywhere, 1.0, step=0.5, offsets=torch.tensor([0.0, 0.0, 0.25]))
    assert samples.ray_starts.tolist() == [0, 4, 4, 8]
    kept = samples.keep(torch.tensor([False, True, False, True, True, False, False, False]))
    assert kept.ray_starts.tolist() == [0, 2, 2, 3]
    assert kept.ray_ids.tolist() == [0, 0, 2]
    torch.testing.assert_close(kept.distances, samples.distances[[1, 3, 4]])
    torch.testing.assert_close(kept.points, samples.points[[1, 3, 4]])


@pytest.mark.parametrize("step", [0.0, 1e-40, 1e-30])
def test_a_walk_whose_step_is_lost_in_rounding_ends(step: float) -> None:
    occupied = torch.zeros(16, 16, 16, dtype=torch.bool)
    rays = make_rays([[-3.0, 0.01, 0.01]], [[1.0, 0.0, 0.0]])
    samples = march(rays, occupied, 1.0, step=step, offsets=torch.full((1,), 0.5), backend="numba")
    assert samples.ray_starts.tolist() == [0, 0]
