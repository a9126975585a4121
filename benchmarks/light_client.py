"""A client of the viewer's page that draws nothing: it connects, moves its camera, and counts received messages.

It implements the necessary part of viser's protocol: a websocket with msgpack messages, those of the server compressed
and followed by raw arrays (viser/infra/_infra.py). A browser on the training machine would cost more than the viewer.

    python benchmarks/light_client.py http://127.0.0.1:8080 --picture render --orbit --seconds 10

Prints "ready" when it is connected and set up, and one JSON object at the end of its time or of its input.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import viser
import zstandard
from viser.transforms import SO3
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from sdi_gs.viewer import labels

CAMERA_RATE = 60.0
"""Camera messages per second, as from a browser."""
SECONDS_AROUND = 8.0
"""Seconds of an orbit."""
DISTANCE, ELEVATION_DEG, FOV_DEG = 3.0, 15.0, 45.0
WIDTH, HEIGHT = 960, 720
"""Size of the claimed canvas."""


class LightClient:
    """One connection; ``close`` ends it."""

    def __init__(self, address: str) -> None:
        self.received: Counter[str] = Counter()
        """Messages by type."""
        self.received_bytes = 0
        self._uuids: dict[str, str] = {}
        self._labelled = threading.Condition()
        self._socket = connect(
            address.replace("http://", "ws://"),
            subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
            compression=None,
            max_size=None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # The first camera is what makes a connection a client.
        self.look_from(0.0)

    def look_from(self, azimuth_deg: float) -> None:
        """Send a camera on the orbit that looks at the centre."""
        azimuth, elevation = math.radians(azimuth_deg), math.radians(ELEVATION_DEG)
        direction = np.array(
            [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
        )
        right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
        # OpenCV's axes: right, down, forward.
        rotation = np.stack([right, np.cross(-direction, right), -direction], axis=1)
        self._send(
            "ViewerCameraMessage",
            wxyz=SO3.from_matrix(rotation).wxyz.tolist(),
            position=(DISTANCE * direction).tolist(),
            fov=math.radians(FOV_DEG),
            near=0.01,
            far=1000.0,
            image_height=HEIGHT,
            image_width=WIDTH,
            look_at=[0.0, 0.0, 0.0],
            up_direction=[0.0, 0.0, 1.0],
        )

    def set(self, label: str, value: Any, *, timeout: float = 20.0) -> None:
        """Set a control of the panel; raises TimeoutError if none of that name appears."""
        with self._labelled:
            if not self._labelled.wait_for(lambda: label in self._uuids, timeout):
                raise TimeoutError(f"no control {label!r} within {timeout:g} s, only {sorted(self._uuids)}")
        self._send("GuiUpdateMessage", uuid=self._uuids[label], updates={"value": value})

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._reader.join()

    def cut_off(self) -> None:
        """Drop the connection without closing it, like a pulled cable."""
        self._socket.socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()

    def _send(self, kind: str, **fields: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def _read(self) -> None:
        unpack = zstandard.ZstdDecompressor()
        try:
            for data in self._socket:
                assert isinstance(data, bytes)
                self.received_bytes += len(data)
                plain_size, packed_size = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
                plain = unpack.decompress(data[16 : 16 + packed_size], max_output_size=plain_size)
                for message in msgspec.msgpack.decode(plain)["messages"]:
                    self._take(message)
        except ConnectionClosed:
            pass

    def _take(self, message: dict[str, Any]) -> None:
        self.received[message["type"]] += 1
        label = (message.get("props") or {}).get("label")
        if label is not None and "uuid" in message:
            with self._labelled:
                self._uuids[label] = message["uuid"]
                self._labelled.notify_all()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("address")
    parser.add_argument("--picture", choices=labels.PICTURES, default="splats")
    parser.add_argument("--orbit", action="store_true", help="move the camera sixty times a second")
    parser.add_argument(
        "--crowd", type=int, default=1, help="so many clients at once, of which every other one is cut off"
    )
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    clients = [LightClient(options.address) for _ in range(options.crowd)]
    for client in clients:
        # A page has its controls once it is served; without waiting for them a client would be gone unnoticed.
        client.set(labels.PICTURE, options.picture)
    print("ready", flush=True)
    watched = clients[0]
    before, bytes_before = Counter(watched.received), watched.received_bytes
    started, cpu = time.monotonic(), time.process_time()
    turn = 0
    while not over.wait(1.0 / CAMERA_RATE if options.orbit else 0.1) and time.monotonic() - started < options.seconds:
        if options.orbit:
            turn += 1
            watched.look_from(360.0 * turn / (CAMERA_RATE * SECONDS_AROUND))
    seconds = time.monotonic() - started
    received = watched.received - before
    result = {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "received_mb": (watched.received_bytes - bytes_before) / 1e6,
        "renders_per_second": received["BackgroundImageMessage"] / seconds,
        "received": dict(received),
    }
    for index, client in enumerate(clients):
        if index % 2:
            client.cut_off()
        else:
            client.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
