"""The encoding against a slow float64 reference that follows the paper point by point, and its gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.rasterize.kernels.simd import LANES
from sdi_gs.representations.ngp.hash_grid import GridLayout, encode, grid_layout, layout_arrays
from sdi_gs.representations.ngp.kernels import encoding
from sdi_gs.settings.ngp import HashGridConfig

# Levels 0 and 1 are dense, the others hashed.
CONFIG = HashGridConfig(num_levels=4, initial_levels=4, log2_table_size=14)


def points_inside_cells(layout: GridLayout, count: int) -> Tensor:  # [count, 3] float64
    """Random points that float32 puts into the same cells as float64."""
    points = torch.rand((20 * count, 3), generator=torch.Generator().manual_seed(1)).double()
    shares = torch.stack([(points * scale + 0.5) % 1.0 for scale in layout.scales])
    return points[((shares > 1e-3) & (shares < 1.0 - 1e-3)).all(dim=-1).all(dim=0)][:count]


def reference_entry(x: int, y: int, z: int, resolution: int, size: int) -> int:
    """Instant NGP's rule: rows of a dense grid where they fit, else the spatial hash in 32 bits."""
    if resolution**3 <= size:
        return (x + y * resolution + z * resolution**2) % size
    mixed = x ^ (y * 2654435761) % 2**32 ^ (z * 805459861) % 2**32
    return mixed % size


def reference_features(point: list[float], table: np.ndarray, config: HashGridConfig) -> tuple[np.ndarray, np.ndarray]:
    """Features [2 L] and their slopes [3, 2 L] at one point."""
    features, slopes, first = [], [], 0
    for level in range(config.num_levels):
        scale = float(np.float32(config.base_resolution * config.growth**level - 1.0))
        resolution = math.ceil(scale) + 1
        size = min(8 * math.ceil(resolution**3 / 8), 2**config.log2_table_size)
        cell = [math.floor(c * scale + 0.5) for c in point]
        share = [c * scale + 0.5 - low for c, low in zip(point, cell, strict=True)]
        value, slope = np.zeros(2), np.zeros((3, 2))
        for corner in itertools.product((0, 1), repeat=3):
            x, y, z = (c + side for c, side in zip(cell, corner, strict=True))
            entry = first + reference_entry(x, y, z, resolution, size)
            factors = [s if side else 1.0 - s for s, side in zip(share, corner, strict=True)]
            value += math.prod(factors) * table[entry]
            for axis in range(3):
                others = math.prod(factors[:axis] + factors[axis + 1 :])
                slope[axis] += (scale if corner[axis] else -scale) * others * table[entry]
        features.append(value)
        slopes.append(slope)
        first += size
    return np.concatenate(features), np.concatenate(slopes, axis=1)


def encode_numba(points: Tensor, table: Tensor, layout: GridLayout, num_levels: int) -> tuple[Tensor, Tensor]:
    """Features [P, 2 L] and jacobian [P, 3, 2 L] of the kernels."""
    blocks, width = -(-len(points) // LANES), 2 * layout.num_levels
    features, jacobian = torch.zeros(blocks, width, LANES), torch.zeros(blocks, 3, width, LANES)
    encoding.encode(
        0,
        len(points),
        points.numpy(),
        table.numpy(),
        *layout_arrays(layout, num_levels),
        features.numpy(),
        jacobian.numpy(),
    )
    return (
        features.transpose(1, 2).flatten(0, 1)[: len(points)],
        jacobian.permute(0, 3, 1, 2).flatten(0, 1)[: len(points)],
    )


def test_dense_levels_take_what_they_need_and_hashed_ones_the_whole_table() -> None:
    layout = grid_layout(HashGridConfig(num_levels=16, initial_levels=8, log2_table_size=19))
    sizes = np.diff(layout.offsets)
    assert layout.resolutions[:3] == (16, 24, 34)
    assert layout.resolutions[-1] == 4096
    assert list(layout.hashed) == [resolution**3 > 2**19 for resolution in layout.resolutions]
    assert sizes[0] == 16**3
    assert all(size == 2**19 for size, hashed in zip(sizes, layout.hashed, strict=True) if hashed)
    assert all(size % 8 == 0 for size in sizes)


def test_features_and_slopes_follow_the_paper_point_by_point() -> None:
    layout = grid_layout(CONFIG)
    assert layout.hashed == (False, False, True, True)
    table = torch.randn(layout.num_entries, 2, generator=torch.Generator().manual_seed(2)).double()
    inside = points_inside_cells(layout, 37)
    # The faces of the cube too: there the half-cell offset makes dense levels wrap around.
    points = torch.cat([inside, torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.0]]).double()])
    expected = [reference_features(point, table.numpy(), CONFIG) for point in points.tolist()]
    features, slopes = (torch.from_numpy(np.stack(part)) for part in zip(*expected, strict=True))
    ours, jacobian = encode(points, table, layout, num_levels=4, with_jacobian=True)
    assert jacobian is not None
    torch.testing.assert_close(ours, features, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(jacobian, slopes, rtol=1e-10, atol=1e-10)
    fast, fast_jacobian = encode_numba(points[:37].float(), table.float(), layout, 4)
    torch.testing.assert_close(fast.double(), features[:37], rtol=0.0, atol=1e-4)
    torch.testing.assert_close(fast_jacobian.double(), slopes[:37], rtol=1e-4, atol=1e-3)
    corner, _ = encode_numba(points[37:].float(), table.float(), layout, 4)
    torch.testing.assert_close(corner.double(), features[37:], rtol=0.0, atol=1e-4)


def test_slopes_are_the_derivative_by_position() -> None:
    layout = grid_layout(CONFIG)
    table = torch.randn(layout.num_entries, 2, generator=torch.Generator().manual_seed(2)).double()
    points = points_inside_cells(layout, 8).requires_grad_()
    features, jacobian = encode(points, table, layout, num_levels=4, with_jacobian=True)
    assert jacobian is not None
    for column in range(features.shape[1]):
        (gradient,) = torch.autograd.grad(features[:, column].sum(), points, retain_graph=True)
        torch.testing.assert_close(jacobian[:, :, column], gradient)


def test_levels_that_are_not_in_use_are_zero() -> None:
    layout = grid_layout(CONFIG)
    table = torch.ones(layout.num_entries, 2)
    points = torch.rand((20, 3), generator=torch.Generator().manual_seed(0))
    features, jacobian = encode(points, table, layout, num_levels=3, with_jacobian=True)
    assert jacobian is not None
    torch.testing.assert_close(features[:, :6], torch.ones(20, 6))
    assert (features[:, 6:] == 0.0).all()
    assert (jacobian[..., 6:] == 0.0).all()


@pytest.mark.parametrize("num_levels", [4, 3])
def test_the_kernels_gradient_by_the_table_is_the_transpose_of_its_interpolation(num_levels: int) -> None:
    layout = grid_layout(CONFIG)
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(layout.num_entries, 2, generator=generator).double().requires_grad_()
    points = points_inside_cells(layout, 1003)
    count, width, blocks = len(points), 8, -(-len(points) // LANES)
    by_feature, by_slope = torch.randn(2, count, width, generator=generator)
    along = torch.randn(count, 3, generator=generator)
    features, jacobian = encode(points, table, layout, num_levels=num_levels, with_jacobian=True)
    assert jacobian is not None
    loss = (features * by_feature).sum() + torch.einsum("pdw,pd,pw->", jacobian, along.double(), by_slope.double())
    (expected,) = torch.autograd.grad(loss, table)

    def blocked(rows: Tensor) -> Tensor:
        padded = torch.zeros(blocks * LANES, width)
        padded[:count] = rows
        return padded.unflatten(0, (blocks, LANES)).transpose(1, 2).contiguous()

    gradient = torch.zeros(layout.num_entries, 2)
    for level in range(num_levels):
        encoding.encode_backward(
            level,
            num_levels,
            points.float().numpy(),
            *layout_arrays(layout, num_levels),
            blocked(by_feature).numpy(),
            blocked(by_slope).numpy(),
            along.numpy(),
            gradient.numpy(),
        )
    assert (gradient - expected).norm() < 1e-4 * expected.norm()
    assert expected[: layout.offsets[num_levels]].norm() > 0.0
    assert (gradient[layout.offsets[num_levels] :] == 0.0).all()


@pytest.mark.parametrize("place", [math.nan, math.inf, -math.inf, 1e30, -5.0, 7.0])
def test_a_point_that_is_nowhere_reads_and_writes_within_the_table(place: float) -> None:
    """Dense levels would follow it to any address: the process ended in a segmentation fault."""
    layout, count = grid_layout(CONFIG), 3 * LANES
    points = np.full((count, 3), place, np.float32)
    arrays = layout_arrays(layout, CONFIG.num_levels)
    table = np.ones((layout.num_entries, 2), np.float32)
    features = np.zeros((3, 2 * CONFIG.num_levels, LANES), np.float32)
    nothing = np.zeros((0, 3, 2 * CONFIG.num_levels, LANES), np.float32)
    encoding.encode(0, count, points, table, *arrays, features, nothing)
    if math.isfinite(place):
        # Eight ones, whatever their entries, interpolated or extrapolated with weights that add up to 1.
        assert np.isfinite(features).all()
    gradient = np.zeros_like(table)
    given = np.ones_like(features)
    encoding.encode_backward(0, 1, points, *arrays, given, np.zeros((0, 1, LANES), np.float32), points, gradient)
    assert gradient.shape == table.shape
