"""Memory that a program keeps between its steps, where the GNU C library gives it out.

A step on a CPU frees hundreds of megabytes and asks for them again. By default the library returns what is free at the
end of its heap as soon as there are some tens of megabytes of it, and the system hands the same memory out again page
by page, cleared: 52 000 pages in a step of the toybox network, which took a tenth of its time.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 256 * 2**20
"""Free memory at the end of the heap that is not returned."""
OWN_BYTES = 32 * 2**20
"""Size from which a request has pages of its own, which are returned when it is freed: the library's largest own choice
of it. Setting one of both numbers sets the other to its first value."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""
_OWN_CHOICES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Return whether this process keeps ``KEPT_BYTES`` from now on: for a program, not for a library.

    Nothing changes on other systems, with other C libraries, or where the environment has its own choice.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _OWN_CHOICES):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    # Each returns 1 where it was understood.
    return all([set_option(_MMAP_THRESHOLD, OWN_BYTES), set_option(_TRIM_THRESHOLD, KEPT_BYTES)])
