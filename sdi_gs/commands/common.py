"""Functions and constants of several commands; imports no torch, so that help is quick."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sdi_gs.console import print_lines, print_path, say
from sdi_gs.settings.bounds import Range

if TYPE_CHECKING:
    import torch

EXIT_CHECK_FAILED = 1
"""A check of ``doctor --full`` did not pass."""
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, what a shell reports of a program that Ctrl-C ended; also after SIGTERM and SIGHUP."""
EXIT_PIPE_CLOSED = 141
"""128 + SIGPIPE, what a shell reports of a program whose reader went away."""

LOCAL_HOST = "127.0.0.1"
VIEWER_PORT = 8080
PORTS = Range(0, 65535)


def pick_device(name: str | None) -> torch.device:
    """Return the device as ``sdi_gs.devices.pick_device`` does, importing torch only now."""
    from sdi_gs.devices import pick_device

    return pick_device(name)


def print_paths(paths: Iterable[Path]) -> None:
    """Print one path per line to stdout."""
    for path in paths:
        print_path(path)


def print_address(address: tuple[str, list[str]]) -> None:
    """Print a viewer's address to stdout and the remarks on it to stderr."""
    line, remarks = address
    print_lines(line)
    for remark in remarks:
        say(remark)
