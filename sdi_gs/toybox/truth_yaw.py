"""The turn about the z axis at which a scene fits the truth best.

A prompt names a side by a word, "front view", that every azimuth of a sector of 90 degrees deserves, so that a scene
may be right and yet turned. A score that is free of this turn compares the scene as it looks from turned cameras. The
scene's light turns with it, as it does in the pictures that a prior knows.

Letters: V views, K objects or scenes, Y yaws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.cameras import FRONT_HALF_ANGLE_DEG, CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import Shown
from sdi_gs.toybox.truth_renders import FEW, TruthRenders, in_chunks

RenderFunction = Callable[[CameraBatch], RenderOutput]
"""Render the scored scene over white, on the CPU."""

MOST_YAW_DEG = FRONT_HALF_ANGLE_DEG
"""Largest turn: half a sector, at which half of the views still show the side that their word names."""
COARSE_STEP_DEG = 9.0
"""Step of the first grid: 11 yaws."""
FINE_STEPS_DEG = (4.5, 2.25, 1.125)
"""Distances to the neighbours that are tried next, around the best yaw so far."""


@dataclass(frozen=True, kw_only=True)
class Turned:
    """A scene as it looks when its turn is undone."""

    yaw_deg: float
    """The scene's turn from truth, from +x towards +y."""
    views: RenderOutput
    """Its V views with that turn undone."""
    scores: Tensor  # [K, 2] mean PSNR and mean silhouette IoU over the views, against each of K objects


def compare(views: RenderOutput, items: Sequence[Shown], renders: TruthRenders) -> Tensor:  # [K, 2]
    """Return the mean PSNR and the mean silhouette IoU over the views, against each of K objects."""
    scores = []
    for chunk in in_chunks(items):
        truth = renders.views_like(chunk, views)
        psnr = metrics.psnr(views.rgb, truth.rgb).mean(dim=1)
        iou = metrics.silhouette_iou(views.alpha, truth.alpha).mean(dim=1)
        scores.append(torch.stack([psnr, iou], dim=1))
    return torch.cat(scores)


def turned(cameras: CameraBatch, yaw_deg: float) -> CameraBatch:
    """Turn cameras about the z axis, from +x towards +y."""
    angle = torch.deg2rad(torch.tensor(yaw_deg, dtype=torch.float64))
    turn = torch.eye(4, dtype=torch.float64)
    turn[0, 0] = turn[1, 1] = angle.cos()
    turn[1, 0] = angle.sin()
    turn[0, 1] = -angle.sin()
    return CameraBatch(
        world_from_camera=(turn @ cameras.world_from_camera.double()).to(cameras.world_from_camera.dtype),
        intrinsics=cameras.intrinsics,
        azimuth_deg=(cameras.azimuth_deg + yaw_deg) % 360.0,
        elevation_deg=cameras.elevation_deg,
        width=cameras.width,
        height=cameras.height,
    )


def undo_yaw(
    untouched: Turned,
    render: RenderFunction,
    items: Sequence[Shown],  # K
    renders: TruthRenders,
) -> Turned:
    """Search the turn with the highest PSNR against any of K objects, and return the scene with it undone.

    The search looks at every third view. It tries a grid of 11 yaws against all objects, then neighbours at smaller
    and smaller distances against the object that fits best. ``untouched`` is the scene at yaw 0, which is returned
    where the turn that was found is no better in all views.
    """
    few = renders.few
    half = round(MOST_YAW_DEG / COARSE_STEP_DEG)
    grid = [COARSE_STEP_DEG * k for k in range(-half, half + 1) if k != 0]
    at_zero = RenderOutput(rgb=untouched.views.rgb[FEW], alpha=untouched.views.alpha[FEW])
    psnr = _psnr_of_each({0.0: at_zero} | {yaw: render(turned(few.cameras, yaw)) for yaw in grid}, items, few)
    best = max(psnr, key=lambda yaw: psnr[yaw].max().item())
    nearest, highest = items[int(psnr[best].argmax())], psnr[best].max().item()
    for step in FINE_STEPS_DEG:
        for yaw in (best - step, best + step):
            if abs(yaw) <= MOST_YAW_DEG:
                found = _psnr_of_each({yaw: render(turned(few.cameras, yaw))}, [nearest], few)[yaw].item()
                if found > highest:
                    best, highest = yaw, found
    if best == 0.0:
        return untouched
    views = render(turned(renders.cameras, best))
    undone = Turned(yaw_deg=best, views=views, scores=compare(views, items, renders))
    return undone if undone.scores[:, 0].max() > untouched.scores[:, 0].max() else untouched


def _psnr_of_each(
    views: Mapping[float, RenderOutput], items: Sequence[Shown], renders: TruthRenders
) -> dict[float, Tensor]:  # yaw -> [K]
    """Return the mean PSNR over the views of every yaw against each of K objects."""
    found: dict[float, list[Tensor]] = {yaw: [] for yaw in views}
    # Objects outside, so that each is rendered once where there are too many to keep.
    for chunk in in_chunks(items):
        for yaw, seen in views.items():
            found[yaw].append(metrics.psnr(seen.rgb, renders.views_like(chunk, seen).rgb).mean(dim=1))
    return {yaw: torch.cat(parts) for yaw, parts in found.items()}
