"""Nearest neighbours against brute force in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdi_gs.representations.neighbours import neighbour_distances


def brute_force(points: Tensor, num_neighbours: int) -> Tensor:
    wide = points.double()
    distances = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf).sort(dim=-1).values[:, :num_neighbours].to(points)


def clouds() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ball = torch.randn(1500, 3, generator=generator)
    flat = ball * torch.tensor([1.0, 3.0, 0.0])
    # Two knots far apart along x and one stray point between them: windows have to grow.
    knots = torch.cat(
        [1e-3 * ball[:700], 1e-3 * ball[700:1400] + torch.tensor([50.0, 0.0, 0.0]), torch.tensor([[20.0, 0.0, 0.0]])]
    )
    column = torch.cat([ball * torch.tensor([1e-4, 1.0, 1.0]), torch.tensor([[9.0, 9.0, 9.0]])])
    twice = torch.cat([ball[:700], ball[:700]])
    same = torch.cat([torch.ones(700, 3), ball[:700]])
    return {
        **{"ball": ball, "flat": flat, "knots": knots, "column": column, "twice": twice, "few": ball[:5], "same": same},
        **{name: make(1500) for name, make in CROWDED.items()},
    }


def two_planes(count: int) -> Tensor:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    points[:, 0] = 10.0 * (points[:, 0] > 0.5)
    return points


def one_place(count: int) -> Tensor:
    points = torch.zeros(count, 3)
    points[0] = 1.0
    return points


def many_scales(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, generator=generator) * torch.exp2(20.0 * torch.rand(count, 1, generator=generator))


CROWDED = {"two planes": two_planes, "one place": one_place, "many scales": many_scales}
"""Points whose order along any axis does not show which are near."""


class Compared(TorchDispatchMode):
    """Counts the distances among which the smallest are searched."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.topk.default:
            self.count += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CROWDED)
def test_the_work_grows_with_the_points_and_not_with_their_square(name: str) -> None:
    work = {}
    for count in (3_000, 12_000):
        with Compared() as compared:
            neighbour_distances(CROWDED[name](count), 3)
        work[count] = compared.count
    assert work[12_000] < 6 * work[3_000]
    assert work[12_000] < 0.3 * 12_000**2


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize("num_neighbours", [1, 3])
def test_distances_are_those_of_all_pairs(name: str, num_neighbours: int) -> None:
    points = clouds()[name]
    found = neighbour_distances(points, num_neighbours)
    torch.testing.assert_close(found, brute_force(points, num_neighbours), rtol=1e-5, atol=1e-7)


def test_a_point_is_not_its_own_neighbour_but_a_twin_is() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
    assert neighbour_distances(points, 1)[:, 0].tolist() == [0.0, 0.0, 5.0]


def test_too_few_points_have_no_neighbours() -> None:
    with pytest.raises(ValueError, match="3 points have no 3 neighbours"):
        neighbour_distances(torch.zeros(3, 3), 3)
