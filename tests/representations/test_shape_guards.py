"""Needles are shortened, floaters are found, and nothing else is touched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.shape_guards import cap_axis_ratio, floaters, widen_axes


def blob(count: int, centre: tuple[float, float, float], radius: float, seed: int = 0) -> Tensor:  # [count, 3]
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)))
    return torch.tensor(centre) + radius * directions


def test_needles_are_shortened_to_the_cap_and_discs_are_left() -> None:
    scales = torch.tensor([[0.1, 0.1, 1.6], [1.6, 0.2, 0.1], [0.001, 1.0, 1.0], [0.1, 0.3, 0.2]])
    log_scales = torch.nn.Parameter(scales.log())
    cap_axis_ratio(log_scales, 4.0)
    expected = torch.tensor([[0.1, 0.1, 0.4], [0.8, 0.2, 0.1], [0.001, 1.0, 1.0], [0.1, 0.3, 0.2]])
    torch.testing.assert_close(log_scales.detach().exp(), expected)
    before = log_scales.detach().clone()
    cap_axis_ratio(log_scales, 4.0)
    torch.testing.assert_close(log_scales.detach(), before)


def test_a_cap_of_one_leaves_no_longest_axis() -> None:
    log_scales = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    cap_axis_ratio(log_scales, 1.0)
    ordered = log_scales.sort(dim=-1).values
    torch.testing.assert_close(ordered[:, 2], ordered[:, 1])


def test_thin_axes_are_widened_to_the_limit_and_others_are_left() -> None:
    log_scales = torch.nn.Parameter(torch.tensor([[0.001, 0.02, 0.3], [0.05, 0.01, 0.004]]).log())
    widen_axes(log_scales, 0.02)
    torch.testing.assert_close(log_scales.detach().exp(), torch.tensor([[0.02, 0.02, 0.3], [0.05, 0.02, 0.02]]))


def found_in(means: Tensor, opacities: Tensor | float = 0.9, *, min_share: float = 0.05, width: float = 0.02) -> Tensor:
    """Indices of the floaters."""
    opaque = opacities if isinstance(opacities, Tensor) else torch.full((len(means),), opacities)
    return floaters(means, torch.full((len(means),), width), opaque, min_share).nonzero()[:, 0]


MAIN = blob(400, (0.0, 0.0, 0.0), 0.5)
SPECK = blob(8, (1.3, 0.0, 0.0), 0.05)
BRIDGE = torch.stack([torch.linspace(0.5, 1.3, 40), torch.zeros(40), torch.zeros(40)], dim=-1)


def test_a_small_piece_beside_the_main_mass_is_a_floater() -> None:
    assert found_in(torch.cat([MAIN, SPECK])).tolist() == list(range(400, 408))
    assert found_in(torch.cat([SPECK, MAIN])).tolist() == list(range(8))


def test_a_large_piece_is_part_of_the_object() -> None:
    assert not len(found_in(torch.cat([MAIN, blob(60, (1.2, 0.0, 0.0), 0.1)])))


def test_a_bridge_makes_one_piece_of_two() -> None:
    assert not len(found_in(torch.cat([MAIN, SPECK, BRIDGE])))


def test_haze_neither_connects_nor_is_removed() -> None:
    opacities = torch.cat([torch.full((408,), 0.9), torch.full((40,), 0.1)])
    assert found_in(torch.cat([MAIN, SPECK, BRIDGE]), opacities).tolist() == list(range(400, 408))


def test_what_is_far_outside_is_a_floater_whatever_its_share() -> None:
    means = torch.cat([blob(990, (0.0, 0.0, 0.0), 0.5), torch.full((10, 3), 40.0)])
    assert found_in(means, min_share=0.0).tolist() == list(range(990, 1000))


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (5.0, -3.0, 2.0)])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_place_and_size_of_the_object_do_not_matter(shift: tuple[float, float, float], size: float) -> None:
    means = torch.cat([MAIN, SPECK]) * size + torch.tensor(shift)
    assert found_in(means, width=0.02 * size).tolist() == list(range(400, 408))


def test_a_sparse_cloud_does_not_fall_into_dust() -> None:
    # Forty Gaussians as wide as their distances: cells grow with them.
    sparse = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    assert len(found_in(sparse, width=0.5)) <= 4
    # And where none of the pieces is the main one, nobody is to go.
    assert not len(found_in(sparse, width=1e-3))


def test_where_nothing_is_solid_there_are_no_floaters() -> None:
    assert not len(found_in(torch.randn(20, 3), 0.05, min_share=0.5))
    assert not len(found_in(torch.zeros(0, 3)))


def test_a_single_point_is_its_own_main_mass() -> None:
    assert not len(found_in(torch.full((1, 3), 7.0)))


def test_winding_pieces_are_followed_to_their_end() -> None:
    # A spiral, one cell thick: its ends are neighbours by the path only.
    angle = torch.linspace(0.0, 6.0 * math.pi, 3000)
    means = torch.stack([0.2 * angle * angle.cos() / math.pi, 0.2 * angle * angle.sin() / math.pi, 0 * angle], dim=-1)
    assert not len(found_in(means, min_share=0.4))
    gap = means[(angle < 9.0) | (angle > 11.0)]
    # Cut in two, 9 to 7.8 of the angle: the shorter part goes.
    assert found_in(gap, min_share=0.5).tolist() == list(range(int((angle < 9.0).sum()), len(gap)))
