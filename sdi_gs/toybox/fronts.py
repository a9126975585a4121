"""How many fronts an object shows, whatever its turn: a count of two faces (docs/janus.md).

Every view of a ring is compared with true objects of the prompt, seen from all sides at the same elevation. The nearest
of these pictures is what the view looks like: an object's side by its angle, which is compared with nothing that the
prompt says, so that an object that is whole but turned has one front as well.

A view shows the front if the nearest picture is one of a front, within ``FRONT_DEG``, and the view is clearly one: on
the line between this picture and the nearest one of another side, beyond ``OTHER_DEG``, it lies in the third next to
the front. What is half front and half back is thus no front, and neither is what looks alike from all sides without
one.

Letters: A azimuths of the ring, K members, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox import metrics
from sdi_gs.toybox.classes import ClassName
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import ToyboxRender
from sdi_gs.toybox.truth import render_truth, truth_draws
from sdi_gs.toybox.views import toybox_cameras

AZIMUTHS = 24
STEP_DEG = 360.0 / AZIMUTHS
ELEVATION_DEG = 15.0
MEMBERS = 8
"""True objects that views are compared with: the canonical one and the first draws."""
FRONT_DEG = 30.0
"""Most turn of a front picture."""
OTHER_DEG = 60.0
"""Least turn of a picture of another side; those between are neither."""
CLEARLY = 1.0 / 3.0
"""Least share of the way from the middle between the two pictures to the front."""
APART_DEG = 100.0
"""Least angle between two fronts: those of one true object are 60 degrees apart at most, and 90 with an error of one
step at both ends."""
AGREES_DEG = 45.0
"""Largest difference between the side that a view shows and the one that it should."""
HOLLOW = 0.15
"""Least distance behind the true surface, scene units, that counts as hollow: the depth of a house's door and walls."""


@dataclass(frozen=True, kw_only=True)
class Fronts:
    """What a ring of views shows; the field names are the JSON keys of ``sdi-gs eval``."""

    fronts: int
    """Most azimuths that all show a front and are all more than 90 degrees apart: 1 for a true object, 0 to 3."""
    two_fronts: bool
    """Whether there is more than one front."""
    turn_deg: float
    """The turn from truth, from +x towards +y, at which most views show the side that they should."""
    sides_agree: float
    """Share of the views that show the side that they should, within 45 degrees, at that turn: 1 for a whole object."""
    sides_right: float
    """The same for the object as it stands, not turned."""
    psnr_turned: float
    """Mean PSNR over the views against the best member at its best turn, all around, dB."""
    hollow: float | None
    """Share of the pixels that lie 0.15 units or more behind the surface that is shown; None without depth."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON keys and values."""
        return asdict(self)


def front_cameras(image_size: int) -> CameraBatch:
    """Return the ring of A = 24 views: every 15 degrees, at elevation 15."""
    azimuth = STEP_DEG * torch.arange(AZIMUTHS)
    return toybox_cameras(azimuth, torch.full_like(azimuth, ELEVATION_DEG), size=image_size)


def count_fronts(
    views: RenderOutput,  # of ``front_cameras``, over white
    class_name: ClassName,
    colour: str,
) -> Fronts:
    """Count the fronts of an object that should be of a class and a colour; ValueError for other views."""
    size = views.rgb.shape[1]
    if views.rgb.shape[:3] != (AZIMUTHS, size, size):
        raise ValueError(f"views must be those of front_cameras, {AZIMUTHS} of them, got {tuple(views.rgb.shape)}")
    members = [canonical_object(class_name, colour), *truth_draws(class_name, colour, MEMBERS - 1)]
    truth = render_truth(members, front_cameras(size))
    pictures = truth.rgb.flatten(1)  # [K A, H W 3], member by member
    rgb = views.rgb.flatten(1)
    distances = torch.cdist(rgb, pictures, compute_mode="donot_use_mm_for_euclid_dist").square()  # [A, K A]
    nearest = distances.argmin(dim=1)
    sides = STEP_DEG * (nearest % AZIMUTHS).double()
    agreement = _agreement(sides)
    turn = agreement.index(max(agreement))
    fronts = _apart(_front_views(distances, pictures))
    return Fronts(
        fronts=fronts,
        two_fronts=fronts > 1,
        turn_deg=float(_wrapped(torch.tensor(STEP_DEG * turn))),
        sides_agree=agreement[turn][0],
        sides_right=agreement[0][0],
        psnr_turned=_psnr_turned(distances / rgb.shape[1]),
        hollow=None if views.depth is None else _hollow(views, truth, nearest),
    )


def _front_views(
    distances: Tensor,  # [A, K A] squared
    pictures: Tensor,  # [K A, H W 3]
) -> list[int]:
    """Return the views that clearly show a front, by their numbers in the ring."""
    away = _wrapped(STEP_DEG * (torch.arange(len(pictures)) % AZIMUTHS)).abs()
    to_front = distances.masked_fill(away > FRONT_DEG, torch.inf).min(dim=1)
    to_other = distances.masked_fill(away < OTHER_DEG, torch.inf).min(dim=1)
    between = (pictures[to_front.indices] - pictures[to_other.indices]).square().sum(dim=1)
    clearly = to_other.values - to_front.values >= CLEARLY * between
    return torch.nonzero(clearly & (to_front.values <= distances.amin(dim=1))).flatten().tolist()


def _apart(views: Sequence[int]) -> int:
    """Return the most views of a ring, by their numbers, of which all are ``APART_DEG`` apart."""
    most = 0
    for first in views:
        # The next that is far enough, and again, until too near to the first from behind: the best that begins here.
        chosen = [first]
        for view in [*(v for v in views if v > first), *(v + AZIMUTHS for v in views if v < first)]:
            if (view - chosen[-1]) * STEP_DEG >= APART_DEG and (first + AZIMUTHS - view) * STEP_DEG >= APART_DEG:
                chosen.append(view)
        most = max(most, len(chosen))
    return most


def _agreement(
    sides: Tensor,  # [A] degrees, the side that each view of the ring shows
) -> list[tuple[float, float]]:
    """Return, for every turn of the ring, the share of views that show the side they should, and minus the error."""
    azimuths = STEP_DEG * torch.arange(AZIMUTHS)
    off = _wrapped(sides[None] - (azimuths[None] - azimuths[:, None])).abs()
    shares = (off <= AGREES_DEG).double().mean(dim=1)
    return list(zip(shares.tolist(), (-off.mean(dim=1)).tolist(), strict=True))


def _psnr_turned(
    errors: Tensor,  # [A, K A] mean squared
) -> float:
    """Return the highest mean PSNR over the ring, of any member at any turn."""
    by_member = -10.0 * errors.clamp_min(metrics.MSE_FLOOR).log10().unflatten(1, (-1, AZIMUTHS))  # [A, K, A]
    numbers = torch.arange(AZIMUTHS)
    means = [by_member[numbers, :, (numbers - turn) % AZIMUTHS].mean(dim=0) for turn in range(AZIMUTHS)]
    return float(torch.stack(means).max())


def _hollow(
    views: RenderOutput,
    truth: ToyboxRender,  # of [K A] pictures
    nearest: Tensor,  # [A] into these
) -> float | None:
    """Return the share of pixels, of view and nearest picture alike, that lie behind its surface; None if none are."""
    assert views.depth is not None
    both = metrics.silhouette(views.alpha) & metrics.silhouette(truth.alpha[nearest])
    behind = (views.depth - truth.depth[nearest])[..., 0] >= HOLLOW
    return (behind & both).sum().item() / both.sum().item() if both.any() else None


def _wrapped(angles_deg: Tensor) -> Tensor:
    """Bring angles into [-180, 180) degrees."""
    return (angles_deg + 180.0) % 360.0 - 180.0
