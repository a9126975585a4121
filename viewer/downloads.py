"""Files that a client can download; made by the worker's thread and sent to the client that pressed the button."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import viser
from PIL import Image

from sdi_gs.errors import UserError
from sdi_gs.splats.ply import write_splat_ply
from sdi_gs.splats.splat_cloud import SplatCloud
from sdi_gs.viewer.render_worker import RenderWorker
from sdi_gs.viewer.scene import Scene

TIMEOUT = 60.0
"""Seconds to wait for the worker, or for a browser's screenshot."""


class Downloads:
    """The downloads of a page; each method is a button's callback and runs in a thread of its own.

    ``comments`` returns the comment lines of a .ply by the step it was taken after.
    """

    def __init__(self, worker: RenderWorker, scene: Scene, *, name: str, comments: Callable[[int], list[str]]) -> None:
        self._worker, self._scene = worker, scene
        self._name, self._comments = name, comments

    def ply(self, client: viser.ClientHandle) -> None:
        """Send all splats being shown as ``sdi-gs export`` writes them."""

        def work() -> tuple[str, bytes]:
            cloud = self._worker.cloud()
            if cloud is None:
                raise UserError("this scene has no splats to download")
            return self._filename("ply"), ply_bytes(cloud, self._comments(self._step))

        client.send_file_download(*self._worker.submit(work).result(TIMEOUT), save_immediately=True)

    def html(self, client: viser.ClientHandle) -> None:
        """Send a page that shows the preview without a server."""

        def work() -> tuple[str, bytes]:
            arrays = self._worker.arrays()
            if arrays is None:
                raise UserError("this scene has no splats to download")
            return self._filename("html"), self._scene.as_html(arrays)

        client.send_file_download(*self._worker.submit(work).result(TIMEOUT), save_immediately=True)

    def screenshot(self, client: viser.ClientHandle) -> None:
        """Send a picture of the client's canvas."""
        camera = client.camera
        picture = client.get_render(camera.image_height, camera.image_width, transport_format="png", timeout=TIMEOUT)
        client.send_file_download(self._filename("png"), png_bytes(picture), save_immediately=True)

    def _filename(self, ending: str) -> str:
        step = f"_step_{self._step:06d}" if self._step else ""
        return f"{self._name}{step}.{ending}"

    @property
    def _step(self) -> int:
        snapshot = self._worker.current
        return 0 if snapshot is None else snapshot.step


def ply_bytes(cloud: SplatCloud, comments: list[str]) -> bytes:
    """Return the content of a standard splat file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "splats.ply"
        write_splat_ply(path, cloud, comments=comments)
        return path.read_bytes()


def png_bytes(
    picture: np.ndarray,  # [H, W, 3 or 4] uint8
) -> bytes:
    """Return the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
