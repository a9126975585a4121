"""A cloud of splats as raw values, and its rotation between the axes of training and of splat viewers.

Training world: z up, the object's front along +x. Splat viewers read a file's axes as RDF (x right, y down,
z forward), so the object's front faces their default camera along -z.

Letters: N splats, K harmonics per channel above band 0 (0, 3, 8 or 15).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import assert_never

import torch
from torch import Tensor

from sdi_gs.settings.frames import Frame
from sdi_gs.splats.sh_rotation import rotate_sh

SH_BAND_0 = 0.28209479177387814
"""The constant harmonic, 1 / (2 sqrt(pi))."""

Quaternion = tuple[float, float, float, float]
"""A unit quaternion (w, x, y, z)."""

VIEWER_FROM_TRAIN: Quaternion = (0.5, 0.5, 0.5, -0.5)
"""x' = y, y' = -z, z' = -x: from the training world to RDF."""
Y_UP_FROM_TRAIN: Quaternion = (0.5, -0.5, -0.5, -0.5)
"""x' = y, y' = z, z' = x: from the training world to y up and front +z, as glTF has it."""

REST_COEFFICIENTS = (0, 3, 8, 15)
"""Harmonics per channel above band 0, for degrees 0 to 3."""


@dataclass(frozen=True, kw_only=True)
class SplatCloud:
    """N Gaussians in the raw values that an optimiser updates and a .ply stores."""

    means: Tensor  # [N, 3] scene units
    log_scales: Tensor  # [N, 3] ln of the standard deviations
    quats: Tensor  # [N, 4] wxyz, any length but 0
    opacity_logit: Tensor  # [N]
    sh_dc: Tensor  # [N, 3] coefficients of band 0
    sh_rest: Tensor  # [N, K, 3] coefficients of the bands above, gsplat's order

    def __post_init__(self) -> None:
        count = len(self.means)
        shapes = {"means": (3,), "log_scales": (3,), "quats": (4,), "opacity_logit": (), "sh_dc": (3,)}
        for name, tail in shapes.items():
            if getattr(self, name).shape != (count, *tail):
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, not {(count, *tail)}")
        rest = tuple(self.sh_rest.shape)
        if rest not in [(count, k, 3) for k in REST_COEFFICIENTS]:
            raise ValueError(f"sh_rest has shape {rest}, not ({count}, K, 3) with K one of {REST_COEFFICIENTS}")

    def __len__(self) -> int:
        return len(self.means)

    def cpu(self) -> SplatCloud:
        """Return the splats on the host; tensors that are there already are not copied."""
        return SplatCloud(**{field.name: getattr(self, field.name).cpu() for field in fields(self)})

    def select(
        self,
        chosen: Tensor,  # [N] bool
    ) -> SplatCloud:
        """Return the chosen splats, in their order."""
        rows = chosen.nonzero()[:, 0]
        if len(rows) == len(self):
            return self
        return SplatCloud(**{field.name: getattr(self, field.name).index_select(0, rows) for field in fields(self)})


def sh_dc_from_rgb(
    rgb: Tensor,  # [..., 3] displayed colour in [0, 1]
) -> Tensor:
    """Return the band-0 coefficients [..., 3] of a colour."""
    return (rgb - 0.5) / SH_BAND_0


def rgb_from_sh_dc(
    sh_dc: Tensor,  # [..., 3]
) -> Tensor:
    """Return the colour [..., 3] of band-0 coefficients, the inverse of ``sh_dc_from_rgb``."""
    return sh_dc * SH_BAND_0 + 0.5


def rotate_cloud(cloud: SplatCloud, quaternion: Quaternion) -> SplatCloud:
    """Rotate the scene about the origin; the quats of the result are normalised."""
    rotation = rotation_matrices(torch.tensor([quaternion], dtype=torch.float64))[0]
    return replace(
        cloud,
        means=cloud.means @ rotation.T.to(cloud.means),
        quats=_left_multiply(quaternion, normalized_quats(cloud.quats)),
        sh_rest=rotate_sh(cloud.sh_rest, rotation),
    )


def in_frame(cloud: SplatCloud, frame: Frame) -> SplatCloud:
    """Rotate a cloud from the training world to the axes of ``frame``; its quats are normalised."""
    rotation = frame_from_train(frame)
    return replace(cloud, quats=normalized_quats(cloud.quats)) if rotation is None else rotate_cloud(cloud, rotation)


def from_frame(cloud: SplatCloud, frame: Frame) -> SplatCloud:
    """Rotate a cloud from the axes of ``frame`` to the training world; its quats are normalised."""
    rotation = frame_from_train(frame)
    if rotation is None:
        return replace(cloud, quats=normalized_quats(cloud.quats))
    w, x, y, z = rotation
    return rotate_cloud(cloud, (w, -x, -y, -z))


def frame_from_train(frame: Frame) -> Quaternion | None:
    """Return the rotation from the training world to the axes of ``frame``; None for none."""
    match frame:
        case "viewer":
            return VIEWER_FROM_TRAIN
        case "train":
            return None
        case "y-up":
            return Y_UP_FROM_TRAIN
        case _:
            assert_never(frame)


def normalized_quats(
    quats: Tensor,  # [N, 4]
) -> Tensor:
    """Return unit quaternions [N, 4]; the length is computed in float64, where no finite float32 overflows."""
    wide = quats.double()
    return (wide / wide.norm(dim=-1, keepdim=True)).to(quats)


def rotation_matrices(
    quats: Tensor,  # [N, 4] wxyz, any length but 0
) -> Tensor:  # [N, 3, 3] float64
    """Return the rotations of quaternions; their columns are the Gaussians' axes."""
    w, x, y, z = normalized_quats(quats).double().unbind(dim=1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _left_multiply(
    left: Quaternion,
    right: Tensor,  # [N, 4] wxyz
) -> Tensor:
    """Return the Hamilton products [N, 4] of one quaternion with each of many."""
    w, x, y, z = left
    # The matrix of a multiplication by ``left``.
    matrix = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float64)
    return (right.double() @ matrix.T.to(right.device)).to(right)
