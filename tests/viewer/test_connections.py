"""Strangers' connections: as many as they like, and the run goes on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from own_sockets import needs_proc, own_sockets

from sdi_gs.runs.saving import save_state
from sdi_gs.viewer import connections, labels
from sdi_gs.viewer.connections import connection_cap
from sdi_gs.viewer.guard import start_server, stop_server

STRANGER = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
opened = []
for _ in range(int(sys.argv[2])):
    one = socket.socket()
    one.settimeout(0.1)
    try:
        one.connect(("127.0.0.1", int(sys.argv[1])))
        one.send(sys.argv[3].encode())
        opened.append(one)
    except OSError:
        # Not left to the system, which would go on asking for it and throw out whoever came later.
        one.close()
print("open", flush=True)
sys.stdin.read()
"""
"""Opens connections and holds them: half of a request, and no more."""


@contextmanager
def stranger(port: int, count: int, request: str = "GET / HTTP/1.1\r\nHost: ") -> Iterator[None]:
    command = [sys.executable, "-c", STRANGER, str(port), str(count), request]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield
        finally:
            process.kill()


@needs_proc
@pytest.mark.parametrize("request_text", ["", "GET / HTTP/1.1\r\nHost: ", "nonsense\r\n\r\n"])
def test_connections_are_capped_and_a_browser_still_gets_in(
    browsers: Callable[..., Any], wait_until: Callable[..., Any], capfd: pytest.CaptureFixture[str], request_text: str
) -> None:
    server = start_server("127.0.0.1", 0)
    before = own_sockets()
    try:
        with stranger(server.get_port(), 250, request_text):
            assert len(own_sockets() - before) <= connections.MAX_CONNECTIONS + connections.IN_FLIGHT
            browser = browsers(server.get_port(), origin=f"http://127.0.0.1:{server.get_port()}")
            wait_until(lambda: browser.of_kind("ReplayDoneMessage"))
        said = capfd.readouterr()
        assert said.out + said.err == ""
    finally:
        stop_server(server)


@needs_proc
@pytest.mark.parametrize("request_text", ["", "GET / HTTP/1.1\r\nHost: ", "nonsense\r\n\r\n"])
def test_a_server_that_stops_leaves_no_connection_open(
    browsers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, request_text: str
) -> None:
    class ForEver(connections.websockets_server.serve):
        """Waits for a request without an end; a server that stops must not."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, open_timeout=None, **options)

    monkeypatch.setattr(connections.websockets_server, "serve", ForEver)
    before = own_sockets()
    server = start_server("127.0.0.1", 0)
    thread = server._websock_server._server_thread
    assert thread is not None
    browser = browsers(server.get_port(), with_camera=False)
    with stranger(server.get_port(), 100, request_text):
        stop_server(server)
        assert not thread.is_alive()
        browser.close()
        assert own_sockets() <= before


def test_open_pages_are_not_thrown_out_for_new_ones(
    browsers: Callable[..., Any], wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    server = start_server("127.0.0.1", 0)
    try:
        pages = [browsers(server.get_port()) for _ in range(3)]
        for page in pages:
            wait_until(lambda page=page: page.of_kind("ReplayDoneMessage"))
        with ExitStack() as stack:
            address = ("127.0.0.1", server.get_port())
            strangers = [stack.enter_context(socket.create_connection(address)) for _ in range(20)]
            # Each is turned away.
            for one in strangers:
                with suppress(ConnectionResetError):
                    assert one.recv(1) == b""
        assert len(server.get_clients()) == 3
        assert all(page.connection.close_code is None for page in pages)
    finally:
        stop_server(server)


@needs_proc
def test_a_run_with_few_descriptors_trains_and_saves_among_strangers(
    live_run: Any, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    live_run.start()
    wait_until(lambda: live_run.trainer.step > 2)
    in_use = len(os.listdir("/proc/self/fd"))
    try:
        # The viewer was started under the usual limit; this is far less than the strangers ask for.
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (in_use + connections.MAX_CONNECTIONS + connections.IN_FLIGHT + 40, hard)
        )
        with stranger(live_run.port, 300):
            step = live_run.trainer.step
            wait_until(lambda: live_run.trainer.step > step + 3)
            browser = browsers(live_run.port)
            wait_until(lambda: browser.of_kind("ReplayDoneMessage"))
            browser.press(labels.PAUSE)
            wait_until(lambda: live_run.viewer.status.phase == "paused")
            save_state(live_run.trainer, live_run.folder)
            browser.press(labels.RESUME)
            step = live_run.trainer.step
            wait_until(lambda: live_run.trainer.step > step)
            assert live_run.is_training and live_run.error is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_cap_leaves_descriptors_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, expected in [(resource.RLIM_INFINITY, 64), (10**6, 64), (40, 2)]:
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        assert connection_cap() == expected
