"""The film of a turning object: an MP4 that every browser plays; equal frames give equal bytes.

Letters: V views, H W pixels.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import replacement_for
from sdi_gs.pictures.images import to_uint8

LARGE_PICTURE = 1024**2
"""Pixels above which x264 looks fewer pictures ahead: it holds all of them."""

# One thread, since x264 cuts a picture into as many slices as it has threads. No dates and no encoder versions; x264
# writes its own into SEI units (type 6).
_REPEATABLE = ("-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact")
_NO_ENCODER_NAME = ("-bsf:v", "filter_units=remove_types=6")
# The colour matrix is declared: without it players guess by the size of the picture. So are the primaries and the
# transfer, which are those of the pictures, sRGB's.
_TAGS = "setparams=color_primaries=bt709:color_trc=iec61966-2-1"
_BT709 = ("-vf", f"scale=out_color_matrix=bt709:out_range=tv,{_TAGS}", "-colorspace", "bt709", "-color_range", "tv")
# Phones and browsers decode 4:2:0; at 18 x264 is hard to tell from the original.
_H264 = ("-c:v", "libx264", "-preset", "medium", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart")


def save_turntable(
    path: Path,
    frames: Tensor | Iterable[np.ndarray],  # [V, H, W, 3] colours in [0, 1], or uint8; or parts of that, uint8
    *,
    fps: int = 24,
    overwrite: bool = False,
) -> None:
    """Write the views as a film, part by part; pictures of odd size get their last row or column twice.

    Raises UserError where ``path`` exists (unless ``overwrite``), for a full disk and without ffmpeg; ValueError where
    there are no frames.
    """
    parts = iter((to_uint8(frames),) if isinstance(frames, Tensor) else frames)
    first = next(parts, None)
    if first is None or not len(first):
        raise ValueError("a turntable needs at least one frame")
    height, width = (side + side % 2 for side in first.shape[1:3])
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-")
    ahead = () if width * height <= LARGE_PICTURE else ("-x264-params", "rc-lookahead=4:ref=1")
    ffmpeg = find_ffmpeg()
    with replacement_for(path, overwrite=overwrite) as aside:
        target = ("-an", "-f", "mp4", "-y", str(aside))
        command = [ffmpeg, "-v", "error", *source, *_BT709, *_H264, *ahead, *_REPEATABLE, *_NO_ENCODER_NAME, *target]
        _encode(command, chain((first,), parts), path)


def _encode(command: list[str], parts: Iterable[np.ndarray], path: Path) -> None:
    """Feed pictures to ffmpeg as they come; raises UserError where it fails, and ends it where they do."""
    with tempfile.TemporaryFile() as messages:
        # In a session of its own, so that Ctrl-C in the terminal does not reach it: the run finishes the film.
        encoder = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=messages, start_new_session=True)
        assert encoder.stdin is not None
        try:
            # A pipe that breaks is an encoder that failed, which its exit code and message say.
            with suppress(BrokenPipeError), encoder.stdin as pipe:
                for part in parts:
                    pipe.write(_even(part).tobytes())
            failed = encoder.wait() != 0
        except BaseException:
            encoder.kill()
            encoder.wait()
            raise
        if failed:
            messages.seek(0)
            output = " ".join(messages.read().decode(errors="replace").split())
            raise UserError(f"cannot write {path}: ffmpeg reports {output[-300:]!r}; the other files are not affected")


def _even(
    pixels: np.ndarray,  # [V, H, W, 3] uint8
) -> np.ndarray:
    """Pad to even H and W, which halved colour planes require."""
    _, height, width, _ = pixels.shape
    return np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def find_ffmpeg() -> str:
    """Return the path of the ffmpeg binary that imageio-ffmpeg ships or finds; UserError if it has none."""
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError(
            "cannot write a film: no ffmpeg on this machine; pip install imageio-ffmpeg, or name one in "
            "IMAGEIO_FFMPEG_EXE"
        ) from error
