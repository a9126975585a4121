"""PNGs and contact sheets of renders; equal pixels give equal bytes.

Letters: V views, H W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdi_gs.files import write_atomically

LABEL_HEIGHT = 14
"""Pixels above a view for its label in PIL's built-in font, size 10."""
_LABEL_SIZE = 10
_PAPER, _INK = 255, 0


def to_uint8(
    images: Tensor,  # [..., 3] colours in [0, 1], or uint8
) -> np.ndarray:
    """Return displayable bytes of the same shape: clamped, rounded to the nearest, NaN as black."""
    if images.dtype == torch.uint8:
        return images.cpu().numpy()
    scaled = images.detach().float().cpu().nan_to_num(nan=0.0).clamp(0.0, 1.0) * 255.0
    return scaled.round().to(torch.uint8).numpy()


def save_png(
    path: Path,
    image: Tensor,  # [H, W, 3] colours in [0, 1], or uint8
    *,
    overwrite: bool = False,
) -> None:
    """Write one picture; UserError where ``path`` exists (unless ``overwrite``) and for a full disk."""
    write_atomically(path, png_of(to_uint8(image)), overwrite=overwrite)


def save_contact_sheet(
    path: Path,
    frames: Tensor,  # [V, H, W, 3] colours in [0, 1], or uint8
    *,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write all views as one picture, row by row (errors as ``save_png``)."""
    write_atomically(path, png_of(contact_sheet(frames, columns=columns, labels=labels)), overwrite=overwrite)


def contact_sheet(
    frames: Tensor,  # [V, H, W, 3] colours in [0, 1], or uint8
    *,
    columns: int | None = None,
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Return all views on white, row by row, uint8 [rows H', columns W, 3]; H' is H plus the height of a label, if any.

    Without ``columns`` the sheet has about as many columns as rows. Raises ValueError where there are no frames, and
    where the labels are fewer or more than the frames.
    """
    count, height, width, _ = frames.shape
    if not count:
        raise ValueError("a contact sheet needs at least one frame")
    if labels is not None and len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} frames")
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    head = LABEL_HEIGHT if labels is not None else 0
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (head + height), columns * width, 3), _PAPER, dtype=np.uint8)
    for index, frame in enumerate(to_uint8(frames)):
        top, left = index // columns * (head + height), index % columns * width
        if labels is not None:
            sheet[top : top + head, left : left + width] = _label(labels[index], width)
        sheet[top + head : top + head + height, left : left + width] = frame
    return sheet


def _label(text: str, width: int) -> np.ndarray:
    """Return one line of text as uint8 [LABEL_HEIGHT, width, 3], cut off at the right."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_HEIGHT), (_PAPER,) * 3)
    font = ImageFont.load_default(_LABEL_SIZE)
    ImageDraw.Draw(strip).text((2, 1), text, fill=(_INK,) * 3, font=font)
    return np.asarray(strip)


def png_of(
    pixels: np.ndarray,  # [H, W, 3] uint8
) -> bytes:
    """Return a PNG."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG", compress_level=6)
    return encoded.getvalue()
