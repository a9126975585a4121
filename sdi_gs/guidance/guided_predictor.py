"""A prior under guidance: classifier-free or Perp-Neg.

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.guidance.perp_neg import combine_branches
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.row_groups import row_groups, views_together
from sdi_gs.settings.compute import ComputeConfig

Branches = Literal["conditional", "unconditional", "all"]


def needed_branches(scale: float, *, perp_neg: bool = False) -> Branches:
    """Return which branches a guidance scale needs; those of weight 0 are not evaluated."""
    if scale == 1.0 and not perp_neg:
        return "conditional"
    return "unconditional" if scale == 0.0 else "all"


class GuidedPredictor:
    """The prior under guidance for one batch of prompts; ``calls`` counts its calls.

    All branches go into one call of the prior, branch after branch and each in the order of the images, unless the
    compute settings allow fewer rows at once. Views that the prior denoises together stay together.
    """

    def __init__(self, prior: DiffusionPrior, conditions: Conditions, compute: ComputeConfig | None = None) -> None:
        self._prior = prior
        self._perp_neg = conditions.perp_neg
        self._branches = [conditions.prompt_embeddings, conditions.negative_embeddings]
        if conditions.perp_neg is not None:
            self._branches += conditions.perp_neg.embeddings.unbind(dim=1)
        self._cameras = conditions.cameras
        self._compute = compute or ComputeConfig()
        # The same tensor at every call, because a prior may cache what it computes from it.
        self._grouped: dict[tuple[int, ...], list[tuple[slice, Tensor, CameraBatch | None]]] = {}
        self.calls = 0

    def __call__(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        scale: float,
    ) -> Tensor:
        """Guided noise [B, C, h, w]: classifier-free guidance e_u + scale (e_c - e_u), or Perp-Neg if it is on.

        Branches of weight 0 are not evaluated.
        """
        needed = needed_branches(scale, perp_neg=self._perp_neg is not None)
        if needed == "all":
            return self.with_conditional(noised_latents, timestep, scale)[0]
        self.calls += 1
        return self._predict(noised_latents, timestep, (0 if needed == "conditional" else 1,))[0]

    def with_conditional(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Return guided noise, and the noise predicted with the prompt alone, both [B, C, h, w]."""
        self.calls += 1
        branches = range(len(self._branches))
        noises = _joined(
            [
                self._predict(noised_latents, timestep, tuple(branches[group]))
                for group in row_groups(len(branches), self._compute.branches_at_once)
            ]
        )
        if self._perp_neg is None:
            conditional, unconditional = noises
            return unconditional + scale * (conditional - unconditional), conditional
        return combine_branches(noises, self._perp_neg.weights, scale), noises[0]

    def _predict(
        self,
        noised_latents: Tensor,  # [B, C, h, w]
        timestep: int,
        branches: tuple[int, ...],  # N of them
    ) -> Tensor:  # [N, B, C, h, w]
        """Return the noise of some branches, computed for a group of images at a time."""
        if branches not in self._grouped:
            self._grouped[branches] = [
                (
                    images,
                    _joined([self._branches[branch][images] for branch in branches]),
                    None if self._cameras is None else self._cameras.rows(images),
                )
                for images in row_groups(
                    len(noised_latents), self._compute.views_at_once, together=views_together(self._prior)
                )
            ]
        noises = [
            self._prior.predict_noise(_joined([noised_latents[images]] * len(branches)), timestep, embeddings, cameras)
            for images, embeddings, cameras in self._grouped[branches]
        ]
        return _joined([noise.unflatten(0, (len(branches), -1)) for noise in noises], dim=1)


def _joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate all parts along a dimension; a single part is returned without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)
