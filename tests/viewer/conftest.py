"""A browser without a picture: it speaks viser's protocol, so that a real server can be tested without Chromium."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch
import viser
import zstandard
from tiny_pipeline import SCHEDULERS, write_model
from torch import Tensor
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset, preset_named
from sdi_gs.contracts import RenderOutput, Scene
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.representations.parameter_scene import ParameterScene
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.ngp import HashGridConfig, NgpConfig
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.viewer.server import LiveViewer

PATIENCE = 300.0
"""Seconds; a machine with much else to do may take many."""
LASTING = ("rasterize", "tqdm_monitor")
"""Threads that stay: of the rasteriser, and of progress bars."""


def _wait_until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Poll until something is true, and return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        # Looked at before the condition, which is asked once more after a long standstill.
        is_late = time.monotonic() > deadline
        value = condition()
        if value:
            return value
        if is_late:
            raise AssertionError(f"waited {PATIENCE} s for {what}")
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    """Wait until a test's threads have ended: what they still did would be printed, or fail, in the next test."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith(LASTING):
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread


class FakeBrowser:
    """One connection; ``messages`` is everything that it was sent."""

    def __init__(self, port: int, *, origin: str | None = None, with_camera: bool = True) -> None:
        self.messages: list[dict[str, Any]] = []
        self.connection: ClientConnection = connect(
            f"ws://127.0.0.1:{port}",
            subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
            origin=origin,  # pyright: ignore[reportArgumentType]
            max_size=None,
            compression=None,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            # Whoever gets no answer for seconds may be in a process that stands still.
            ping_interval=None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if with_camera:
            self.look_from((3.3, 0.0, 0.0))

    def send(self, kind: str, **fields: Any) -> None:
        self.connection.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def look_from(
        self, position: tuple[float, float, float], *, width: int = 320, height: int = 200, fov: float = 0.7
    ) -> None:
        """Say where the camera is; it looks back along the world's x axis, z up."""
        self.send(
            "ViewerCameraMessage",
            wxyz=(0.5, 0.5, -0.5, -0.5) if position[0] < 0 else (0.5, -0.5, -0.5, 0.5),
            position=position,
            fov=fov,
            near=0.01,
            far=1000.0,
            image_height=height,
            image_width=width,
            look_at=(0.0, 0.0, 0.0),
            up_direction=(0.0, 0.0, 1.0),
        )

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in list(self.messages) if message["type"] == kind]

    def control(self, label: str) -> str:
        """The id of a control with a label."""

        def found() -> str | None:
            for message in list(self.messages):
                if message["type"].startswith("Gui") and message.get("props", {}).get("label") == label:
                    return message["uuid"]
            return None

        return _wait_until(found, f"a control {label!r}")

    def set_value(self, label: str, value: Any) -> None:
        self.send("GuiUpdateMessage", uuid=self.control(label), updates={"value": value})

    def press(self, label: str) -> None:
        self.set_value(label, True)

    def value_of(self, label: str) -> Any:
        """The last value that the server gave to a control."""
        uuid, value = self.control(label), None
        for message in list(self.messages):
            if message.get("uuid") == uuid:
                value = message["updates"].get("value", value) if "updates" in message else message.get("value", value)
        return value

    def texts(self) -> str:
        """All that was ever shown in Markdown and notifications."""
        return " ".join(str(message) for message in list(self.messages) if _is_text(message))

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed and all that came before has been read."""
        return not self._reader.is_alive()

    def close(self) -> None:
        self.connection.close()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                self.messages += decode(self.connection.recv())


def _is_text(message: dict[str, Any]) -> bool:
    return "arkdown" in message["type"] or "otification" in message["type"] or message["type"] == "GuiUpdateMessage"


def decode(frame: str | bytes) -> list[dict[str, Any]]:
    """The messages of one frame; arrays stay placeholders, with the sizes of their bytes beside them."""
    assert isinstance(frame, bytes)
    compressed_size = int.from_bytes(frame[8:16], "little")
    inner = zstandard.ZstdDecompressor().decompress(
        frame[16 : 16 + compressed_size], max_output_size=int.from_bytes(frame[:8], "little")
    )
    unpacked = msgspec.msgpack.decode(inner)
    return [message | {"_sizes": unpacked["binaryBufferLengths"]} for message in unpacked["messages"]]


@pytest.fixture
def browsers() -> Iterator[Callable[..., FakeBrowser]]:
    """Open connections that are closed after the test."""
    opened: list[FakeBrowser] = []

    def browse(port: int, **options: Any) -> FakeBrowser:
        opened.append(FakeBrowser(port, **options))
        return opened[-1]

    yield browse
    for browser in opened:
        browser.close()


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return _wait_until


@pytest.fixture
def ball() -> Callable[..., Gaussians]:
    return _ball


@pytest.fixture
def live_run(tmp_path: Path) -> Iterator[LiveRun]:
    """A run that trains in a thread of its own under a viewer; it is stopped after the test."""
    yield from LiveRun(tmp_path / "run").watched()


@pytest.fixture
def live_field(tmp_path: Path) -> Iterator[LiveRun]:
    """The same of a run that trains a field."""
    yield from LiveRun(tmp_path / "run", representation="ngp").watched()


@pytest.fixture
def live_four_views(tmp_path: Path) -> Iterator[LiveRun]:
    """The same of five steps under a network of four views, which was written by the name of its layout."""
    with torch.random.fork_rng():
        model = write_model(tmp_path / "tiny", SCHEDULERS["epsilon"], words=True, four_views=True)
    small = {"steps": 5, "gaussians.num_initial": 60, "outputs.turntable_frames": 0, "outputs.preview_every": 0}
    settings = preset("mvdream-sdi", {"prior": str(model), **small}, prompt="a corgi")
    yield from LiveRun(tmp_path / "run", settings=settings).watched()


class Wall(ParameterScene):
    """A scene of one's own: a wall of one colour that fills every picture, two units away."""

    def __init__(self) -> None:
        super().__init__({"colour": torch.zeros(3)})

    def render(self, cameras: CameraBatch, background: Tensor, *, with_depth: bool = False, **_: Any) -> RenderOutput:
        shape = (len(cameras), cameras.height, cameras.width)
        return RenderOutput(
            rgb=torch.sigmoid(self.params["colour"]).expand(*shape, 3),
            alpha=torch.ones(*shape, 1),
            depth=torch.full((*shape, 1), 2.0) if with_depth else None,
        )


@pytest.fixture
def live_wall(tmp_path: Path) -> Iterator[LiveRun]:
    """The same of a run that trains a scene of one's own."""
    yield from LiveRun(tmp_path / "run", scene=Wall()).watched()


@dataclass
class LiveRun:
    """A run and its viewer; call ``start`` to let it train."""

    path: Path
    representation: Literal["gaussians", "ngp"] = "gaussians"
    scene: Scene | None = None
    settings: RunConfig | None = None
    """Of the whole run, in place of the usual ones."""
    interrupted: bool = False
    stopped: bool = False

    def __post_init__(self) -> None:
        settings = self.settings or replace(_endless(), representation=self.representation)
        self.trainer, self.folder = prepare_run(
            settings, device=torch.device("cpu"), folder=self.path, scene=self.scene
        )
        self.viewer = LiveViewer(self.trainer, self.folder, port=0, interrupted=lambda: self.interrupted)
        self._thread = threading.Thread(target=self._train, daemon=True)
        self.error: BaseException | None = None

    @property
    def port(self) -> int:
        return self.viewer.port

    def watched(self) -> Iterator[LiveRun]:
        """The run while its viewer is open; afterwards it is stopped."""
        with self.viewer:
            try:
                yield self
            finally:
                self.stop()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end, and raise what it raised."""
        self.stopped = self.interrupted = True
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    @property
    def is_training(self) -> bool:
        return self._thread.is_alive()

    def _train(self) -> None:
        try:
            train(
                self.trainer,
                self.folder,
                observers=[self.viewer.observe],
                should_stop=lambda: self.stopped or self.viewer.stop_requested,
            )
        except BaseException as error:
            self.error = error


def _ball(count: int = 40, *, seed: int = 0) -> Gaussians:
    """A small cloud."""
    config = GaussiansConfig(num_initial=count, initial_opacity=0.8, initial_radius=0.5)
    return gaussian_ball(config, generator=torch.Generator().manual_seed(seed), device=torch.device("cpu"))


def _endless() -> RunConfig:
    """A run of many quick steps."""
    base = preset_named("smoke").config
    return replace(
        base,
        prompt="a blue robot",
        steps=100_000,
        views_per_step=1,
        gaussians=replace(base.gaussians, num_initial=60),
        ngp=NgpConfig(
            grid=HashGridConfig(num_levels=2, initial_levels=2, log2_table_size=8),
            hidden_width=8,
            samples_per_ray=32,
            occupancy_resolution=16,
        ),
        ideal_prior=replace(base.ideal_prior, renders_per_view=2, unconditional_renders=4),
        outputs=OutputConfig(preview_every=0, checkpoint_every=0, turntable_frames=0, turntable_size=32),
    )
