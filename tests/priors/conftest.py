"""A random latent diffusion model of toy size in the folder layout of Stable Diffusion 2.1."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch

from sdi_gs.doctor.miniature import SMALLEST, miniature_networks

SCHEDULERS: dict[str, dict[str, Any]] = {
    # The files of 2.1-base and of 2.1 as published.
    "epsilon": {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.10.0.dev0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "v_prediction": {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.8.0",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
}


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


def write_model(folder: Path, scheduler: dict[str, Any]) -> None:
    torch.manual_seed(0)
    vocabulary = _write_tokenizer(folder / "tokenizer")
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    tokens = {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary["<|startoftext|>"],
        "eos_token_id": vocabulary["<|endoftext|>"],
        "pad_token_id": vocabulary["!"],
    }
    networks = miniature_networks(replace(SMALLEST, text_tokens=tuple(tokens.items())), device="cpu")
    networks.text_encoder.save_pretrained(folder / "text_encoder")
    networks.unet.save_pretrained(folder / "unet")
    networks.vae.save_pretrained(folder / "vae")
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.10.0.dev0",
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's tokenizer with three merges; "blue" is one token and every other word is spelt."""
    letters = [chr(code) for code in range(33, 127)]
    merges = [("b", "l"), ("u", "e</w>"), ("bl", "ue</w>")]
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "!",
        "unk_token": "<|endoftext|>",
    }
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {**special, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True},
    )
    return vocabulary


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


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
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
