"""What stdout and stderr are connected to: any encoding, a pipe that closes, a full disk, nothing."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sdi_gs.console import forget
from sdi_gs.errors import UserError

_DEVICE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextmanager
def output_of_any_kind() -> Iterator[None]:
    """Write ``?`` for letters that an encoding does not have, and deliver all output before the body's end counts.

    Raises BrokenPipeError where the reader of stdout is gone, and UserError where stdout cannot be written.
    """
    changed = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream, _ in changed:
        stream.reconfigure(errors="replace")
    try:
        yield
        # None where the program was started without it: `>&-`.
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Files of this program's own are named in their errors; these are what stdout's device reports.
        if error.filename is not None or error.errno not in _DEVICE_ERRORS:
            raise
        forget(sys.stdout)
        raise UserError(f"cannot write to standard output: {error.strerror}") from error
    finally:
        for stream, errors in changed:
            # A pipe that closed holds text that cannot be delivered.
            with suppress(OSError, ValueError):
                stream.reconfigure(errors=errors)
