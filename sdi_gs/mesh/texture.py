"""A texture for a mesh: an atlas of its faces, and colours from renders of the scene.

Each texel is looked at in every view that sees its place on the mesh, weighted by how squarely. Places that no view
sees keep the colour of the vertices around them, and what lies between the charts that of the nearest texel.

Letters: V vertices, F faces, T texels on the mesh, S texels a side, B views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.errors import UserError
from sdi_gs.mesh.extraction import Texture, TriangleMesh
from sdi_gs.mesh.pixel_grid import covered_pixels, nearest_faces, projected
from sdi_gs.mesh.surface import mesh_library
from sdi_gs.pictures.framing import Framing
from sdi_gs.pictures.views import render_views

VIEWS, VIEW_SIZE = 40, 512
"""Views that colours are taken from, from all around, and their side in pixels."""
FACING_POWER = 4.0
"""Power of the cosine between a view and the surface by which its colour counts."""
LEAST_FACING = 0.15
"""Cosine below which a view says nothing of a surface: a pixel is stretched over many texels."""
DEPTH_PIXELS = 3.0
"""Depths that differ by less than this many pixels' width are of the same surface."""
GAP = 4
"""Texels between two charts, so that smaller copies of the picture do not mix them at once."""
SHRINK = 0.95
"""Factor on the density of texels until all charts fit into one picture, at most."""


@dataclass(frozen=True, kw_only=True)
class _Texels:
    """Texels that lie on the mesh."""

    numbers: np.ndarray  # [T] row times S plus column
    points: np.ndarray  # [T, 3] world
    normals: np.ndarray  # [T, 3] unit
    rgb: np.ndarray  # [T, 3] of the vertices around


def with_texture(mesh: TriangleMesh, representation: Representation, framing: Framing, size: int) -> TriangleMesh:
    """Return a mesh with a texture of ``size`` texels a side, baked from renders of the scene that it was made of.

    Vertices on the seams of the atlas are there once for each chart. ``framing`` shows the scene.

    Raises UserError where a package is missing and where the faces do not fit into the picture.
    """
    cut, uv = _unwrapped(mesh, size)
    texels = _texels(cut, uv, size)
    views = framing.all_around(VIEWS, VIEW_SIZE)
    rendered = render_views(representation, views, (0.0, 0.0, 0.0))
    sums, weights = np.zeros((len(texels.numbers), 3)), np.zeros(len(texels.numbers))
    for index in range(len(views)):
        camera = views.rows(slice(index, index + 1))
        depths = nearest_faces(cut.vertices, cut.faces, camera).depths
        facing = _facing(texels, camera.world_from_camera[0, :3, 3].double().numpy())
        towards = np.flatnonzero(facing > LEAST_FACING)
        pixels, distances = projected(texels.points[towards], camera)
        columns, rows = np.floor(pixels).astype(np.int64).clip(0, VIEW_SIZE - 1).T
        slack = DEPTH_PIXELS * distances / float(camera.intrinsics[0, 0, 0]) / facing[towards]
        seen = distances <= depths[rows * VIEW_SIZE + columns] + slack
        seen &= (distances > 0.0) & (pixels >= 0.0).all(axis=1) & (pixels <= VIEW_SIZE).all(axis=1)
        colour, alpha = _sampled(rendered, index, pixels[seen])
        # Over black, a colour is its share of the light; a pixel half beside the object says half as much.
        weight = facing[towards[seen]] ** FACING_POWER
        sums[towards[seen]] += weight[:, None] * colour
        weights[towards[seen]] += weight * alpha
    found = weights > 1e-3
    rgb = texels.rgb.copy()
    rgb[found] = (sums[found] / weights[found, None]).clip(0.0, 1.0)
    return replace(cut, texture=Texture(uv=uv, picture=_filled(texels.numbers, rgb, size)))


def _unwrapped(mesh: TriangleMesh, size: int) -> tuple[TriangleMesh, np.ndarray]:
    """Return the mesh cut open along the seams of an atlas, and the places [V, 2] of its vertices in it."""
    xatlas = mesh_library("xatlas")
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = size, GAP, True
    area = _area(mesh)
    density = 0.0
    while True:
        atlas = xatlas.Atlas()
        atlas.add_mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
        options.texels_per_unit = density
        atlas.generate(xatlas.ChartOptions(), options)
        side = max(atlas.width, atlas.height)
        if atlas.atlas_count == 1 and side <= size:
            break
        # The density that it estimates may need a second picture, or a larger one.
        shrink = min(SHRINK, 0.99 * size / side) if atlas.atlas_count == 1 else SHRINK
        density = shrink * (density or atlas.texels_per_unit)
        if density**2 * area < len(mesh.faces):
            raise UserError(
                f"cannot make a texture: {len(mesh.faces)} triangles have less than a pixel each of {size} x {size}; "
                "raise --mesh.texture, or lower --mesh.max-faces"
            )
    vertices_of, faces, uv = atlas[0]
    scale = np.array([atlas.width, atlas.height]) / size
    cut = replace(
        mesh,
        vertices=mesh.vertices[vertices_of],
        faces=faces.astype(np.int64),
        normals=mesh.normals[vertices_of],
        rgb=mesh.rgb[vertices_of],
    )
    return cut, uv.astype(np.float64) * scale


def _area(mesh: TriangleMesh) -> float:
    """Return the area of the surface, square scene units."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    return 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())


def _texels(
    mesh: TriangleMesh,
    uv: np.ndarray,  # [V, 2]
    size: int,
) -> _Texels:
    """Return the texels whose centres lie on a face; where faces overlap, the first one's."""
    parts = list(covered_pixels(uv[mesh.faces] * size, size, size))
    numbers = np.concatenate([part.pixels for part in parts])
    corners = mesh.faces[np.concatenate([part.faces for part in parts])]
    weights = np.concatenate([part.weights for part in parts])
    numbers, first = np.unique(numbers, return_index=True)
    corners, weights = corners[first], weights[first, :, None]
    points, normals, rgb = (
        (values[corners] * weights).sum(axis=1) for values in (mesh.vertices, mesh.normals, mesh.rgb)
    )
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return _Texels(numbers=numbers, points=points, normals=normals / lengths.clip(1e-12), rgb=rgb)


def _facing(
    texels: _Texels,
    eye: np.ndarray,  # [3]
) -> np.ndarray:
    """Return the cosines [T] between the surface and the way to a camera."""
    way = eye - texels.points
    return (texels.normals * way).sum(axis=1) / np.linalg.norm(way, axis=1).clip(1e-12)


def _sampled(
    rendered: RenderOutput,  # B views
    index: int,
    pixels: np.ndarray,  # [T, 2]
) -> tuple[np.ndarray, np.ndarray]:
    """Return colours [T, 3] and alphas [T] of a view between its pixels' centres, linearly."""
    picture = np.concatenate([rendered.rgb[index].numpy(), rendered.alpha[index].numpy()], axis=-1)
    height, width, _ = picture.shape
    x, y = (pixels - 0.5).T
    left, top = np.floor(x), np.floor(y)
    total = np.zeros((len(pixels), 4))
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        columns = (left + right).clip(0, width - 1).astype(np.int64)
        rows = (top + below).clip(0, height - 1).astype(np.int64)
        share = (x - left if right else 1.0 - (x - left)) * (y - top if below else 1.0 - (y - top))
        total += share[:, None] * picture[rows, columns]
    return total[:, :3], total[:, 3]


def _filled(
    numbers: np.ndarray,  # [T]
    rgb: np.ndarray,  # [T, 3] in [0, 1]
    size: int,
) -> np.ndarray:
    """Return the picture [S, S, 3] uint8; what no face covers has the colour of the nearest texel that one does."""
    picture, empty = np.zeros((size * size, 3), np.uint8), np.ones(size * size, bool)
    picture[numbers], empty[numbers] = np.rint(rgb * 255.0).astype(np.uint8), False
    nearest = mesh_library("scipy.ndimage").distance_transform_edt(
        empty.reshape(size, size), return_distances=False, return_indices=True
    )
    rows, columns = nearest
    return picture.reshape(size, size, 3)[rows, columns]
