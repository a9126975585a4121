"""Rotation of spherical harmonics, which keeps view-dependent colours right when a scene changes its axes.

Wigner matrices of the real harmonics by the recursion of Ivanic and Ruedenberg (J. Phys. Chem. 1996, 100,
6342 and the erratum of 1998), in the order and signs of INRIA's and gsplat's basis: m = -l..l, and
(-y, z, -x) for band 1.

Letters: N splats, K coefficients per channel above band 0 (3, 8 or 15).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotate_sh(
    sh_rest: Tensor,  # [N, K, 3]
    rotation: Tensor,  # [3, 3]
) -> Tensor:
    """Return coefficients [N, K, 3] whose colour in direction ``rotation @ d`` is the input's colour in direction d."""
    first_band = _first_band(rotation)
    matrix, degree, start, bands = first_band, 1, 0, []
    while start < sh_rest.shape[1]:
        if degree > 1:
            matrix = _next_band(first_band, matrix, degree)
        band = sh_rest[:, start : start + 2 * degree + 1]
        signed = _signs(degree)[:, None] * matrix * _signs(degree)
        bands.append(torch.einsum("ij,njc->nic", signed.to(sh_rest), band))
        start += 2 * degree + 1
        degree += 1
    return torch.cat(bands, dim=1) if bands else sh_rest


def _first_band(rotation: Tensor) -> Tensor:
    """Return the matrix of band 1: the rotation with its axes in the order (y, z, x), float64 on the CPU."""
    order = torch.tensor([1, 2, 0])
    return rotation.detach().to("cpu", torch.float64)[order][:, order]


def _signs(degree: int) -> Tensor:
    """Return the factors (-1)^m between the recursion's basis and gsplat's."""
    return torch.tensor([(-1.0) ** m for m in range(-degree, degree + 1)], dtype=torch.float64)


def _next_band(first: Tensor, below: Tensor, degree: int) -> Tensor:
    """Return the matrix [2l+1, 2l+1] of band l = ``degree`` from those of band 1 and band l - 1."""
    orders = range(-degree, degree + 1)
    rows = [[_entry(first, below, degree, m, n) for n in orders] for m in orders]
    return torch.tensor(rows, dtype=torch.float64)


def _entry(first: Tensor, below: Tensor, degree: int, m: int, n: int) -> float:
    """Return one element, u U + v V + w W in the paper's table 1 (for m, n of band l = ``degree``)."""

    def product(i: int, a: int) -> float:
        """Return the paper's P of table 2 for the l and n of the enclosing function."""
        low, high = first[i + 1], below[a + degree - 1]
        if n == degree:
            return float(low[2] * high[-1] - low[0] * high[0])
        if n == -degree:
            return float(low[2] * high[0] + low[0] * high[-1])
        return float(low[1] * high[n + degree - 1])

    size = abs(m)
    scale = (degree + n) * (degree - n) if abs(n) < degree else 2 * degree * (2 * degree - 1)
    total = 0.0
    if size < degree:
        total += math.sqrt((degree + m) * (degree - m) / scale) * product(0, m)
    if m == 0:
        v = -math.sqrt(2 * (degree - 1) * degree / scale) / 2
        return total + v * (product(1, 1) + product(-1, -1))
    side = 1 if m > 0 else -1
    v = math.sqrt((degree + size - 1) * (degree + size) / scale) / 2
    if size == 1:
        total += v * math.sqrt(2) * product(side, 0)
    else:
        total += v * (product(1, m - side) - side * product(-1, side - m))
    if size < degree - 1:
        w = -math.sqrt((degree - size - 1) * (degree - size) / scale) / 2
        total += w * (product(1, m + side) + side * product(-1, -m - side))
    return total
