"""Rasterise a step's cameras a few at a time, with one joined meta dict for densification.

Letters: B cameras, N Gaussians.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.row_groups import recomputed, row_groups


def render_in_groups(
    gaussians: Gaussians,
    cameras: CameraBatch,  # B of them
    background: Tensor,  # [B, 3] in [0, 1]
    at_once: int,
    *,
    with_depth: bool = False,
) -> RenderOutput:
    """Render all cameras, ``at_once`` of them together (0: all).

    At most one group's intermediate tensors are kept for the backward pass at a time.
    """
    groups = row_groups(len(cameras), at_once)
    if len(groups) == 1:
        return gaussians.render(cameras, background, with_depth=with_depth)
    render = partial(gaussians.render, with_depth=with_depth)
    parts = [recomputed(render, cameras.rows(group), background[group]) for group in groups]
    depths = [part.depth for part in parts if part.depth is not None]
    return RenderOutput(
        rgb=torch.cat([part.rgb for part in parts]),
        alpha=torch.cat([part.alpha for part in parts]),
        depth=torch.cat(depths) if depths else None,
        meta=joined_meta([part.meta for part in parts]),
    )


def joined_meta(metas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the meta dicts of renders of the same Gaussians (not packed), as far as gsplat's strategies read them.

    The joined ``means2d`` [B, N, 2] is not part of the graph; the backward pass fills its gradient from the parts'.
    """
    means2d = torch.cat([meta["means2d"].detach() for meta in metas])
    if torch.is_grad_enabled():
        _gather_gradients(means2d.requires_grad_(), [meta["means2d"] for meta in metas])
    return {
        "means2d": means2d,
        "radii": torch.cat([meta["radii"] for meta in metas]),
        "gaussian_ids": None,
        "width": metas[0]["width"],
        "height": metas[0]["height"],
        "n_cameras": sum(meta["n_cameras"] for meta in metas),
    }


def _gather_gradients(whole: Tensor, parts: Sequence[Tensor]) -> None:
    """Fill the rows of ``whole.grad`` with the gradients of the parts as these are computed."""
    gradient = torch.zeros_like(whole)
    whole.grad = gradient
    begin = 0
    for part in parts:
        part.register_hook(gradient[begin : begin + len(part)].copy_)
        begin += len(part)
