"""The page that browsers get: viser's, with a style and a script of our own in its head.

viser's page has no setting for either, and puts scenes into its own snapshots the same way.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from websockets.asyncio import server as websockets_server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

Answer = Callable[[websockets_server.ServerConnection, Request], Response | None]

HEAD = """
<style>
/* On a narrow screen viser lays its panel over the lower part of the picture: put it below instead, as wide as both. */
@media (max-width: 36em) {
  div:has(> div[style*="max-height: 60%"]) { flex-direction: column; }
  div[style*="max-height: 60%"] {
    position: relative !important; flex: none; width: 100% !important; max-height: 55% !important;
  }
  div[style*="max-height: 60%"] div[style*="width: 20em"] { width: 100% !important; }
}
</style>
<script>
// The corners of viser's splats have two coordinates, and three.js computes a bounding sphere from three: NaN, and an
// error in the console. Give them one without bounds, in the middle, so that they are drawn as before. three.js
// announces its scenes to this object, which its developers' tools use.
(window.__THREE_DEVTOOLS__ ??= new EventTarget()).addEventListener("observe", ({ detail: scene }) => {
  if (!scene.isScene) return;
  scene.onBeforeRender = () => scene.traverse((node) => {
    if (node.geometry?.attributes?.position?.itemSize !== 2 || node.geometry.boundingSphere) return;
    node.frustumCulled = false;
    node.geometry.boundingSphere = { center: node.position.clone().set(0, 0, 0), radius: Infinity };
  });
});
</script>
"""
"""Added to viser's page; nothing in it depends on the scene."""


def with_head(page: str) -> str:
    """Return a page of viser's with ``HEAD`` at the begin of its head: its own script may run before the page's end."""
    before, begin, after = page.partition("<head>")
    return f"{before}{begin}{HEAD if begin else ''}{after}"


@contextmanager
def own_page() -> Iterator[None]:
    """Let a server that viser starts within the body serve ``with_head`` of its page."""
    serve = websockets_server.serve

    def serve_own(*arguments: Any, process_request: Answer | None = None, **options: Any) -> websockets_server.serve:
        answer = None if process_request is None else _with_own_page(process_request)
        return serve(*arguments, process_request=answer, **options)

    # viser offers no way to pass this on; its server is up when its constructor returns.
    websockets_server.serve = serve_own
    try:
        yield
    finally:
        websockets_server.serve = serve


def _with_own_page(answer: Answer) -> Answer:
    def answer_own(connection: websockets_server.ServerConnection, request: Request) -> Response | None:
        response = answer(connection, request)
        if response is None or not response.headers.get("Content-Type", "").startswith("text/html"):
            return response
        body = _own_body(bytes(response.body or b""), response.headers.get("Content-Encoding") == "gzip")
        headers = Headers(response.headers)
        del headers["Content-Length"]
        headers["Content-Length"] = str(len(body))
        return Response(response.status_code, response.reason_phrase, headers, body)

    return answer_own


@lru_cache(maxsize=4)
def _own_body(body: bytes, is_compressed: bool) -> bytes:
    """Return a body of viser's with our head; compressing takes longer than a connection may hold up the others."""
    page = with_head((gzip.decompress(body) if is_compressed else body).decode())
    return gzip.compress(page.encode()) if is_compressed else page.encode()
