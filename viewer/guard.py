"""The viser server, made safe and quiet: the address it listens on, the origins it accepts, no public tunnel."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from urllib.parse import urlsplit

import viser
from viser import _messages as messages
from viser.infra import WebsockClientConnection

from sdi_gs.errors import UserError

PORTS_TO_TRY = 100


@contextmanager
def quiet() -> Iterator[None]:
    """Keep viser's banner out of stdout, which a script may read."""
    with redirect_stdout(StringIO()):
        yield


def start_server(host: str, port: int) -> viser.ViserServer:
    """Start a server on the first free port from ``port`` on (0: any), without viser's public share tunnel.

    Raises UserError where the host is not an address of this machine or no port is free.
    """
    free = free_port(host, port)
    # A browser may leave while a message is being sent to it.
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    with quiet():
        server = viser.ViserServer(host=host, port=free, verbose=False)
    forbid_sharing(server)
    check_origins(server)
    return server


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


def check_origins(server: viser.ViserServer) -> None:
    """Reject browsers on another site's page, since any web page may connect to a local port."""
    websockets = server._websock_server
    local = is_loopback(server.get_host())

    async def reject_foreign(connection: WebsockClientConnection) -> None:
        socket_of = websockets._live_connections[connection.client_id]
        headers = socket_of.request.headers if socket_of.request is not None else {}
        if not is_own_origin(headers.get("Origin"), headers.get("Host"), local=local):
            await socket_of.close(1008, "another site's page may not use this viewer")

    websockets.on_client_connect(reject_foreign)


def is_own_origin(origin: str | None, host: str | None, *, local: bool) -> bool:
    """Return whether a request comes from the viewer's own page or from a program other than a browser.

    If only this machine can connect (``local``), the page's host must also be a local name: a foreign name that
    resolves to this machine (DNS rebinding) is refused.
    """
    if origin is None:
        return True
    page = urlsplit(origin)
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
