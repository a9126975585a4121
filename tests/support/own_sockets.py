"""The sockets of this process, as Linux lists them: another process may take the number of a port that was closed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux only")

_LISTENING = "0A"


def own_sockets() -> set[str]:
    """Return the inodes of this process's open sockets."""
    found = set[str]()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            # Closed meanwhile, as the one that lists the folder.
            continue
        found |= set(re.findall(r"^socket:\[(\d+)\]$", name))
    return found


def listening_addresses(port: int) -> set[str]:
    """Return the addresses, in hexadecimal, on which this process listens at a port."""
    own, found = own_sockets(), set[str]()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, _, number = fields[1].partition(":")
        if fields[3] == _LISTENING and fields[9] in own and int(number, 16) == port:
            found.add(address)
    return found
