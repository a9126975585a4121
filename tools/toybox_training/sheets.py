"""Sheets of pictures.

Letters: B images, H W pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sdi_gs.files import replacement_for


def save_sheet(
    path: Path,
    images: Tensor,  # [B, 3, H, W] in [0, 1]
    *,
    columns: int,
    zoom: int = 2,
) -> None:
    """Write the pictures row by row as a PNG, each pixel ``zoom`` wide; an existing file is replaced."""
    from PIL import Image

    missing = -len(images) % columns
    tiles = torch.cat([images, torch.ones(missing, *images.shape[1:])])
    rows = tiles.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    pixels = (rows.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(zoom, dim=0).repeat_interleave(zoom, dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacement_for(path, overwrite=True) as aside:
        Image.fromarray(pixels.numpy()).save(aside, format="PNG")
