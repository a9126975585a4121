"""Where an object is, and how large: what the distance of fitted cameras and the shape's numbers are measured from.

Letters: N points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.pictures.framing import Framing, training_framing
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.splats.sight import BULK, VISIBLE_LOGIT, bulk_of

OPAQUE = 0.5
"""Alpha from which a pixel of the probing views lies on the object."""
PROBE_VIEWS, PROBE_SIZE = 12, 64
"""Views by which an object without splats is measured, and their side in pixels."""


@dataclass(frozen=True, kw_only=True)
class Matter:
    """Points that an object is made of."""

    points: Tensor  # [N, 3] float64, scene units
    weights: Tensor  # [N] float64, the opacity of each
    sizes: Tensor  # [N] float64, radius of each, scene units

    @property
    def middle(self) -> Tensor:
        """The weighted mean [3]."""
        return (self.points * self.weights[:, None]).sum(dim=0) / self.weights.sum()


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The bounding sphere of an object's bulk, and its half side."""

    middle: tuple[float, float, float]
    radius: float
    """Of the ball around the middle that holds 99 percent of what is visible, scene units."""
    centre: tuple[float, float, float]
    """The mean of its points, T3Bench's middle."""
    half_side: float
    """Largest coordinate from there along an axis, T3Bench's scale, scene units."""


def matter_of(representation: Representation) -> Matter | None:
    """Return the points of an object: its visible splats, else what a few views see of it; None where nothing is."""
    cloud = representation.splats()
    if cloud is None:
        return _seen(representation, training_framing(CameraConfig()))
    cloud = cloud.cpu()
    cloud = cloud.select(cloud.opacity_logit > VISIBLE_LOGIT)
    if not len(cloud.means):
        return None
    return Matter(
        points=cloud.means.double(),
        weights=torch.sigmoid(cloud.opacity_logit.double()),
        sizes=cloud.log_scales.double().exp().amax(dim=1),
    )


def extent_of(representation: Representation, matter: Matter | None) -> Extent | None:
    """Return where an object is; None where nothing of it is visible."""
    if matter is None:
        return None
    cloud = representation.splats()
    if cloud is None:
        middle = matter.points.median(dim=0).values
        distances = (matter.points - middle).norm(dim=1)
        radius = max(float(distances.kthvalue(math.ceil(BULK * len(distances))).values), 1e-6)
        x, y, z = middle.tolist()
    else:
        (x, y, z), radius = bulk_of(cloud.cpu())
    centre = matter.points.mean(dim=0)
    # Without the percent that strays, as for the radius.
    half_side = (
        float((matter.points - centre).abs().amax(dim=1).quantile(BULK)) if len(matter.points) < 2**24 else radius
    )
    a, b, c = centre.tolist()
    return Extent(middle=(x, y, z), radius=radius, centre=(a, b, c), half_side=max(half_side, 1e-6))


@torch.no_grad()
def _seen(representation: Representation, framing: Framing) -> Matter | None:
    """Return the points of the surface that a spiral of views sees."""
    cameras = framing.all_around(PROBE_VIEWS, PROBE_SIZE).to(representation.device)
    background = torch.ones(len(cameras), 3, device=representation.device)
    render: RenderOutput = representation.render(cameras, background, with_depth=True)
    assert render.depth is not None
    pixels = torch.arange(PROBE_SIZE, device=representation.device) + 0.5
    rows, columns = torch.meshgrid(pixels, pixels, indexing="ij")
    places = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1)  # [H, W, 3]
    rays = torch.einsum("bij,hwj->bhwi", cameras.intrinsics.inverse(), places)
    seen = rays * render.depth
    poses = cameras.world_from_camera
    points = torch.einsum("bij,bhwj->bhwi", poses[:, :3, :3], seen) + poses[:, None, None, :3, 3]
    solid = render.alpha[..., 0] > OPAQUE
    if not bool(solid.any()):
        return None
    found = points[solid].double().cpu()
    # The width of a pixel at the object.
    size = framing.distance / float(cameras.intrinsics[0, 0, 0])
    return Matter(points=found, weights=torch.ones(len(found)).double(), sizes=torch.full((len(found),), size).double())
