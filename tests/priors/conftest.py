"""Random models of toy size in Stable Diffusion 2.1's layout, and a hub on this machine that has them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from tiny_pipeline import SCHEDULERS, write_model


@pytest.fixture(autouse=True)
def one_thread_in_every_test(one_thread: None) -> None:
    """Every test here computes on small tensors."""


@pytest.fixture(scope="session")
def pristine_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by prediction type; tests only read them."""
    root = tmp_path_factory.mktemp("models")
    folders = {}
    for prediction_type, scheduler in SCHEDULERS.items():
        folders[prediction_type] = root / prediction_type
        write_model(folders[prediction_type], scheduler)
    return folders


@pytest.fixture
def model_copy(pristine_models: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a folder, to damage it."""

    def copy(prediction_type: str = "epsilon") -> Path:
        return shutil.copytree(pristine_models[prediction_type], tmp_path / "model")

    return copy


class ServedHub:
    """A hub with the given repositories, as far as the client uses it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.asked: list[str] = []
        """Paths of all requests."""
        self.closed: set[str] = set()
        """Repositories that are refused without a login."""

    def downloads(self) -> list[str]:
        """Return the requests for files."""
        return [path for path in self.asked if "/resolve/" in path]

    def commit(self, repo_id: str) -> str:
        return sha256(repo_id.encode()).hexdigest()[:40]

    def answer(self, path: str) -> tuple[dict[str, str], bytes] | None:
        """Return headers and body; None for unknown paths."""
        self.asked.append(path)
        for repo_id, folder in self.repositories.items():
            files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
            if path.startswith(f"/api/models/{repo_id}/tree/"):
                rows = [
                    {"type": "file", "path": name, "size": file.stat().st_size, "oid": self._tag(file)}
                    for name, file in files.items()
                ]
                return {}, json.dumps(rows).encode()
            if path.startswith(f"/api/models/{repo_id}"):
                siblings = [{"rfilename": name} for name in files]
                about = {"id": repo_id, "sha": self.commit(repo_id), "siblings": siblings}
                return {}, json.dumps(about).encode()
            if path.startswith(f"/{repo_id}/resolve/"):
                name = path.removeprefix(f"/{repo_id}/resolve/").split("/", 1)[1]
                if name in files:
                    headers = {"ETag": f'"{self._tag(files[name])}"', "X-Repo-Commit": path.split("/")[4]}
                    return headers, files[name].read_bytes()
        return None

    def _tag(self, file: Path) -> str:
        return sha256(file.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, so that no test finds real weights."""
    cache = tmp_path_factory.mktemp("hub-cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path_factory.mktemp("hub-assets")))
    return cache


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedHub]:
    """A local hub for the real client; empty at first."""
    served = ServedHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            found = None if any(name in path for name in served.closed) else served.answer(path)
            closed = any(name in path for name in served.closed)
            headers, body = found or ({"X-Error-Code": "GatedRepo" if closed else "RepoNotFound"}, b"")
            self.send_response(401 if closed else 404 if found is None else 200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", 300)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
