"""Turntable films."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.pictures.turntable import save_turntable

COLOURS = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.7, 0.4], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])


def plain_film(height: int = 48, width: int = 64) -> torch.Tensor:
    return COLOURS[:, None, None].expand(-1, height, width, 3)


def decoded(path: Path) -> tuple[str, np.ndarray]:
    """ffmpeg's own account of a film, and its frames [V, H, W, 3] uint8."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = next(line for line in done.stderr.decode().splitlines() if "Video: h264" in line)
    size = re.search(r" (\d+)x(\d+)[, ]", about)
    assert size is not None
    width, height = int(size[1]), int(size[2])
    return about, np.frombuffer(done.stdout, dtype=np.uint8).reshape(-1, height, width, 3)


def test_the_film_shows_every_frame_in_its_colours(tmp_path: Path) -> None:
    save_turntable(tmp_path / "a.mp4", plain_film(), fps=12)
    about, frames = decoded(tmp_path / "a.mp4")
    assert frames.shape == (4, 48, 64, 3)
    assert "yuv420p(tv, bt709/bt709/iec61966-2-1" in about
    assert "12 fps" in about
    shown = frames[:, 8:40, 8:56].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(shown, COLOURS.numpy(), atol=0.02)


def test_odd_sizes_gain_a_row_and_a_column_of_the_edge(tmp_path: Path) -> None:
    save_turntable(tmp_path / "a.mp4", plain_film(33, 47))
    _, frames = decoded(tmp_path / "a.mp4")
    assert frames.shape == (4, 34, 48, 3)
    np.testing.assert_allclose(frames[1, -1, -1] / 255, COLOURS[1], atol=0.02)


def test_films_repeat_to_the_byte_and_name_no_version_of_the_encoder(tmp_path: Path) -> None:
    noise = torch.rand(12, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    for name in ("a.mp4", "b.mp4"):
        save_turntable(tmp_path / name, noise)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data == (tmp_path / "b.mp4").read_bytes()
    # Unless told not to, the encoder, its library and the container's writer each sign with their versions.
    for signature in (rb"x264 - core \d", rb"Lavc\d", rb"Lavf\d"):
        assert not re.search(signature, data)


def test_a_failing_encoder_is_one_line_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\ncat > /dev/null\necho 'No space left\non device' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(UserError, match="ffmpeg reports 'No space left on device'"):
        save_turntable(tmp_path / "a.mp4", plain_film())
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_machine_without_ffmpeg_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", absent)
    with pytest.raises(UserError, match="no ffmpeg on this machine; pip install imageio-ffmpeg"):
        save_turntable(tmp_path / "a.mp4", plain_film())


def test_an_existing_film_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="never overwritten"):
        save_turntable(tmp_path / "a.mp4", plain_film())
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"


def test_no_frames_are_no_film(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        save_turntable(tmp_path / "a.mp4", plain_film()[:0])
