"""What the project's own backends render: the arguments of ``rasterization`` that they support, in one value.

Letters: C cameras, N Gaussians, D colour channels, K harmonic bases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]
CameraModel = Literal["pinhole", "ortho", "fisheye", "ftheta"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderRequest:
    """Arguments of ``sdi_gs.rasterize.rasterization``, which has their meaning."""

    means: Tensor  # [N, 3]
    quats: Tensor | None  # [N, 4]
    scales: Tensor | None  # [N, 3]
    opacities: Tensor  # [N]
    colors: Tensor  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor  # [C, 4, 4]
    Ks: Tensor  # [C, 3, 3]
    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    sh_degree: int | None
    packed: bool
    backgrounds: Tensor | None  # [C, D]
    render_mode: RenderMode
    absgrad: bool
    rasterize_mode: RasterizeMode
    camera_model: CameraModel
    covars: Tensor | None  # [N, 3, 3]

    @property
    def antialiased(self) -> bool:
        """Whether opacity is lowered by the square root of the determinants' ratio."""
        return self.rasterize_mode == "antialiased"

    @property
    def ortho(self) -> bool:
        """Whether the cameras project along parallel rays."""
        return self.camera_model == "ortho"
