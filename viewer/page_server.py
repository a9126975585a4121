"""A page with its server and its worker: the common part of the pages of live and of finished scenes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import viser

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.errors import UserError
from sdi_gs.viewer import labels
from sdi_gs.viewer.bridge import (
    Bridge,
    Status,
)
from sdi_gs.viewer.client_view import ClientView
from sdi_gs.viewer.downloads import Downloads
from sdi_gs.viewer.guard import address_lines, quiet, start_server
from sdi_gs.viewer.history import History
from sdi_gs.viewer.labels import SIDES, Mode, Side
from sdi_gs.viewer.page import Page
from sdi_gs.viewer.render_worker import RenderWorker
from sdi_gs.viewer.scene import Scene
from sdi_gs.viewer.splat_stream import SplatArrays, StreamOptions
from sdi_gs.viewer.standpoint import Standpoint

LOGGER = logging.getLogger("sdi_gs.viewer")

SECONDS_BETWEEN_ERRORS = 30.0
"""Shortest time between two reports of the same error."""
LAST_WORDS_SECONDS = 0.5
"""Time for the last message to be sent before the server stops."""


class PageServer:
    """Base of the pages: subclasses add their controls, then call ``serve`` and finally ``end``."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        heading: str,
        name: str,
        comments: Callable[[int], list[str]],
        standpoint: Standpoint,
        device: torch.device,
        prior: DiffusionPrior | None,
        modes: tuple[Mode, ...],
        render_note: str,
        has_splats: bool,
    ) -> None:
        self.bridge = Bridge()
        self.history = History()
        self._status = Status(phase="starting")
        self._errors_told: dict[str, float] = {}
        self._errors_lock, self._folder_lock = threading.Lock(), threading.Lock()
        self._modes, self._standpoint = modes, standpoint
        self.has_splats = has_splats
        """Whether the scene has splats, which a browser can draw; other scenes are rendered here only."""
        self._render_note = render_note if has_splats else labels.NO_SPLATS_NOTE
        self.server = start_server(host, port)
        self.host, self.port = host, self.server.get_port()
        standpoint.prepare(self.server)
        scene = Scene(self.server)
        self.worker = RenderWorker(
            self.bridge,
            scene,
            device=device,
            prior=prior,
            fill_page=self._fill_page,
            failed=self.failed,
            is_training=lambda: self._status.phase in ("training", "saving"),
        )
        self.worker.wish(stream=StreamOptions(smallest_deviation=standpoint.pixel))
        self.page = Page(self.server, self.bridge, heading=heading, standpoint=standpoint)
        self._add_camera_buttons()
        downloads = Downloads(self.worker, scene, name=name, comments=comments)
        actions = {labels.SCREENSHOT: downloads.screenshot}
        if has_splats:
            actions = {labels.DOWNLOAD_PLY: downloads.ply, labels.DOWNLOAD_HTML: downloads.html} | actions
        self.page.add_downloads({label: self._telling(action) for label, action in actions.items()})

    def serve(self) -> None:
        """Accept clients; all controls of the page must exist by then."""
        self.server.on_client_connect(self._on_connect)
        self.server.on_client_disconnect(self._on_disconnect)
        self.worker.start()

    @property
    def address(self) -> tuple[str, list[str]]:
        """The line with the address, and remarks on access."""
        return address_lines(self.host, self.port)

    @property
    def status(self) -> Status:
        """The run's status as the page shows it."""
        return self._status

    def set_status(self, status: Status) -> None:
        """Show another status from the page's next update on."""
        self._status = status

    def end(self, last_words: str) -> None:
        """Show a last message, then close the port."""
        self.worker.stop()
        self.page.say_last(last_words)
        self.page.notify(labels.ENDED_TITLE, last_words)
        self.server.flush()
        if self.server.get_clients():
            time.sleep(LAST_WORDS_SECONDS)
        with quiet():
            self.server.stop()

    def failed(self, where: str, error: Exception) -> None:
        """Report an error in the log and on the page, and continue."""
        line = f"{where}: {type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
        now = time.monotonic()
        with self._errors_lock:
            if now - self._errors_told.get(line, -SECONDS_BETWEEN_ERRORS) < SECONDS_BETWEEN_ERRORS:
                return
            # Every error may have another text: bound the number of remembered ones.
            if len(self._errors_told) > 100:
                self._errors_told.clear()
            self._errors_told[line] = now
        LOGGER.warning("viewer: %s", line, exc_info=error if LOGGER.isEnabledFor(logging.DEBUG) else None)
        self.on_error(line)
        self.page.notify(labels.ERROR_TITLE, line)

    def on_error(self, line: str) -> None:
        """Handle the line of an error; subclasses write it to the run's log."""

    def _fill_page(self, arrays: SplatArrays | None) -> None:
        self.page.show(self._status, self.history, arrays)

    def _telling(self, action: Callable[[viser.ClientHandle], None]) -> Callable[[viser.ClientHandle], None]:
        """Return a page callback that reports the action's errors if the client is still connected."""

        def callback(client: viser.ClientHandle) -> None:
            try:
                action(client)
            except Exception as error:
                if client.client_id in self.server.get_clients():
                    self.failed("the download", error)

        return callback

    def _add_camera_buttons(self) -> None:
        gui = self.server.gui
        with self.page.view_folder:
            look = gui.add_button_group(labels.LOOK_FROM, SIDES, order=4)
            reset = gui.add_button(labels.RESET_CAMERA, order=5)

        @look.on_click
        def _(event: viser.GuiEvent[Any]) -> None:
            sides: dict[str, Side] = {side: side for side in SIDES}
            if event.client is not None and look.value in sides:
                self._standpoint.move(event.client, sides[look.value])

        @reset.on_click
        def _(event: viser.GuiEvent[Any]) -> None:
            if event.client is not None:
                self._standpoint.move(event.client, None)

    def _on_connect(self, client: viser.ClientHandle) -> None:
        # viser lets one thread at a time put controls into a folder.
        with self._folder_lock:
            view = ClientView(
                client,
                folder=self.page.view_folder,
                modes=self._modes,
                render_note=self._render_note,
                has_splats=self.has_splats,
                changed=self.bridge.wake,
            )
        self.worker.add_client(view)
        # The client may have disconnected while its controls were created.
        if client.client_id not in self.server.get_clients():
            self.worker.remove_client(client.client_id)

    def _on_disconnect(self, client: viser.ClientHandle) -> None:
        self.worker.remove_client(client.client_id)
