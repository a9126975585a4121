"""The connections of the viewer's port: capped and quiet, since strangers can open as many as they like."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from websockets.asyncio import server as websockets_server
from websockets.protocol import CONNECTING

MAX_CONNECTIONS = 64
"""Connections at once, those included whose request has not come yet."""
KEPT_DESCRIPTORS = 64
"""Of the process's file descriptors, those that are left to the run: its log, checkpoints and exports."""
BACKLOG = 8
"""Connections that the system completes before they are looked at; asyncio takes that many at one go."""
IN_FLIGHT = 8 * BACKLOG
"""Connections that are taken while others are being turned away: asyncio needs some turns of its loop for that."""

LAST_TURNS = 10
"""Turns of a closing server's event loop without a connection; an accepted one takes a few until it is known."""
MOST_TURNS = 1000
"""Turns that a closing server's loop takes at most; turns, since a busy machine may stand still for seconds."""
CLOSING_POLL = 0.05
"""Seconds between two looks at a closing server's connections."""
CLOSING_LOOKS = 60
"""Looks after which browsers that have not answered are cut off: one on a machine that sleeps never does."""

LOGGER = logging.getLogger("sdi_gs.viewer.connections")
"""websockets' log of handshakes that fail; a stranger decides how many, so that it is shown to debuggers only."""


def connection_cap() -> int:
    """Return how many connections the process's limit of descriptors allows, ``MAX_CONNECTIONS`` at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    folder = Path("/proc/self/fd")
    in_use = len(os.listdir(folder)) if folder.is_dir() else soft // 4
    return max(min(MAX_CONNECTIONS, soft - in_use - KEPT_DESCRIPTORS - IN_FLIGHT), 2)


@contextmanager
def capped_connections() -> Iterator[None]:
    """Let a server that viser starts within the body accept no more than ``connection_cap`` connections at once.

    When that server closes, all of its connections are closed with it.
    """
    cap = connection_cap()
    there: set[Capped] = set()

    class Capped(websockets_server.ServerConnection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            there.add(self)
            # Oldest first; one that is being closed stays among them for some turns of the loop.
            everyone = [other for other in self.server.handlers if not other.transport.is_closing()]
            if len(everyone) <= cap:
                return
            # The oldest of those that have asked for nothing makes room, so that strangers do not lock browsers out.
            idle = (other for other in everyone if other is not self and other.protocol.state is CONNECTING)
            next(idle, self).transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            there.discard(self)

    class Serve(websockets_server.serve):
        async def __aexit__(self, *error: Any) -> None:
            closing, looks = asyncio.ensure_future(super().__aexit__(*error)), 0
            while not closing.done():
                # websockets would wait for the requests of those that have asked for nothing, ten seconds.
                for connection in [one for one in there if one.protocol.state is CONNECTING or looks > CLOSING_LOOKS]:
                    connection.transport.abort()
                await asyncio.wait([closing], timeout=CLOSING_POLL)
                looks += 1
            await closing
            # Neither does it wait for those that are being aborted or were accepted last; viser now closes the loop.
            await _until_gone(there)

    LOGGER.setLevel(logging.DEBUG if LOGGER.parent and LOGGER.parent.isEnabledFor(logging.DEBUG) else logging.CRITICAL)
    # viser offers no way to pass these on; its server is up when its constructor returns.
    serve = websockets_server.serve
    websockets_server.serve = partial(Serve, create_connection=Capped, backlog=BACKLOG, logger=LOGGER)
    try:
        yield
    finally:
        websockets_server.serve = serve


async def _until_gone(there: Collection[websockets_server.ServerConnection]) -> None:
    """Abort these connections, and those that are added in the meantime, until none is left for some turns."""
    alone = 0
    for _ in range(MOST_TURNS):
        for connection in list(there):
            connection.transport.abort()
        alone = 0 if there else alone + 1
        if alone > LAST_TURNS:
            return
        await asyncio.sleep(0)
