"""Pictures as files, and sheets of views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdi_gs.errors import UserError
from sdi_gs.pictures.images import LABEL_HEIGHT, contact_sheet, save_contact_sheet, save_png, to_uint8


def plain_frames(count: int, height: int = 8, width: int = 16) -> torch.Tensor:
    """Frames of one grey level each: 0, 10, 20, ..."""
    levels = torch.arange(count, dtype=torch.uint8) * 10
    return levels[:, None, None, None].expand(count, height, width, 3)


def test_colours_are_rounded_clamped_and_never_nan() -> None:
    colours = torch.tensor([[-1.0, 0.0, 0.5], [1.0, 7.0, float("nan")], [0.1, 0.501, float("inf")]])
    assert to_uint8(colours).tolist() == [[0, 0, 128], [255, 255, 0], [26, 128, 255]]


def test_a_picture_is_read_back_exactly(tmp_path: Path) -> None:
    pixels = torch.randint(256, (5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_png(tmp_path / "a.png", pixels)
    save_png(tmp_path / "b.png", pixels / 255)
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels.numpy())
            assert image.info == {}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_views_fill_the_sheet_row_by_row_on_white() -> None:
    sheet = contact_sheet(plain_frames(5), columns=3)
    assert sheet.shape == (16, 48, 3)
    assert sheet[::8, ::16, 0].tolist() == [[0, 10, 20], [30, 40, 255]]
    assert (sheet[:8, :16] == 0).all()


@pytest.mark.parametrize(("count", "shape"), [(1, (8, 16)), (4, (16, 32)), (8, (24, 48)), (24, (40, 80))])
def test_a_sheet_is_about_square_by_itself(count: int, shape: tuple[int, int]) -> None:
    assert contact_sheet(plain_frames(count)).shape[:2] == shape


def test_more_columns_than_views_leave_no_paper_over() -> None:
    assert contact_sheet(plain_frames(2), columns=9).shape == (8, 32, 3)


def test_labels_stand_above_their_views_and_leave_them_whole() -> None:
    frames = plain_frames(2, width=64)
    sheet = contact_sheet(frames, columns=1, labels=["front view 0°", "a label far too long for its picture"])
    assert sheet.shape == (2 * (8 + LABEL_HEIGHT), 64, 3)
    for row, frame in enumerate(frames.numpy()):
        top = row * (8 + LABEL_HEIGHT)
        strip = sheet[top : top + LABEL_HEIGHT]
        assert strip.min() < 64
        assert strip.max() == 255
        np.testing.assert_array_equal(sheet[top + LABEL_HEIGHT : top + LABEL_HEIGHT + 8], frame)


def test_sheets_repeat_to_the_byte(tmp_path: Path) -> None:
    frames = torch.rand(6, 20, 20, 3, generator=torch.Generator().manual_seed(0))
    for name in ("a.png", "b.png"):
        save_contact_sheet(tmp_path / name, frames, labels=list("abcdef"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), contact_sheet(frames, labels=list("abcdef")))


def test_an_existing_picture_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", plain_frames(1)[0])
    with pytest.raises(UserError, match="never overwritten"):
        save_png(tmp_path / "a.png", plain_frames(2)[1])
    save_png(tmp_path / "a.png", plain_frames(2)[1], overwrite=True)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == (10, 10, 10)


def test_frames_and_labels_must_match() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 frames"):
        contact_sheet(plain_frames(2), labels=["a"])
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet(plain_frames(0))
