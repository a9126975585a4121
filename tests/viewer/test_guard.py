"""Where the viewer listens, who may talk to it, and what it tells about that."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import viser
from own_sockets import listening_addresses, needs_proc, own_sockets
from viser import _messages as messages
from websockets.exceptions import ConnectionClosed

from sdi_gs.errors import UserError
from sdi_gs.viewer.guard import address_lines, free_port, is_own_origin, quiet, start_server, stop_server


@pytest.fixture
def server() -> Iterator[viser.ViserServer]:
    server = start_server("127.0.0.1", 0)
    yield server
    stop_server(server)


def listening(host: str = "127.0.0.1") -> socket.socket:
    taken = socket.socket()
    taken.bind((host, 0))
    taken.listen(1)
    return taken


def test_a_taken_port_leads_to_the_next_free_one() -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
        assert port < free_port("127.0.0.1", port) <= port + 100


def test_a_free_port_is_the_one_that_was_asked_for() -> None:
    # Any one may be taken by another process in this moment.
    ports = []
    for _ in range(20):
        with listening() as taken:
            ports.append(taken.getsockname()[1])
    assert any(free_port("127.0.0.1", port) == port for port in ports)
    assert free_port("127.0.0.1", 0) == 0


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    with pytest.raises(UserError, match=f"cannot listen on {host}: .*; use 127.0.0.1"):
        start_server(host, 0)


@needs_proc
def test_only_this_machine_can_connect(server: viser.ViserServer, wait_until: Callable[..., Any]) -> None:
    # The system's list may miss one while it changes; 127.0.0.1 as the system writes it.
    assert wait_until(lambda: listening_addresses(server.get_port())) == {"0100007F"}


def test_starting_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    server = start_server("127.0.0.1", 0)
    stop_server(server)
    assert capsys.readouterr().out == ""


@needs_proc
def test_stopping_closes_the_port(wait_until: Callable[..., Any]) -> None:
    before = own_sockets()
    server = start_server("127.0.0.1", 0)
    port = server.get_port()
    wait_until(lambda: listening_addresses(port))
    stop_server(server)
    assert not listening_addresses(port)
    assert own_sockets() <= before


def test_no_client_can_open_the_share_tunnel(
    server: viser.ViserServer,
    browsers: Callable[..., Any],
    wait_until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(viser.ViserServer, "request_share_url", lambda self: asked.append("request"))
    monkeypatch.setattr(viser.ViserServer, "disconnect_share_url", lambda self: asked.append("disconnect"))
    seen: list[str] = []
    server._websock_server.register_handler(
        messages.GuiFormSubmitMessage, lambda client, message: seen.append(message.uuid)
    )
    browser = browsers(server.get_port())
    browser.send("ShareUrlRequest")
    browser.send("ShareUrlDisconnect")
    # Messages are handled in order: when this one was, those were.
    browser.send("GuiFormSubmitMessage", uuid="last")
    wait_until(lambda: seen == ["last"])
    assert asked == []
    assert server._share_tunnel is None
    for kind in (messages.ShareUrlRequest, messages.ShareUrlDisconnect):
        assert kind not in server._websock_server._incoming_handlers


def test_viser_itself_would_open_it(browsers: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    # Else the test above would prove nothing.
    with quiet():
        server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    asked: list[str] = []
    server.request_share_url = lambda verbose=True: asked.append("request")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        browsers(server.get_port()).send("ShareUrlRequest")
        wait_until(lambda: asked == ["request"])
    finally:
        stop_server(server)


@pytest.mark.parametrize(
    ("origin", "host", "local", "allowed"),
    [
        (None, "127.0.0.1:8080", True, True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True, True),
        ("http://localhost:9000", "localhost:9000", True, True),
        ("http://[::1]:8080", "[::1]:8080", True, True),
        ("https://evil.example", "127.0.0.1:8080", True, False),
        ("http://127.0.0.1:9999", "127.0.0.1:8080", True, False),
        ("null", "127.0.0.1:8080", True, False),
        ("http://evil.example:8080", "evil.example:8080", True, False),
        ("http://127.0.0.1.evil.example:8080", "127.0.0.1.evil.example:8080", True, False),
        ("http://gpu-box:8080", "gpu-box:8080", False, True),
        ("https://evil.example", "gpu-box:8080", False, False),
    ],
)
def test_pages_of_other_sites_are_told_apart(origin: str | None, host: str, local: bool, allowed: bool) -> None:
    assert is_own_origin(origin, host, local=local) == allowed


def test_another_sites_page_is_turned_away_without_a_message(
    server: viser.ViserServer, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    own = browsers(server.get_port(), origin=f"http://127.0.0.1:{server.get_port()}")
    wait_until(lambda: own.of_kind("ReplayDoneMessage"))
    other = browsers(server.get_port(), origin="https://evil.example", with_camera=False)
    wait_until(lambda: other.connection.close_code is not None)
    # viser's page shows the reason of this code alone.
    assert other.connection.close_code == 1002
    assert other.connection.close_reason == "This viewer must be started with --viewer-origin evil.example"
    assert other.messages == []
    with pytest.raises(ConnectionClosed):
        other.look_from((1.0, 0.0, 0.0))
    assert len(server.get_clients()) == 1


ALLOWED = frozenset({"box.example.org", "box.example.org:8443"})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://box.example.org", True),
        ("https://BOX.example.org:8443", True),
        ("https://box.example.org:9", False),
        ("https://other.example.org", False),
        ("https://box.example.org.evil.example", False),
        ("https://evil-box.example.org", False),
        ("https://evil.example@box.example.org", False),
        ("file://box.example.org", False),
        ("null", False),
    ],
)
def test_a_proxys_name_is_allowed_as_a_whole(origin: str, allowed: bool) -> None:
    assert is_own_origin(origin, "127.0.0.1:8080", local=True, allowed=ALLOWED) == allowed
    assert not is_own_origin(origin, "127.0.0.1:8080", local=True)


@pytest.mark.parametrize(
    "name", ["https://box.example.org", "box.example.org/proxy", "*", "*.example.org", "", "a b", "ü"]
)
def test_an_origin_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not the name of a site: give it as the browser's address line has it"):
        start_server("127.0.0.1", 0, origins=[name])


def test_a_page_behind_a_proxy_is_let_in_by_name(browsers: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    server = start_server("127.0.0.1", 0, origins=["Box.example.org"])
    try:
        browser = browsers(server.get_port(), origin="https://box.example.org")
        wait_until(lambda: len(server.get_clients()) == 1)
        assert browser.connection.close_code is None
    finally:
        stop_server(server)


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("https://hub.example.org", "--viewer-origin hub.example.org"),
        ("https://" + "a" * 300, "--viewer-origin its name"),
        ("https://-evil.example", "--viewer-origin its name"),
    ],
)
def test_a_refusal_says_what_to_add_and_repeats_nothing_that_is_no_name(
    server: viser.ViserServer,
    browsers: Callable[..., Any],
    wait_until: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    origin: str,
    said: str,
) -> None:
    for _ in range(2):
        other = browsers(server.get_port(), origin=origin, with_camera=False)
        wait_until(lambda other=other: other.connection.close_code is not None)
        assert str(other.connection.close_reason).endswith(said)
    # Once, however often the page tries again.
    [line] = [message for message in caplog.messages if "was refused" in message]
    assert line.endswith(said)


def test_the_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert address_lines("127.0.0.1", 8080) == ("viewer: http://127.0.0.1:8080", [])
    assert address_lines("::1", 8080) == ("viewer: http://[::1]:8080", [])


def test_over_ssh_the_tunnel_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.4 51234 203.0.113.9 22")
    monkeypatch.setenv("USER", "ada")
    _, [remark] = address_lines("127.0.0.1", 8081)
    assert "ssh -N -L 8081:127.0.0.1:8081 ada@203.0.113.9, then open http://localhost:8081" in remark
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.4 51234 203.0.113.9 2222")
    _, [remark] = address_lines("127.0.0.1", 8081)
    assert "ssh -N -L 8081:127.0.0.1:8081 -p 2222 ada@203.0.113.9" in remark


def test_whoever_lets_others_in_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    line, [warning] = address_lines("0.0.0.0", 8080)
    assert line == "viewer: http://127.0.0.1:8080"
    assert warning.startswith("warning: listening on 0.0.0.0 without a password")
