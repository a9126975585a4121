"""The scene nodes that all clients share: the splats, and the cameras of the last step."""

from __future__ import annotations

import math

import numpy as np
import viser
from viser.transforms import SO3

from sdi_gs.contracts import GuidedViews
from sdi_gs.viewer import labels
from sdi_gs.viewer.served_page import with_head
from sdi_gs.viewer.splat_stream import SplatArrays

FRUSTUM_SIZE = 0.15
"""Size of a training camera's frustum, scene units."""


class Scene:
    """The shared nodes of the page's scene; only the worker's thread calls it."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._splats: viser.GaussianSplatHandle | None = None
        self._factor = 1.0
        self._count = -1
        self._frusta: list[viser.CameraFrustumHandle] = []

    def show_splats(self, arrays: SplatArrays, *, afresh: bool = False) -> None:
        """Update the node, or add it again if the count or the factor changed or ``afresh`` is set.

        viser keeps a node's first buffer besides its last, for later clients; adding the node again frees the first.
        """
        buffers = (arrays.centers, arrays.covariances, arrays.rgbs, arrays.opacities)
        if self._splats is not None and not afresh and (len(arrays), arrays.factor) == (self._count, self._factor):
            self._splats.set_gaussians(*buffers)
            return
        # This invalidates the handle of the replaced node.
        self._splats = self._server.scene.add_gaussian_splats(labels.SPLATS_NODE, *buffers, scale=1.0 / arrays.factor)
        self._count, self._factor = len(arrays), arrays.factor

    def show_cameras(self, views: GuidedViews | None) -> None:
        """Show a frustum per camera of a step; remove them for None."""
        cameras = None if views is None else views.cameras
        count = 0 if cameras is None else len(cameras)
        for frustum in self._frusta[count:]:
            frustum.remove()
        del self._frusta[count:]
        if cameras is None:
            return
        poses = cameras.world_from_camera.cpu().double().numpy()
        focal = cameras.intrinsics[:, 1, 1].tolist()
        for index, pose in enumerate(poses):
            wxyz = SO3.from_matrix(pose[:3, :3]).wxyz
            fov = 2.0 * math.atan(0.5 * cameras.height / focal[index])
            if index < len(self._frusta):
                frustum = self._frusta[index]
                frustum.wxyz, frustum.position, frustum.fov = wxyz, pose[:3, 3], fov
                continue
            self._frusta.append(
                self._server.scene.add_camera_frustum(
                    f"{labels.CAMERAS_NODE}/{index}",
                    fov,
                    cameras.width / cameras.height,
                    scale=FRUSTUM_SIZE,
                    wxyz=wxyz,
                    position=np.asarray(pose[:3, 3]),
                    cast_shadow=False,
                    receive_shadow=False,
                )
            )

    def as_html(self, arrays: SplatArrays) -> bytes:
        """Return the scene as one self-contained web page."""
        self.show_splats(arrays, afresh=True)
        return with_head(self._server.get_scene_serializer().as_html()).encode()
