"""Scenes that were not made here, as far as scoring needs them: triangles of a mesh file, and nothing at all.

Letters: B cameras, H W pixels, V vertices, F faces of all parts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DensityField, RenderOutput
from sdi_gs.mesh.formats import Y_UP_FROM_TRAIN
from sdi_gs.mesh.pixel_grid import nearest_faces
from sdi_gs.mesh.shading import FINENESS
from sdi_gs.pictures.framing import training_framing
from sdi_gs.representations.mesh_files import NO_COLOUR, MeshPart, read_mesh
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.sight import MARGIN, SMALLEST_SHARE
from sdi_gs.splats.splat_cloud import SplatCloud

CPU = torch.device("cpu")


class BlankScene:
    """What is scored in place of a run that failed: pictures of the background alone."""

    device = CPU
    num_points = 0

    def describe(self) -> str:
        """Describe it in a few words."""
        return "nothing"

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
    ) -> RenderOutput:
        """Return the background."""
        empty = torch.zeros(len(cameras), cameras.height, cameras.width, 1)
        return RenderOutput(
            rgb=background[:, None, None, :].expand(-1, cameras.height, cameras.width, -1).clone(),
            alpha=empty,
            depth=empty.clone() if with_depth else None,
        )

    def detached_copy(self) -> BlankScene:
        """Return itself, which nothing changes."""
        return self

    def splats(self) -> SplatCloud | None:
        """Return None: there are none."""
        return None

    def density(self, *, resolution: int | None = None) -> DensityField | None:
        """Return None: there is none."""
        return None


class MeshScene(BlankScene):
    """A mesh in its own flat colours, on the CPU."""

    def __init__(self, parts: list[MeshPart]) -> None:
        """``parts`` are in training axes."""
        self._parts = parts
        firsts = np.cumsum([0, *(len(part.vertices) for part in parts)])
        self.vertices = np.concatenate([part.vertices for part in parts])  # [V, 3]
        self.faces = np.concatenate([part.faces + first for part, first in zip(parts, firsts, strict=False)])
        self._first_faces = np.cumsum([0, *(len(part.faces) for part in parts)])

    def describe(self) -> str:
        """Describe it in a few words."""
        return f"a mesh of {len(self.faces)} triangles"

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
    ) -> RenderOutput:
        """Render without any light, each pixel the mean of its samples."""
        fine = cameras.of_size(FINENESS * cameras.width)
        found = [
            self._picture(fine.rows(slice(index, index + 1)), background[index].double().cpu().numpy())
            for index in range(len(cameras))
        ]
        values = torch.from_numpy(np.stack(found)).float()
        return RenderOutput(
            rgb=values[..., :3],
            alpha=values[..., 3:4],
            depth=values[..., 4:] / values[..., 3:4].clamp_min(1e-9) if with_depth else None,
        )

    def _picture(self, camera: CameraBatch, background: np.ndarray) -> np.ndarray:  # [H, W, 5]
        seen = nearest_faces(self.vertices, self.faces, camera)
        hit = seen.faces >= 0
        picture = np.zeros((len(hit), 5))
        picture[:, :3] = background
        picture[hit, :3] = self._colours(seen.faces[hit], seen.weights[hit])
        picture[:, 3] = hit
        picture[hit, 4] = seen.depths[hit]
        side = camera.width // FINENESS
        return picture.reshape(side, FINENESS, side, FINENESS, 5).mean(axis=(1, 3))

    def _colours(
        self,
        faces: np.ndarray,  # [N]
        weights: np.ndarray,  # [N, 3]
    ) -> np.ndarray:  # [N, 3]
        colours = np.full((len(faces), 3), NO_COLOUR)
        for part, first in zip(self._parts, self._first_faces, strict=False):
            own = np.flatnonzero((faces >= first) & (faces < first + len(part.faces)))
            chosen = faces[own] - first
            found = part.colours.at(part.faces[chosen], chosen, weights[own])
            if found is not None:
                colours[own] = found
        return colours


def mesh_scene(path: Path, *, frame: Frame = "viewer") -> MeshScene:
    """Read a mesh whose axes ``frame`` names; one that the usual cameras would not show well is moved and scaled.

    Raises UserError for a file that is no mesh, is damaged or has no faces.
    """
    # viewer axes are x' = y, y' = z, z' = x.
    columns = [0, 1, 2] if frame == "train" else [Y_UP_FROM_TRAIN.index(axis) for axis in range(3)]
    parts = [
        MeshPart(vertices=part.vertices[:, columns], faces=part.faces, colours=part.colours) for part in read_mesh(path)
    ]
    used = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts])
    middle = 0.5 * (used.min(axis=0) + used.max(axis=0))
    radius = max(float(np.linalg.norm(used - middle, axis=1).max()), 1e-12)
    sight = training_framing(CameraConfig()).sight
    if np.linalg.norm(middle) + radius <= sight and radius >= SMALLEST_SHARE * sight:
        return MeshScene(parts)
    scale = sight / (MARGIN * radius)
    return MeshScene(
        [MeshPart(vertices=(part.vertices - middle) * scale, faces=part.faces, colours=part.colours) for part in parts]
    )
