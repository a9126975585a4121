"""One client: the picture it shows, its camera, and its own controls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import viser
from viser.transforms import SO3

from sdi_gs.viewer import labels
from sdi_gs.viewer.labels import Mode, Picture
from sdi_gs.viewer.pictures import Pose

MOVING_SECONDS = 0.25
"""A camera without an update for this long is at rest."""
JPEG_MOVING, JPEG_REST = 60, 92


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Everything that the picture in a client's render view depends on."""

    step: int
    pose: Pose
    mode: Mode
    background: tuple[float, float, float]
    at_rest: bool


class ClientView:
    """The current choices of one client; page threads write them, the worker reads them."""

    def __init__(
        self,
        client: viser.ClientHandle,
        *,
        folder: viser.GuiFolderHandle,
        modes: tuple[Mode, ...],
        render_note: str,
        has_splats: bool,
        changed: Callable[[], None],
    ) -> None:
        """Add the client's controls to ``folder``; without splats the render view is the only picture.

        ``changed`` is called when the client needs another picture.
        """
        self.client = client
        self._pictures: tuple[Picture, ...] = labels.PICTURES if has_splats else ("render",)
        self.picture: Picture = self._pictures[0]
        self.mode: Mode = "rgb"
        self.background = (1.0, 1.0, 1.0)
        self.moved_at = -math.inf
        self.shown: Shown | None = None
        self.painted_background: tuple[float, float, float] | None = None
        self.rendered_at = -math.inf
        self._nodes_visible = True
        self._render_note = render_note
        self._changed = changed
        with folder:
            self._add_controls(modes)
        client.camera.on_update(self._on_camera)

    @property
    def pose(self) -> Pose | None:
        """The client's camera; None while its window has no area."""
        camera = self.client.camera
        return pose_of(camera) if min(camera.image_height, camera.image_width) >= 1 else None

    @property
    def canvas_height(self) -> int:
        """Pixels of the client's canvas."""
        return self.client.camera.image_height

    def is_moving(self, now: float) -> bool:
        """Whether the camera moved within the last ``MOVING_SECONDS``."""
        return now - self.moved_at < MOVING_SECONDS

    def show_picture(self, picture: np.ndarray, *, at_rest: bool) -> None:
        """Show a render as the background and hide the splats."""
        quality = JPEG_REST if at_rest else JPEG_MOVING
        with self.client.atomic():
            self.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=quality)
            self._show_nodes(False)
        self.painted_background = None

    def show_splats(self) -> None:
        """Show the splats over the plain background colour."""
        colour = np.array(self.background) * 255.0
        plain = np.tile(colour.round().astype(np.uint8), (2, 2, 1))
        with self.client.atomic():
            self.client.scene.set_background_image(plain, format="png")
            self._show_nodes(True)
        self.painted_background = self.background
        self.shown = None

    def _add_controls(self, modes: tuple[Mode, ...]) -> None:
        gui = self.client.gui
        picture = gui.add_dropdown(labels.PICTURE, self._pictures, initial_value=self.picture, order=0)
        self._note = gui.add_markdown(self._note_text, order=1)
        mode = gui.add_dropdown(
            labels.MODE,
            modes,
            initial_value="rgb",
            order=2,
            visible=self.picture == "render",
            hint="Normals are the depth's gradient",
        )
        background = gui.add_rgb(labels.BACKGROUND, (255, 255, 255), order=3)

        @picture.on_update
        async def _(_: Any) -> None:
            chosen: Picture = "render" if picture.value == "render" else "splats"
            self.set_picture(chosen if chosen in self._pictures else self._pictures[0])
            mode.visible = self.picture == "render"

        @mode.on_update
        async def _(_: Any) -> None:
            known: dict[str, Mode] = {name: name for name in modes}
            self.mode = known.get(mode.value, "rgb")
            self._changed()

        @background.on_update
        async def _(_: Any) -> None:
            red, green, blue = (min(max(value / 255.0, 0.0), 1.0) for value in background.value)
            self.background = (red, green, blue)
            self._changed()

    def set_picture(self, picture: Picture) -> None:
        """Change what this client sees, and the note about it."""
        self.picture = picture
        self._note.content = self._note_text
        self.painted_background = None
        self.shown = None
        self._changed()

    @property
    def _note_text(self) -> str:
        """The note about the picture."""
        return self._render_note if self.picture == "render" else labels.SPLATS_NOTE

    def _show_nodes(self, visible: bool) -> None:
        """Show or hide the splats; hidden with the first render, not before it, since that may take seconds."""
        if visible != self._nodes_visible:
            self.client.scene.set_global_visibility(visible)
            self._nodes_visible = visible

    async def _on_camera(self, _: viser.CameraHandle) -> None:
        self.moved_at = time.monotonic()
        if self.picture == "render":
            self._changed()


def pose_of(camera: viser.CameraHandle) -> Pose:
    """Convert a client's camera; viser's world is z up and its cameras have OpenCV's axes, as in this project."""
    matrix = np.eye(4)
    matrix[:3, :3] = SO3(camera.wxyz).as_matrix()
    matrix[:3, 3] = camera.position
    return Pose(
        world_from_camera=tuple(tuple(float(value) for value in row) for row in matrix),
        fov_y=float(camera.fov),
        aspect=camera.image_width / camera.image_height,
    )
