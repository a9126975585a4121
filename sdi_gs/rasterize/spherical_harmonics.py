"""Real spherical harmonics up to degree 3, in the order and signs of 3D Gaussian splatting.

Source: Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013, with the constants of gsplat 1.5.3
``csrc/SphericalHarmonicsCUDA.cu``.

Letters: K bases.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_DEGREE = 3

_DEGREE_0 = 0.2820947917738781
_DEGREE_1 = 0.48860251190292
_DEGREE_2 = (1.092548430592079, 0.9461746957575601, 0.3153915652525201, 0.5462742152960395)
_DEGREE_3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def harmonic_bases(
    degree: int,
    directions: Tensor,  # [..., 3] need not be unit
) -> Tensor:  # [..., (degree + 1)^2]
    """Return the basis functions at each direction, differentiable with respect to the direction."""
    x, y, z = F.normalize(directions, dim=-1).unbind(-1)
    bases = [torch.full_like(x, _DEGREE_0)]
    if degree >= 1:
        bases += [-_DEGREE_1 * y, _DEGREE_1 * z, -_DEGREE_1 * x]
    if degree >= 2:
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        a, b, c, d = _DEGREE_2
        bases += [a * xy, -a * yz, b * zz - c, -a * xz, d * (xx - yy)]
        if degree >= 3:
            a, b, c, d, e = _DEGREE_3
            bases += [
                -a * y * (3.0 * xx - yy),
                b * xy * z,
                -c * y * (5.0 * zz - 1.0),
                d * z * (5.0 * zz - 3.0),
                -c * x * (5.0 * zz - 1.0),
                e * z * (xx - yy),
                -a * x * (xx - 3.0 * yy),
            ]
    return torch.stack(bases, dim=-1)


def harmonic_colors(
    degree: int,
    directions: Tensor,  # [..., 3] from the camera to the Gaussian
    coefficients: Tensor,  # [..., K, D], K >= (degree + 1)^2
) -> Tensor:  # [..., D]
    """Return the value of each harmonic series in its direction; coefficients above ``degree`` are ignored."""
    bases = harmonic_bases(degree, directions)
    return torch.einsum("...k,...kd->...d", bases, coefficients[..., : bases.shape[-1], :])
