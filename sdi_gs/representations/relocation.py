"""Torch versions of the two CUDA-only functions that gsplat's MCMC densification calls.

gsplat 1.5.3 binds both by name in ``gsplat.strategy.ops``; ``device_dispatch`` replaces them there for the length of a
block by versions that choose by the tensors' device.

Letters: N Gaussians.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
from gsplat.strategy import ops
from torch import Tensor

MAX_RATIO = 51
"""More copies of one Gaussian than this are treated as this many (gsplat's table of binomials)."""


def relocated_torch(
    opacities: Tensor,  # [N] in (0, 1)
    scales: Tensor,  # [N, 3] linear
    ratios: Tensor,  # [N] copies that share the place of each
) -> tuple[Tensor, Tensor]:
    """Compute opacities [N] and scales [N, 3] of copies that together look like the original (3DGS-MCMC, eq. 9).

    The paper's double sum over i and k collapses, since the binomials C(i-1, k) add up over i to C(n, k+1). Computed in
    float64, since its terms alternate in sign and cancel.
    """
    copies = ratios.clamp(1, MAX_RATIO).double()
    before = opacities.double()
    after = -torch.expm1(torch.log1p(-before) / copies)
    order = torch.arange(1, MAX_RATIO + 1, dtype=torch.float64, device=opacities.device)
    # log C(n, j), minus infinity where j > n.
    chosen = torch.lgamma(copies[:, None] + 1.0) - torch.lgamma(order + 1.0)
    chosen = chosen - torch.lgamma((copies[:, None] - order).clamp_min(0.0) + 1.0)
    chosen = chosen.masked_fill(order > copies[:, None], -torch.inf)
    signs = torch.where(order % 2 == 1, 1.0, -1.0)
    terms = signs * torch.exp(chosen + order * torch.log(after)[:, None]) / torch.sqrt(order)
    factor = before / terms.sum(dim=-1)
    return after.to(opacities), (scales.double() * factor[:, None]).to(scales)


def _compute_relocation(
    opacities: Tensor,  # [N]
    scales: Tensor,  # [N, 3]
    ratios: Tensor,  # [N]
    binoms: Tensor,  # [51, 51]
) -> tuple[Tensor, Tensor]:
    if opacities.is_cuda:
        return _GSPLAT_RELOCATION(opacities, scales, ratios, binoms)
    return relocated_torch(opacities, scales, ratios)


def _covariances(
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    compute_covar: bool = True,
    compute_preci: bool = True,
    triu: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    function = _GSPLAT_COVARIANCES if quats.is_cuda else _quat_scale_to_covar_preci
    return function(quats, scales, compute_covar, compute_preci, triu)


_GSPLAT_RELOCATION = ops.compute_relocation
_GSPLAT_COVARIANCES = ops.quat_scale_to_covar_preci


@contextmanager
def device_dispatch() -> Iterator[None]:
    """Make gsplat's densification operators run on any device."""
    ops.compute_relocation, ops.quat_scale_to_covar_preci = _compute_relocation, _covariances
    try:
        yield
    finally:
        ops.compute_relocation, ops.quat_scale_to_covar_preci = _GSPLAT_RELOCATION, _GSPLAT_COVARIANCES
