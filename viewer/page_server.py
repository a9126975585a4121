"""A page with its server and its worker: the common part of the pages of live and of finished scenes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

import torch
import viser

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.errors import UserError
from sdi_gs.viewer import labels
from sdi_gs.viewer.bridge import Bridge, Status
from sdi_gs.viewer.client_view import ClientView
from sdi_gs.viewer.downloads import Downloads
from sdi_gs.viewer.guard import address_lines, start_server, stop_server
from sdi_gs.viewer.history import History
from sdi_gs.viewer.labels import SIDES, Mode, Side
from sdi_gs.viewer.page import Page
from sdi_gs.viewer.render_worker import RenderWorker
from sdi_gs.viewer.scene import Scene
from sdi_gs.viewer.splat_stream import SplatArrays, StreamOptions
from sdi_gs.viewer.standpoint import Standpoint

LOGGER = logging.getLogger("sdi_gs.viewer")

SECONDS_BETWEEN_ERRORS = 30.0
"""Least time between two reports of the same error."""
MAX_ERRORS_REMEMBERED = 100
"""Different errors whose last report is remembered; their texts are unbounded, so their number must not be."""
LAST_MESSAGE_SECONDS = 0.5
"""Time for the last message to be sent before the server stops."""
LAST_TURNS = 10
"""Turns of the server's thread in that time; a message takes a few, however long a busy machine makes each of them."""
NO_CLIENT_SECONDS = 0.1
"""The same time where no client is known: viser counts one only after its first camera, and may be about to."""
LAST_PATIENCE = 10.0
"""Seconds after which the server is stopped all the same."""


@dataclass(frozen=True, kw_only=True)
class PageContent:
    """What a page shows of its scene."""

    heading: str
    name: str
    """Begin of the names of downloaded files."""
    comments: Callable[[int], list[str]]
    """Comment lines of a downloaded .ply, by the step it was taken after."""
    standpoint: Standpoint
    modes: tuple[Mode, ...]
    """Modes of the render view."""
    render_note: str
    """One line about the render view."""
    has_splats: bool
    """Whether browsers can draw the scene; everything else is only rendered."""
    prior: DiffusionPrior | None = None
    """Decodes the denoised targets; None where nothing trains."""


class PageServer:
    """A page on a scene: construct it, add further controls, then call ``serve`` and in the end ``end``.

    Raises UserError where the host is not an address of this machine, no port is free or an origin is no name.
    """

    def __init__(
        self, content: PageContent, *, host: str, port: int, origins: Sequence[str], device: torch.device
    ) -> None:
        self.content = content
        self.bridge = Bridge()
        self.history = History()
        self._status = Status(phase="starting")
        self._errors_reported: dict[str, float] = {}
        self._errors_lock, self._folder_lock = threading.Lock(), threading.Lock()
        self.server = start_server(host, port, origins=origins)
        self.host, self.port = host, self.server.get_port()
        content.standpoint.prepare(self.server)
        scene = Scene(self.server)
        self.worker = RenderWorker(
            self.bridge,
            scene,
            device=device,
            prior=content.prior,
            fill_page=self._fill_page,
            report_error=self.report_error,
            is_training=lambda: self._status.phase in ("training", "saving"),
        )
        self.worker.set_options(stream=StreamOptions(smallest_deviation=content.standpoint.pixel))
        self.page = Page(self.server, self.bridge, heading=content.heading, standpoint=content.standpoint)
        self._add_camera_buttons()
        downloads = Downloads(self.worker, scene, name=content.name, comments=content.comments)
        actions = {labels.SCREENSHOT: downloads.screenshot}
        if content.has_splats:
            actions = {labels.DOWNLOAD_PLY: downloads.ply, labels.DOWNLOAD_HTML: downloads.html} | actions
        self.page.add_downloads({label: self._reporting(action) for label, action in actions.items()})

    def serve(self) -> None:
        """Accept clients; all controls of the page must have been added."""
        self.server.on_client_connect(self._on_connect)
        self.server.on_client_disconnect(self._on_disconnect)
        self.worker.start()

    @property
    def address(self) -> tuple[str, list[str]]:
        """The line with the address, and remarks for the user."""
        return address_lines(self.host, self.port)

    @property
    def status(self) -> Status:
        """The run's state as the page shows it."""
        return self._status

    def set_status(self, status: Status) -> None:
        """Show another state from the page's next update on."""
        self._status = status

    def end(self, message: str) -> None:
        """Show a last message, then close the port."""
        self.worker.stop()
        self.page.show_last(message)
        self.page.notify(labels.ENDED_TITLE, message)
        self.server.flush()
        seconds = LAST_MESSAGE_SECONDS if self.server.get_clients() else NO_CLIENT_SECONDS
        turns = asyncio.run_coroutine_threadsafe(_take_turns(seconds), self.server.get_event_loop())
        wait([turns], timeout=LAST_PATIENCE)
        stop_server(self.server)

    def report_error(self, where: str, error: Exception) -> None:
        """Log an error and notify all clients, at most every ``SECONDS_BETWEEN_ERRORS``; nothing stops."""
        line = f"{where}: {type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
        now = time.monotonic()
        with self._errors_lock:
            if now - self._errors_reported.get(line, -SECONDS_BETWEEN_ERRORS) < SECONDS_BETWEEN_ERRORS:
                return
            if len(self._errors_reported) > MAX_ERRORS_REMEMBERED:
                self._errors_reported.clear()
            self._errors_reported[line] = now
        LOGGER.warning("viewer: %s", line, exc_info=error if LOGGER.isEnabledFor(logging.DEBUG) else None)
        self.on_error(line)
        self.page.notify(labels.ERROR_TITLE, line)

    def on_error(self, line: str) -> None:
        """Called with every reported error; does nothing unless overridden."""

    def _fill_page(self, arrays: SplatArrays | None) -> None:
        self.page.show(self._status, self.history, arrays)

    def _reporting(self, action: Callable[[viser.ClientHandle], None]) -> Callable[[viser.ClientHandle], None]:
        """Wrap a button's action so that its errors are reported on the page."""

        def callback(client: viser.ClientHandle) -> None:
            try:
                action(client)
            except Exception as error:
                if client.client_id in self.server.get_clients():
                    self.report_error("the download", error)

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
                self.content.standpoint.move(event.client, sides[look.value])

        @reset.on_click
        def _(event: viser.GuiEvent[Any]) -> None:
            if event.client is not None:
                self.content.standpoint.move(event.client, None)

    def _on_connect(self, client: viser.ClientHandle) -> None:
        # In viser only one thread at a time may add controls to a folder.
        with self._folder_lock:
            view = ClientView(
                client,
                folder=self.page.view_folder,
                modes=self.content.modes,
                render_note=self.content.render_note if self.content.has_splats else labels.NO_SPLATS_NOTE,
                has_splats=self.content.has_splats,
                changed=self.bridge.wake,
            )
        self.worker.add_client(view)
        # The client may have left while its controls were added.
        if client.client_id not in self.server.get_clients():
            self.worker.remove_client(client.client_id)

    def _on_disconnect(self, client: viser.ClientHandle) -> None:
        self.worker.remove_client(client.client_id)


async def _take_turns(seconds: float) -> None:
    """Wait for these seconds, and until the event loop has come round as often as a message needs."""
    for _ in range(LAST_TURNS):
        await asyncio.sleep(seconds / LAST_TURNS)
