"""Displayed colours of a mesh's surface: material times texture times vertex colour, each in its own space.

glTF's factors and vertex colours are linear light and its textures are sRGB; those of all other formats are displayed
colours (sRGB) throughout. Runs train on displayed colours.

Letters: N samples, V vertices, F faces, H W texels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


def linear_from_srgb(
    rgb: np.ndarray,  # [..., 3] in [0, 1]
) -> np.ndarray:
    """Return the linear light [..., 3] of displayed colours (IEC 61966-2-1)."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(
    light: np.ndarray,  # [..., 3]
) -> np.ndarray:
    """Return the displayed colours [..., 3] of linear light, which is clipped to [0, 1] (IEC 61966-2-1)."""
    light = np.clip(light, 0.0, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1.0 / 2.4) - 0.055)


@dataclass(frozen=True, kw_only=True)
class SurfaceColours:
    """What colours a part of a mesh; each None without it."""

    linear: bool
    """Whether factor and vertex colours are linear light, as in glTF."""
    factor: np.ndarray | None = None  # [3] of the material
    texture: np.ndarray | None = None  # [H, W, 3] bytes, displayed
    uv: np.ndarray | None = None  # [V, 2] in texture widths and heights, (0, 0) at the picture's upper left corner
    at_vertices: np.ndarray | None = None  # [V, 3] in [0, 1]
    at_faces: np.ndarray | None = None  # [F, 3] in [0, 1]

    def at(
        self,
        faces: np.ndarray,  # [N, 3] the vertices of each sample's face
        chosen: np.ndarray,  # [N] the faces
        weights: np.ndarray,  # [N, 3] of the vertices
    ) -> np.ndarray | None:  # [N, 3] displayed, in [0, 1]
        """Return the colours at points of the surface, None if nothing colours it."""
        light = np.ones((len(chosen), 3))
        coloured = False
        if self.factor is not None:
            light, coloured = light * self.factor, True
        if self.at_vertices is not None:
            light, coloured = light * np.einsum("nk,nkc->nc", weights, self.at_vertices[faces]), True
        if self.at_faces is not None:
            light, coloured = light * self.at_faces[chosen], True
        if self.texture is not None and self.uv is not None:
            texels = _texels(self.texture, np.einsum("nk,nkc->nc", weights, self.uv[faces]))
            light, coloured = light * (linear_from_srgb(texels) if self.linear else texels), True
        if not coloured:
            return None
        return srgb_from_linear(light) if self.linear else np.clip(light, 0.0, 1.0)


def in_unit_range(colours: Any) -> np.ndarray:  # [..., 3]
    """Return colours of bytes, 16-bit integers or floats as float64 in [0, 1]; what is not finite becomes 0."""
    values = np.asarray(colours)[..., :3]
    if values.dtype.kind in "ui":
        return np.clip(values / float(np.iinfo(values.dtype).max), 0.0, 1.0)
    values = values.astype(np.float64)
    return np.clip(np.where(np.isfinite(values), values, 0.0), 0.0, 1.0)


def _texels(
    texture: np.ndarray,  # [H, W, 3] bytes
    uv: np.ndarray,  # [N, 2]
) -> np.ndarray:  # [N, 3] in [0, 1]
    """Return the nearest texels, the texture repeated in both directions."""
    height, width = texture.shape[:2]
    # What is not finite, or so large that it has no fraction, has no place on the texture.
    fractions = np.where(np.abs(uv) < 2.0**31, uv, 0.0) % 1.0
    column = np.minimum((fractions[:, 0] * width).astype(np.int64), width - 1)
    row = np.minimum((fractions[:, 1] * height).astype(np.int64), height - 1)
    return texture[row, column] / 255.0
