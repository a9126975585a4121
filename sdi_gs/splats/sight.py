"""From how far a cloud of splats is seen whole: for pages, films and scores alike.

Letters: N splats.
"""

from __future__ import annotations

import math

from sdi_gs.splats.splat_cloud import SplatCloud

Point = tuple[float, float, float]

BULK = 0.99
"""Share of the splats that is kept in sight; the rest may stray."""
VISIBLE_LOGIT = -5.5
"""Opacities below 1 in 255 are not drawn."""
MARGIN = 1.1
"""Distance over that at which the splats touch the picture's edge."""
SMALLEST_SHARE = 0.25
"""Least radius, as a share of the usual cameras' sight, of splats that are seen by these cameras."""


def fitted_standpoint(
    cloud: SplatCloud, *, middle: Point, distance: float, fov_y_deg: float
) -> tuple[Point, float] | None:
    """Return a point to look at and a distance at which the bulk of a cloud is in sight, scene units.

    None where cameras at ``distance`` from ``middle`` show the bulk well already.
    """
    half_angle = math.sin(math.radians(0.5 * fov_y_deg))
    sight = distance * half_angle
    found, radius = bulk_of(cloud)
    if math.dist(found, middle) + radius <= sight and radius >= SMALLEST_SHARE * sight:
        return None
    return found, MARGIN * radius / half_angle


def bulk_of(cloud: SplatCloud) -> tuple[Point, float]:
    """Return middle and radius of the ball that holds the bulk of what is visible, the splats' sizes included."""
    visible = cloud.opacity_logit > VISIBLE_LOGIT
    cloud = cloud.select(visible) if bool(visible.any()) else cloud
    means = cloud.means.double()
    middle = means.median(dim=0).values
    distances = (means - middle).norm(dim=1) + 2.0 * cloud.log_scales.double().exp().amax(dim=1)
    radius = max(float(distances.kthvalue(math.ceil(BULK * len(distances))).values), 1e-6)
    x, y, z = middle.tolist()
    return (x, y, z), radius
