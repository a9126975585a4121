"""The page that browsers get is viser's with our own head, compressed or not."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path

import pytest
import viser

from sdi_gs.viewer.guard import quiet, start_server, stop_server
from sdi_gs.viewer.served_page import HEAD, with_head

ORIGINAL = (Path(viser.__file__).parent / "client/build/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = start_server("127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.get_port()}"
    stop_server(server)


def got(address: str, **headers: str) -> tuple[bytes, HTTPMessage]:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=300) as answer:
        return answer.read(), answer.headers


@pytest.mark.parametrize("path", ["/", "/index.html", "/?a=b"])
def test_every_address_of_the_page_has_our_head(address: str, path: str) -> None:
    body, headers = got(address + path)
    before, _, after = ORIGINAL.partition("<head>")
    assert body.decode() == f"{before}<head>{HEAD}{after}"
    assert "<script" not in before
    assert headers["Content-Length"] == str(len(body))
    # Twice the same: it is kept.
    squeezed, headers = got(address + path, **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert headers.get_all("Content-Length") == [str(len(squeezed))]
    assert gzip.decompress(squeezed) == body


def test_other_answers_are_visers_own(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        got(f"{address}/nothing.html")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        got(f"{address}/../secrets")


def test_a_page_without_a_head_is_left_alone() -> None:
    assert with_head("<p>one</p>") == "<p>one</p>"
    assert with_head("<head></head><body><head>") == f"<head>{HEAD}</head><body><head>"


def test_viser_is_itself_again_after_the_start(address: str) -> None:
    assert address
    with quiet():
        plain = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        assert HEAD not in got(f"http://127.0.0.1:{plain.get_port()}")[0].decode()
    finally:
        stop_server(plain)
