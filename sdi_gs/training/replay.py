"""Views with their targets, and the latest of them, which are trained on again.

Letters: B views, H W pixels, C latent channels, h w latent pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, joined_cameras
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.losses import distillation_loss

Decode = Callable[[Tensor], Tensor]
"""Latents [B, C, h, w] -> pictures [B, H, W, 3] in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class TargetViews:
    """Views and what they should look like; without gradients."""

    cameras: CameraBatch
    background: Tensor  # [B, 3] in [0, 1]
    target: Tensor  # [B, C, h, w] the denoised latents
    pictures: Tensor | None = None
    """[B, H, W, 3] the decoded target; None where the loss compares latents."""

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, chosen: slice) -> TargetViews:
        """Return some of the views."""
        return TargetViews(
            cameras=self.cameras.rows(chosen),
            background=self.background[chosen],
            target=self.target[chosen],
            pictures=None if self.pictures is None else self.pictures[chosen],
        )

    def distance(
        self,
        pictures: Tensor,  # [B, H, W, 3] in [0, 1]
        latents: Tensor | None,  # [B, C, h, w]
    ) -> Tensor:
        """Return the distance of renders from the decoded targets, or of their latents where none are decoded."""
        if self.pictures is not None:
            return distillation_loss(pictures, self.pictures)
        if latents is None:
            raise ValueError("latents are needed where no pictures are compared")
        return distillation_loss(latents, self.target)


class ReplayBuffer:
    """The targets of the latest rounds."""

    def __init__(self, max_views: int | None) -> None:
        """Keep whole rounds of at most ``max_views`` views together, and always the latest; None for it alone."""
        self._max_views = max_views
        self._rounds: list[TargetViews] = []

    def __len__(self) -> int:
        """Return the number of views."""
        return sum(map(len, self._rounds))

    def push(self, views: TargetViews) -> None:
        """Add a round, and drop the oldest for which there is no room."""
        self._rounds.append(views)
        while len(self._rounds) > 1 and (self._max_views is None or len(self) > self._max_views):
            del self._rounds[0]

    def keep_latest(self) -> None:
        """Drop all rounds but the latest."""
        del self._rounds[:-1]

    def draw(self, count: int, generator: torch.Generator) -> TargetViews:
        """Draw ``count`` different views, or all if there are no more; ``generator`` is on the host."""
        rows = [(views, slice(row, row + 1)) for views in self._rounds for row in range(len(views))]
        chosen = torch.randperm(len(rows), generator=generator)[:count].tolist()
        return _joined([views.rows(row) for views, row in map(rows.__getitem__, chosen)])

    def state(self) -> list[dict[str, Any]]:
        """Return the rounds without their pictures, which are decoded again."""
        return [
            {
                "cameras": {
                    "world_from_camera": views.cameras.world_from_camera,
                    "intrinsics": views.cameras.intrinsics,
                    "azimuth_deg": views.cameras.azimuth_deg,
                    "elevation_deg": views.cameras.elevation_deg,
                    "width": views.cameras.width,
                    "height": views.cameras.height,
                },
                "background": views.background,
                "target": views.target,
            }
            for views in self._rounds
        ]

    def load_state(
        self, state: Sequence[dict[str, Any]], *, device: torch.device, decode: Decode | None = None
    ) -> None:
        """Restore what ``state`` returned; ``decode`` makes the pictures, round by round as at first."""
        self._rounds = []
        for saved in state:
            target = saved["target"].to(device)
            self._rounds.append(
                TargetViews(
                    cameras=CameraBatch(**saved["cameras"]).to(device),
                    background=saved["background"].to(device),
                    target=target,
                    pictures=None if decode is None else decode(target),
                )
            )


def most_kept_views(config: RunConfig) -> int:
    """Return how many views a run keeps at most: whole rounds, of which the last is always kept."""
    replay, views = config.replay, config.views_per_step
    if replay.steps_per_target == 1:
        return 0
    rounds = math.ceil(config.total_steps / replay.steps_per_target)
    return views * min(max((replay.views or 0) // views, 1), rounds)


def bytes_per_view(image_size: int, latent_numbers: int, *, pictures: bool) -> int:
    """Return the bytes of a kept view: float32 latents, and the decoded target if it is kept."""
    return 4 * (latent_numbers + (3 * image_size**2 if pictures else 0))


def _joined(parts: Sequence[TargetViews]) -> TargetViews:
    """Return all views of the parts in order."""
    pictures = [views.pictures for views in parts if views.pictures is not None]
    return TargetViews(
        cameras=joined_cameras([views.cameras for views in parts]),
        background=torch.cat([views.background for views in parts]),
        target=torch.cat([views.target for views in parts]),
        pictures=torch.cat(pictures) if pictures else None,
    )
