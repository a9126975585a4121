"""Pictures of a mesh in its own flat colours, to compare it with the scene that it was made of.

Letters: B cameras, H W pixels, P pixels of a picture.
"""

from __future__ import annotations

import numpy as np

from sdi_gs.cameras import CameraBatch
from sdi_gs.mesh.extraction import Texture, TriangleMesh
from sdi_gs.mesh.pixel_grid import nearest_faces

FINENESS = 2
"""Samples of a pixel along each side."""


def flat_pictures(mesh: TriangleMesh, cameras: CameraBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return square pictures [B, H, W, 3] over white and alphas [B, H, W, 1].

    Their colours are the texture's, or the vertices' where there is none.
    """
    fine = cameras.of_size(FINENESS * cameras.width)
    pictures = np.stack([_picture(mesh, fine.rows(slice(index, index + 1))) for index in range(len(cameras))])
    return pictures[..., :3], pictures[..., 3:]


def _picture(mesh: TriangleMesh, camera: CameraBatch) -> np.ndarray:
    """Return one picture and its alpha [H, W, 4], each pixel the mean of its samples."""
    seen = nearest_faces(mesh.vertices, mesh.faces, camera)
    hit = seen.faces >= 0
    corners, weights = mesh.faces[seen.faces[hit]], seen.weights[hit, :, None]
    picture = np.ones((len(hit), 4))
    picture[:, 3] = hit
    if mesh.texture is None:
        picture[hit, :3] = (mesh.rgb[corners] * weights).sum(axis=1)
    else:
        picture[hit, :3] = texture_at(mesh.texture, (mesh.texture.uv[corners] * weights).sum(axis=1))
    side = camera.width // FINENESS
    return picture.reshape(side, FINENESS, side, FINENESS, 4).mean(axis=(1, 3))


def texture_at(
    texture: Texture,
    uv: np.ndarray,  # [P, 2]
) -> np.ndarray:
    """Return displayed colours [P, 3] between the texels' centres, linearly."""
    size = len(texture.picture)
    x, y = (uv * size - 0.5).clip(0.0, size - 1.0).T
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, below = np.minimum(left + 1, size - 1), np.minimum(top + 1, size - 1)
    u, v = (x - left)[:, None], (y - top)[:, None]
    picture = texture.picture
    upper = (1.0 - u) * picture[top, left] + u * picture[top, right]
    lower = (1.0 - u) * picture[below, left] + u * picture[below, right]
    return ((1.0 - v) * upper + v * lower) / 255.0
