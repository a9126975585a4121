"""Perp-Neg: guidance towards a blend of view words and away from the wrong ones.

Formula of Armandpour et al. (arXiv 2304.04968), weights and blends of threestudio's prompt processor.

Letters: B images, N negatives per image, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from sdi_gs.cameras import ViewWord, view_word, wrap_degrees

NUM_NEGATIVES = 2

# a, b, c of a exp(-b r) + c for the side of each negative among the two visible sides (published constants).
_FRONT_AMONG_FRONT_AND_SIDE = (4.0, 0.5, -2.426)
_SIDE_AMONG_FRONT_AND_SIDE = (4.0, 0.5, -2.426)
_SIDE_AMONG_SIDE_AND_BACK = (1.0, 0.5, -0.606)
_FRONT_AMONG_SIDE_AND_BACK = (1.0, 0.5, 0.967)

_SMALLEST_SQUARE = 1e-6
"""Lower bound of the |y|^2 that a projection divides by (published code)."""


@dataclass(frozen=True, kw_only=True)
class ViewBlend:
    """View words for one camera, with their weights."""

    positive: tuple[tuple[ViewWord, float], ...]
    """View words to blend, with weights that sum to 1."""
    negative: tuple[tuple[ViewWord, float], ...]
    """NUM_NEGATIVES view words to push away from, with weights of at most 0."""


@dataclass(frozen=True, kw_only=True)
class PerpNegBranches:
    """The negative branches of a batch of images."""

    embeddings: Tensor  # [B, N, L, E]
    weights: Tensor  # [B, N], each at most 0


def view_blend(azimuth_deg: float, elevation_deg: float) -> ViewBlend:
    """Return the blend for a camera: front and side in the front half, side and back behind, overhead from above."""
    if view_word(azimuth_deg, elevation_deg) == "overhead view":
        return ViewBlend(positive=(("overhead view", 1.0),), negative=(("overhead view", 0.0), ("overhead view", 0.0)))
    turn = abs(wrap_degrees(azimuth_deg)) / 90.0
    if turn < 1.0:
        front = 1.0 - turn
        return ViewBlend(
            positive=(("front view", front), ("side view", 1.0 - front)),
            negative=(
                ("front view", -_decay(_FRONT_AMONG_FRONT_AND_SIDE, front)),
                ("side view", -_decay(_SIDE_AMONG_FRONT_AND_SIDE, 1.0 - front)),
            ),
        )
    side = 2.0 - turn
    return ViewBlend(
        positive=(("side view", side), ("back view", 1.0 - side)),
        negative=(
            ("side view", -_decay(_SIDE_AMONG_SIDE_AND_BACK, side)),
            ("front view", -_decay(_FRONT_AMONG_SIDE_AND_BACK, side)),
        ),
    )


def perpendicular(
    vector: Tensor,  # [..., C, h, w]
    direction: Tensor,  # [B, C, h, w]
) -> Tensor:
    """Return the part of each image's vector that is orthogonal to its direction, [..., C, h, w]."""
    dims = (-3, -2, -1)
    inner = (vector * direction).sum(dim=dims, keepdim=True)
    square = direction.square().sum(dim=dims, keepdim=True)
    return vector - inner / square.clamp_min(_SMALLEST_SQUARE) * direction


def combine_branches(
    branches: Tensor,  # [2 + N, B, C, h, w]: e_c, e_u, and N negatives e_i
    weights: Tensor,  # [B, N]
    scale: float,
) -> Tensor:
    """Return the guided noise e_u + scale (d + sum_i w_i perp(e_i - e_u, d)) with d = e_c - e_u, [B, C, h, w]."""
    conditional, unconditional, negatives = branches[0], branches[1], branches[2:]
    towards = conditional - unconditional
    # All negatives at once: an operation is a launch on a card, and the inversion comes here in every step.
    pushes = weights.to(towards).T[..., None, None, None] * perpendicular(negatives - unconditional, towards)
    guided = towards
    for push in pushes:
        guided = guided + push
    return unconditional + scale * guided


def _decay(constants: tuple[float, float, float], share: float) -> float:
    scale, rate, shift = constants
    return scale * math.exp(-rate * share) + shift
