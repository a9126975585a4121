"""Compiled sphere tracing of toybox primitives, one image per task.

All compiled functions are in this file, because numba's cache notices changes only in the file of the outermost
function.

Every ray is intersected with each primitive separately, in the primitive's own frame. Antialiasing: the ray is traced
against the surface moved inwards by half a pixel; its distance to that inner surface, in pixels, is one minus the
share of the pixel that the primitive covers. So a silhouette through the middle of a pixel gives one half. The layers
of all primitives are composited front to back.

Letters: B images, H W pixels, P primitives of all scenes together, K columns of a row, N points.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from sdi_gs.files.kernel_cache import compiled
from sdi_gs.toybox.primitives import (
    BOX,
    CENTRE,
    COLOUR,
    CONE,
    CUP,
    ELLIPSOID,
    EXTENT,
    KIND,
    ROTATION,
    ROUNDING,
    SIZE,
    TORUS,
)

MAX_STEPS = 72
MAX_LAYERS = 12
# Part of a pixel within which a surface counts as reached.
HIT_TOLERANCE = 0.02
# Tolerance of the surface's position, scene units.
CROSSING_TOLERANCE = 2e-5
MAX_CROSSING_STEPS = 12
# The ellipsoid's distance is a first-order estimate that can exceed the true one a little.
STEP_SHARE = 0.95
NORMAL_STEP = 1e-3
# Layers behind this much remaining transparency are not shaded.
OPAQUE = 1e-3

# World-fixed light, brighter on the top, the front and the +y side; unit length. Lambert's cosine is wrapped
# around the whole sphere (half-Lambert), so that the far side keeps its colour and no hard line divides the two.
LIGHT = (0.36, 0.30, 0.883)
DIRECT = 0.50
AMBIENT = 0.48
# Reach of the occlusion tap in scene units, and the light that is left in a fully closed corner.
OCCLUSION_REACH = 0.14
OCCLUSION_FLOOR = 0.55


@compiled(nogil=True, inline="always")
def _trapezoid_distance(q, z, bottom, top, half):
    """Return the distance to the trapezoid |q| <= width(z), |z| <= half, for q >= 0 (Quilez, capped cone)."""
    cap_q = q - min(q, bottom if z < 0.0 else top)
    cap_z = abs(z) - half
    lean, rise = top - bottom, 2.0 * half
    share = ((top - q) * lean + (half - z) * rise) / (lean * lean + rise * rise)
    share = min(max(share, 0.0), 1.0)
    side_q = q - top + lean * share
    side_z = z - half + rise * share
    distance = math.sqrt(min(cap_q * cap_q + cap_z * cap_z, side_q * side_q + side_z * side_z))
    return -distance if (side_q < 0.0 and cap_z < 0.0) else distance


@compiled(nogil=True, inline="always")
def _rectangle_distance(x, y, half_x, half_y):
    """Return the distance to the rectangle |x| <= half_x, |y| <= half_y."""
    dx, dy = abs(x) - half_x, abs(y) - half_y
    return math.sqrt(max(dx, 0.0) ** 2 + max(dy, 0.0) ** 2) + min(max(dx, dy), 0.0)


@compiled(nogil=True)
def primitive_distance(row, x, y, z):
    """Return the signed distance from a point in the primitive's frame to its surface, negative inside."""
    kind = int(row[KIND])
    a, b, c, d = row[SIZE], row[SIZE + 1], row[SIZE + 2], row[SIZE + 3]
    if kind == ELLIPSOID:
        # First-order distance f/|grad f| of f = |p/radii| - 1: exact for spheres and, for all, near the surface.
        level = math.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
        slope = math.sqrt((x / (a * a)) ** 2 + (y / (b * b)) ** 2 + (z / (c * c)) ** 2)
        return (level - 1.0) * (level / slope if slope > 1e-9 else min(a, b, c))
    if kind == BOX:
        dx, dy, dz = abs(x) - a, abs(y) - b, abs(z) - c
        ox, oy, oz = max(dx, 0.0), max(dy, 0.0), max(dz, 0.0)
        return math.sqrt(ox * ox + oy * oy + oz * oz) + min(max(dx, dy, dz), 0.0) - row[ROUNDING]
    if kind == CONE:
        return _trapezoid_distance(math.sqrt(x * x + y * y), z, a, b, c) - row[ROUNDING]
    if kind == TORUS:
        ring = math.sqrt(x * x + y * y) - a
        return math.sqrt(ring * ring + z * z) - b
    radius = math.sqrt(x * x + y * y)
    if kind == CUP:
        wall = _rectangle_distance(radius - a + 0.5 * b, z, 0.5 * b, c)
        floor = _rectangle_distance(radius, z + c - 0.5 * b, a, 0.5 * b)
        return min(wall, floor)
    section = _trapezoid_distance(abs(y), z, a, b, c)
    length = abs(x) - d
    outside = math.sqrt(max(section, 0.0) ** 2 + max(length, 0.0) ** 2)
    return outside + min(max(section, length), 0.0) - row[ROUNDING]


@compiled(nogil=True, inline="always")
def _to_local(row, x, y, z):
    """Rotate a world direction to the primitive's frame (by the transpose of object_from_local)."""
    r = ROTATION
    return (
        row[r] * x + row[r + 3] * y + row[r + 6] * z,
        row[r + 1] * x + row[r + 4] * y + row[r + 7] * z,
        row[r + 2] * x + row[r + 5] * y + row[r + 8] * z,
    )


@compiled(nogil=True, inline="always")
def _to_world(row, x, y, z):
    r = ROTATION
    return (
        row[r] * x + row[r + 1] * y + row[r + 2] * z,
        row[r + 3] * x + row[r + 4] * y + row[r + 5] * z,
        row[r + 6] * x + row[r + 7] * y + row[r + 8] * z,
    )


@compiled(nogil=True)
def nearest_distance(rows, first, last, x, y, z, reach):
    """Return the signed distance to the union of rows[first:last], at most ``reach``."""
    best = reach
    for p in range(first, last):
        row = rows[p]
        lx, ly, lz = _to_local(row, x - row[CENTRE], y - row[CENTRE + 1], z - row[CENTRE + 2])
        gap = max(abs(lx) - row[EXTENT], abs(ly) - row[EXTENT + 1], abs(lz) - row[EXTENT + 2])
        if gap < best:
            best = min(best, primitive_distance(row, lx, ly, lz))
    return best


@compiled(nogil=True)
def point_distances(rows, points, out):
    """Write the signed distances of points [N, 3] to the union of rows [P, K] to out [N]."""
    for n in range(points.shape[0]):
        out[n] = nearest_distance(rows, 0, rows.shape[0], points[n, 0], points[n, 1], points[n, 2], np.inf)


@compiled(nogil=True, inline="always")
def _slab(origin, direction, half, near, far):
    """Narrow [near, far] to where one coordinate of the ray is within +-half."""
    if abs(direction) < 1e-12:
        return (near, far) if abs(origin) <= half else (1.0, 0.0)
    t0, t1 = (-half - origin) / direction, (half - origin) / direction
    return max(near, min(t0, t1)), min(far, max(t0, t1))


@compiled(nogil=True)
def _cross(row, ox, oy, oz, dx, dy, dz, outer, d_outer, inner, d_inner):
    """Return the ray length of the sign change between two samples (false position, Illinois variant)."""
    middle = inner
    last_side = 0
    for _ in range(MAX_CROSSING_STEPS):
        middle = outer + (inner - outer) * d_outer / (d_outer - d_inner)
        distance = primitive_distance(row, ox + middle * dx, oy + middle * dy, oz + middle * dz)
        if abs(distance) < CROSSING_TOLERANCE:
            break
        if distance > 0.0:
            outer, d_outer = middle, distance
            d_inner *= 0.5 if last_side == 1 else 1.0
            last_side = 1
        else:
            inner, d_inner = middle, distance
            d_outer *= 0.5 if last_side == -1 else 1.0
            last_side = -1
    return middle


@compiled(nogil=True)
def _march(row, ox, oy, oz, dx, dy, dz, half_pixel, limit):
    """Intersect a primitive with a ray in its frame; return the covered share of the pixel and the ray length.

    ``half_pixel`` is half a pixel's width per unit of ray length; surfaces beyond ``limit`` are ignored.
    """
    pad = 1.5 * half_pixel * (math.sqrt(ox * ox + oy * oy + oz * oz) + 1.0)
    near, far = _slab(ox, dx, row[EXTENT] + pad, 1e-3, limit)
    near, far = _slab(oy, dy, row[EXTENT + 1] + pad, near, far)
    near, far = _slab(oz, dz, row[EXTENT + 2] + pad, near, far)
    if near > far:
        return 0.0, 0.0
    t, closest, t_closest = near, 2.0, near
    t_before, d_before, t_surface = near, 0.0, -1.0
    for _ in range(MAX_STEPS):
        distance = primitive_distance(row, ox + t * dx, oy + t * dy, oz + t * dz)
        if distance < 0.0 and t_surface < 0.0:
            t_surface = _cross(row, ox, oy, oz, dx, dy, dz, t_before, d_before, t, distance) if t > near else t
        inner = distance + half_pixel * t
        in_pixels = inner / (2.0 * half_pixel * t)
        if in_pixels < closest:
            closest, t_closest = in_pixels, t
        if in_pixels < HIT_TOLERANCE:
            closest = 0.0
            break
        t_before, d_before = t, distance
        t += max(inner * STEP_SHARE, 0.4 * half_pixel * t)
        if t > far:
            break
    if closest >= 1.0:
        return 0.0, 0.0
    return 1.0 - closest, (t_surface if t_surface >= 0.0 else t_closest)


@compiled(nogil=True)
def _normal(row, x, y, z):
    """Return a primitive's world normal at a point of its own frame (tetrahedral differences)."""
    e = NORMAL_STEP
    n1 = primitive_distance(row, x + e, y - e, z - e)
    n2 = primitive_distance(row, x - e, y - e, z + e)
    n3 = primitive_distance(row, x - e, y + e, z - e)
    n4 = primitive_distance(row, x + e, y + e, z + e)
    gx, gy, gz = n1 - n2 - n3 + n4, -n1 - n2 + n3 + n4, -n1 + n2 - n3 + n4
    scale = 1.0 / (math.sqrt(gx * gx + gy * gy + gz * gz) + 1e-12)
    return _to_world(row, gx * scale, gy * scale, gz * scale)


@compiled(nogil=True)
def _light(rows, first, last, x, y, z, nx, ny, nz):
    """Return the brightness of a surface point, a function of the point and its normal, not of the viewer."""
    r = OCCLUSION_REACH
    open_share = nearest_distance(rows, first, last, x + r * nx, y + r * ny, z + r * nz, r) / r
    openness = OCCLUSION_FLOOR + (1.0 - OCCLUSION_FLOOR) * min(max(open_share, 0.0), 1.0)
    wrapped = 0.5 + 0.5 * (nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2])
    return AMBIENT * openness + DIRECT * wrapped * wrapped


@compiled(nogil=True)
def _screen_bounds(row, pose, fx, fy, cx, cy, width, height):
    """Return the pixels [x0, x1) x [y0, y1) that can see a primitive: its projected box, one pixel wider."""
    x0, x1, y0, y1 = 1e9, -1e9, 1e9, -1e9
    for corner in range(8):
        lx = row[EXTENT] * (1.0 if corner & 1 else -1.0)
        ly = row[EXTENT + 1] * (1.0 if corner & 2 else -1.0)
        lz = row[EXTENT + 2] * (1.0 if corner & 4 else -1.0)
        wx, wy, wz = _to_world(row, lx, ly, lz)
        wx += row[CENTRE] - pose[0, 3]
        wy += row[CENTRE + 1] - pose[1, 3]
        wz += row[CENTRE + 2] - pose[2, 3]
        depth = pose[0, 2] * wx + pose[1, 2] * wy + pose[2, 2] * wz
        if depth < 1e-2:
            return 0, width, 0, height
        u = fx * (pose[0, 0] * wx + pose[1, 0] * wy + pose[2, 0] * wz) / depth + cx
        v = fy * (pose[0, 1] * wx + pose[1, 1] * wy + pose[2, 1] * wz) / depth + cy
        x0, x1, y0, y1 = min(x0, u), max(x1, u), min(y0, v), max(y1, v)
    return (
        int(max(0.0, math.floor(x0 - 1.0))),
        int(min(float(width), math.ceil(x1 + 1.0))),
        int(max(0.0, math.floor(y0 - 1.0))),
        int(min(float(height), math.ceil(y1 + 1.0))),
    )


@compiled(nogil=True)
def _front_to_back(rows, first, last, pose):
    """Sort primitives by their centres' distance to the camera, so that near hits hide the rest early."""
    distances = np.empty(last - first)
    for p in range(first, last):
        row = rows[p]
        distances[p - first] = math.sqrt(
            (row[CENTRE] - pose[0, 3]) ** 2 + (row[CENTRE + 1] - pose[1, 3]) ** 2 + (row[CENTRE + 2] - pose[2, 3]) ** 2
        ) - max(row[EXTENT], row[EXTENT + 1], row[EXTENT + 2])
    return np.argsort(distances) + first


@compiled(nogil=True)
def _insert_layer(layer_t, layer_share, layer_row, count, t, share, p):
    """Keep the layers of a ray sorted by depth; the farthest is dropped when there are too many."""
    if count == MAX_LAYERS:
        if t >= layer_t[count - 1]:
            return count
        count -= 1
    k = count
    while k > 0 and layer_t[k - 1] > t:
        layer_t[k], layer_share[k], layer_row[k] = layer_t[k - 1], layer_share[k - 1], layer_row[k - 1]
        k -= 1
    layer_t[k], layer_share[k], layer_row[k] = t, share, p
    return count + 1


@compiled(nogil=True)
def _collect_layers(rows, order, eyes, windows, active, i, ray, half_pixel, layer_t, layer_share, layer_row):
    """Fill the layers that the ray of column i meets, sorted by depth, and return their number."""
    count, limit = 0, 1e9
    for k in active:
        if i < windows[k, 0] or i >= windows[k, 1]:
            continue
        row = rows[order[k]]
        lx, ly, lz = _to_local(row, ray[0], ray[1], ray[2])
        share, t = _march(row, eyes[k, 0], eyes[k, 1], eyes[k, 2], lx, ly, lz, half_pixel, limit)
        if share > 0.0:
            count = _insert_layer(layer_t, layer_share, layer_row, count, t, share, order[k])
            if share == 1.0:
                limit = min(limit, t)
    return count


@compiled(nogil=True)
def _composite(rows, first, last, pose, ray, cosine, count, layer_t, layer_share, layer_row, rgb, depth, normal):
    """Shade the layers front to back into one pixel's rgb [3], depth [1] and normal [3]; return its alpha."""
    clear, heaviest = 1.0, 0.0
    red, green, blue = 0.0, 0.0, 0.0
    for n in range(count):
        weight = clear * layer_share[n]
        row, t = rows[layer_row[n]], layer_t[n]
        x, y, z = pose[0, 3] + t * ray[0], pose[1, 3] + t * ray[1], pose[2, 3] + t * ray[2]
        lx, ly, lz = _to_local(row, x - row[CENTRE], y - row[CENTRE + 1], z - row[CENTRE + 2])
        nx, ny, nz = _normal(row, lx, ly, lz)
        light = _light(rows, first, last, x, y, z, nx, ny, nz)
        red += weight * light * row[COLOUR]
        green += weight * light * row[COLOUR + 1]
        blue += weight * light * row[COLOUR + 2]
        if weight > heaviest:
            heaviest = weight
            depth[0] = t * cosine
            normal[0], normal[1], normal[2] = nx, ny, nz
        clear -= weight
        if clear < OPAQUE:
            clear = 0.0
            break
    rgb[0], rgb[1], rgb[2] = red + clear * rgb[0], green + clear * rgb[1], blue + clear * rgb[2]
    return 1.0 - clear


@compiled(nogil=True)
def _render_one(rows, first, last, pose, intrinsics, rgb, alpha, depth, normal):
    """Render one image; rgb [H, W, 3] holds the background on entry and the composite on return."""
    height, width = alpha.shape
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    order = _front_to_back(rows, first, last, pose)
    windows = np.empty((last - first, 4), np.int64)
    eyes = np.empty((last - first, 3))
    for k in range(last - first):
        row = rows[order[k]]
        windows[k] = _screen_bounds(row, pose, fx, fy, cx, cy, width, height)
        from_x, from_y, from_z = pose[0, 3] - row[CENTRE], pose[1, 3] - row[CENTRE + 1], pose[2, 3] - row[CENTRE + 2]
        eyes[k] = _to_local(row, from_x, from_y, from_z)
    layer_t, layer_share = np.empty(MAX_LAYERS), np.empty(MAX_LAYERS)
    layer_row = np.empty(MAX_LAYERS, np.int64)
    for j in range(height):
        active = np.flatnonzero((windows[:, 2] <= j) & (j < windows[:, 3]))
        if len(active) == 0:
            continue
        for i in range(windows[active, 0].min(), windows[active, 1].max()):
            u, v = (i + 0.5 - cx) / fx, (j + 0.5 - cy) / fy
            cosine = 1.0 / math.sqrt(u * u + v * v + 1.0)
            ray = (
                (pose[0, 0] * u + pose[0, 1] * v + pose[0, 2]) * cosine,
                (pose[1, 0] * u + pose[1, 1] * v + pose[1, 2]) * cosine,
                (pose[2, 0] * u + pose[2, 1] * v + pose[2, 2]) * cosine,
            )
            half_pixel = 0.5 * cosine / fy
            count = _collect_layers(
                rows, order, eyes, windows, active, i, ray, half_pixel, layer_t, layer_share, layer_row
            )
            if count > 0:
                out = rgb[j, i], depth[j, i : i + 1], normal[j, i]
                alpha[j, i] = _composite(
                    rows, first, last, pose, ray, cosine, count, layer_t, layer_share, layer_row, *out
                )


@compiled(nogil=True, parallel=True)
def render_batch(rows, first, last, poses, intrinsics, rgb, alpha, depth, normal):
    """Render B images in parallel, each by one thread, so the bytes do not depend on the number of threads.

    rows [P, K] of all scenes; image b shows rows[first[b]:last[b]] to camera poses[b] (world_from_camera).
    rgb [B, H, W, 3] holds the backgrounds on entry; alpha, depth [B, H, W] and normal [B, H, W, 3] hold zeros.
    """
    for b in numba.prange(alpha.shape[0]):
        _render_one(rows, first[b], last[b], poses[b], intrinsics[b], rgb[b], alpha[b], depth[b], normal[b])
