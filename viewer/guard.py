"""The viser server, made safe and quiet: the address it listens on, the origins it accepts, no public tunnel."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from urllib.parse import urlsplit

import viser
from viser import _messages as messages
from viser.infra import WebsockClientConnection

from sdi_gs.errors import UserError
from sdi_gs.viewer.connections import capped_connections
from sdi_gs.viewer.served_page import own_page

PORTS_TO_TRY = 100
STOP_SECONDS = 60.0
"""How long the thread of a server that stops is waited for, on a machine that has no time for it."""
MOST_REFUSALS_TOLD = 20
"""Sites whose refusal is logged; anybody can make up more."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")

LOGGER = logging.getLogger("sdi_gs.viewer")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep viser's banner out of stdout, which a script may read."""
    with redirect_stdout(StringIO()):
        yield


def start_server(host: str, port: int, *, origins: Sequence[str] = ()) -> viser.ViserServer:
    """Start a server on the first free port from ``port`` on (0: any), without viser's public share tunnel.

    ``origins`` are the names of other sites whose pages may use it, such as a proxy's.

    Raises UserError where the host is not an address of this machine, no port is free or an origin is no name.
    """
    allowed = frozenset(map(origin_name, origins))
    free = free_port(host, port)
    # A browser may leave while a message is being sent to it.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    with quiet(), capped_connections(), own_page():
        server = viser.ViserServer(host=host, port=free, verbose=False)
    forbid_sharing(server)
    check_origins(server, allowed)
    return server


def stop_server(server: viser.ViserServer) -> None:
    """Close a server's port and all of its connections; the thread that does it has ended on return.

    viser itself waits a few seconds for that thread, which prints a line at its end.
    """
    thread = server._websock_server._server_thread
    with quiet():
        server.stop()
        if thread is not None:
            thread.join(STOP_SECONDS)


def origin_name(text: str) -> str:
    """Return the name of a site, with a port where it has an unusual one; UserError for anything else."""
    if not _NAME.fullmatch(text):
        raise UserError(
            f"viewer_origin {text!r} is not the name of a site: give it as the browser's address line has it, without "
            "https:// and without the path, such as my-box.example.org or my-box.example.org:8443"
        )
    return text.lower()


def free_port(host: str, port: int) -> int:
    """Return the first free port from ``port`` on; checked here, since viser retries for ever on a bad host.

    Raises UserError where the host is not an address of this machine or no port is free.
    """
    if port == 0:
        _bind(host, 0)
        return 0
    last = min(port + PORTS_TO_TRY, 65536)
    for candidate in range(port, last):
        if _bind(host, candidate):
            return candidate
    raise UserError(f"no port from {port} to {last - 1} is free on {host}: choose another --port, 0 for any")


def forbid_sharing(server: viser.ViserServer) -> None:
    """Remove the handlers by which any client could open a public tunnel; hiding the button alone is not enough."""
    server._websock_server.unregister_handler(messages.ShareUrlRequest)
    server._websock_server.unregister_handler(messages.ShareUrlDisconnect)


def check_origins(server: viser.ViserServer, allowed: frozenset[str]) -> None:
    """Reject browsers on another site's page, since any web page may connect to a local port; tell them the way in."""
    websockets = server._websock_server
    local = is_loopback(server.get_host())
    refused: set[str] = set()

    async def reject_foreign(connection: WebsockClientConnection) -> None:
        socket_of = websockets._live_connections[connection.client_id]
        headers = socket_of.request.headers if socket_of.request is not None else {}
        origin = headers.get("Origin")
        if is_own_origin(origin, headers.get("Host"), local=local, allowed=allowed):
            return
        site = _site(origin)
        if site not in refused and len(refused) < MOST_REFUSALS_TOLD:
            refused.add(site)
            LOGGER.warning("viewer: a page of %s was refused; if it is yours, add --viewer-origin %s", site, site)
        # Of all codes it is this one whose reason viser's page shows.
        await socket_of.close(1002, f"This viewer must be started with --viewer-origin {site}"[:120])

    websockets.on_client_connect(reject_foreign)


def _site(origin: str | None) -> str:
    """Return an origin's name for a message; a stranger wrote it."""
    name = urlsplit(origin or "").netloc.lower()
    return name if len(name) <= 60 and _NAME.fullmatch(name) else "its name"


def is_own_origin(origin: str | None, host: str | None, *, local: bool, allowed: frozenset[str] = frozenset()) -> bool:
    """Return whether a request comes from the viewer's own page, an allowed site or a program other than a browser.

    If only this machine can connect (``local``), the page's host must also be a local name: a foreign name that
    resolves to this machine (DNS rebinding) is refused. Allowed names are compared as a whole, with their port.
    """
    if origin is None:
        return True
    page = urlsplit(origin)
    if page.scheme in ("http", "https") and page.netloc.lower() in allowed:
        return True
    if host is None or page.netloc != host:
        return False
    return not local or is_loopback(page.hostname or "")


def is_loopback(host: str) -> bool:
    """Return whether a host is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_lines(host: str, port: int) -> tuple[str, list[str]]:
    """Return the line with the address, and remarks on how to reach it and who else can."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    remarks = []
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if connection:
        machine = connection[2] if len(connection) == 4 else socket.gethostname()
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or "you"
        ssh_port = f"-p {connection[3]} " if len(connection) == 4 and connection[3] != "22" else ""
        remarks.append(
            f"from your own machine: ssh -N -L {port}:{shown}:{port} {ssh_port}{user}@{machine}, "
            f"then open http://localhost:{port}"
        )
    if not is_loopback(host):
        remarks.append(
            f"warning: listening on {host} without a password or encryption: whoever reaches port {port} "
            "can see and steer this run"
        )
    return f"viewer: {url}", remarks


def _bind(host: str, port: int) -> bool:
    """Return whether a port is free; UserError where the host is the problem."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As asyncio does: a port whose last owner has just closed it is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # With this option several sockets can bind a port, but only one can listen.
            probe.listen(1)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return False
        reason = error.strerror or str(error)
        raise UserError(f"cannot listen on {host}: {reason}; use 127.0.0.1, or an address of this machine") from error
    return True
