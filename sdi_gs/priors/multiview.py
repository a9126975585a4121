"""Stable Diffusion 2.1's U-Net over four views at once (MVDream, arXiv 2308.16512), on diffusers' own blocks.

Two things differ from 2.1. Each view's camera goes through an MLP and is added to the embedding of the timestep, which
diffusers' U-Net does with its class labels (``class_embed_type="projection"``). And the tokens of a group's views
attend to each other in every self-attention, which is one attention over four times as many tokens.

Letters: B rows, V views, L tokens, D width of the tokens.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.errors import UserError
from sdi_gs.priors.kinds import views_of
from sdi_gs.priors.parts import first_weight

GROUP = 4
"""Views that the published network was trained on."""


class AcrossViews:
    """Attention of diffusers in which the views of a group attend to each other; attention to the text stays as is."""

    def __init__(self, within: Any) -> None:
        """Let ``within``, one of diffusers' processors, compute the attention."""
        self._within = within

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # [B, L, D], the views of a group after each other
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:  # [B, L, D]
        """Return the attention's output."""
        if encoder_hidden_states is not None:
            return self._within(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        rows, tokens, width = hidden_states.shape
        joined = hidden_states.reshape(rows // GROUP, GROUP * tokens, width)
        return self._within(attn, joined, None, attention_mask, temb).reshape(rows, tokens, width)


def seen_from(unet: Any, cameras: CameraBatch | None, rows: int, *, name: str) -> dict[str, Tensor]:
    """Return the U-Net's argument for the cameras of a call of ``rows`` rows; none for a network of single views.

    Raises UserError, for the model of that name, without cameras and for views that are no whole groups.
    """
    if views_of(unet.config) == 1:
        return {}
    if cameras is None:
        raise UserError(f"{name} needs to know the cameras of its views: use --guidance.views cameras")
    if len(cameras) % GROUP or rows % len(cameras):
        raise UserError(
            f"{name} takes {GROUP} views at equal turns together, got {len(cameras)} in {rows} rows: set "
            f"cameras.views_per_group to {GROUP}"
        )
    weight = first_weight(unet)
    numbers = camera_numbers(cameras).to(weight.device, weight.dtype)
    return {"class_labels": numbers.repeat(rows // len(cameras), 1)}


def camera_numbers(cameras: CameraBatch) -> Tensor:  # [V, 16]
    """Return what the network knows of the cameras, normalised as it was published.

    These are the matrices from camera to world, row by row, with OpenGL's camera axes (x right, y up, z backwards), in
    a world with z up, and with places moved to the unit sphere.
    """
    poses = cameras.world_from_camera.clone()
    poses[:, :3, 1:3] *= -1.0
    poses[:, :3, 3] /= poses[:, :3, 3].norm(dim=1, keepdim=True) + 1e-8
    return poses.flatten(1)
