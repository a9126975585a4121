"""How much a mesh looks like the scene that it was made of, within the outline that they share.

Letters: B cameras, H W pixels.
"""

from __future__ import annotations

import math

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.shading import flat_pictures
from sdi_gs.pictures.framing import Framing
from sdi_gs.pictures.views import render_views

VIEWS, SIZE, ELEVATION_DEG = 8, 256, 20.0
"""The ring of views that are compared, their side in pixels, and their height."""
OPAQUE = 0.95
"""Alpha from which a pixel counts as the object's."""


def line_of_texture(representation: Representation, framing: Framing, plain: TriangleMesh, baked: TriangleMesh) -> str:
    """Return a line on the PSNR of a mesh with a texture and of the one without, against the scene's renders."""
    cameras = framing.ring(VIEWS, SIZE, elevation_deg=ELEVATION_DEG)
    wanted = render_views(representation, cameras)
    colours, texture = (mesh_psnr(mesh, cameras, wanted) for mesh in (plain, baked))
    assert baked.texture is not None
    side = len(baked.texture.picture)
    return (
        f"texture of {side} x {side} pixels: {texture:.1f} dB of PSNR against the renders within the outline, "
        f"{colours:.1f} with colours per vertex"
    )


def mesh_psnr(
    mesh: TriangleMesh,
    cameras: CameraBatch,  # B of them
    wanted: RenderOutput,  # [B, H, W, ...] over white
) -> float:
    """Return the peak signal-to-noise ratio of a mesh's pictures, dB, over the pixels that both show opaque."""
    pictures, alphas = flat_pictures(mesh, cameras)
    shared = (alphas[..., 0] >= OPAQUE) & (wanted.alpha[..., 0].numpy() >= OPAQUE)
    error = (pictures[shared] - wanted.rgb.numpy()[shared]) ** 2
    return -10.0 * math.log10(max(float(error.mean()), 1e-12)) if shared.any() else math.nan
