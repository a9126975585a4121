"""PlayCanvas' .sog, version 2: a zip of lossless WebP pictures, a pixel for each splat, and meta.json.

Positions have 16 bits of sign(v) ln(1 + |v|) between the ends of each axis; log scales and colours are bytes that name
numbers of a codebook; rotations are three bytes and the index of the largest part; harmonics are rows of a palette
(developer.playcanvas.com, "The SOG format").

Letters: N splats, K harmonics per channel above band 0, P rows of the palette.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdi_gs.files import write_atomically
from sdi_gs.files.origin import PROGRAM, Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.codebooks import PALETTE, book_of, palette_of
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.quantised import morton_order, opacity_bytes, smallest_three, to_bytes
from sdi_gs.splats.screening import ExportReport, screened_for_writing
from sdi_gs.splats.sog_reading import META, PALETTE_COLUMNS, is_sog, read_sog
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud

_EFFORT = 25
"""Of the WebP encoder, 0 to 100: more takes several times as long and saves a hundredth."""


def write_sog(
    path: Path, splats: SplatCloud, *, options: ExportOptions, origin: Origin, overwrite: bool = False
) -> ExportReport:
    """Write a cloud given in the training world, near splats next to each other (UserError as ``SplatWriter``)."""
    cloud, report = screened_for_writing(splats, path, options.frame)
    order = morton_order(cloud.means.numpy())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        meta: dict[str, Any] = {
            "version": 2,
            "asset": {"generator": PROGRAM, "comments": origin.lines()[1:]},
            "count": len(cloud),
            "means": _write_means(file, cloud.means.numpy()[order]),
            "scales": _write_coded(file, "scales", cloud.log_scales.numpy()[order], None),
            "quats": _write_quats(file, cloud.quats.numpy()[order]),
            "sh0": _write_coded(file, "sh0", cloud.sh_dc.numpy()[order], opacity_bytes(cloud.opacity_logit)[order]),
        }
        if cloud.sh_rest.shape[1]:
            meta["shN"] = _write_harmonics(file, cloud.sh_rest.numpy()[order])
        _add(file, META, json.dumps(meta, separators=(",", ":")).encode())
    write_atomically(path, archive.getbuffer(), overwrite=overwrite)
    return report


def _write_means(
    file: zipfile.ZipFile,
    means: np.ndarray,  # [N, 3]
) -> dict[str, Any]:
    bent = np.sign(means) * np.log1p(np.abs(means))
    low, high = bent.min(axis=0), bent.max(axis=0)
    # Readers take 1 for an axis without extent.
    steps = np.rint((bent - low) * (65535.0 / np.where(high > low, high - low, 1.0))).astype(np.uint16)
    _write_picture(file, "means_l.webp", (steps & 255).astype(np.uint8))
    _write_picture(file, "means_u.webp", (steps >> 8).astype(np.uint8))
    return {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]}


def _write_coded(
    file: zipfile.ZipFile,
    name: str,
    values: np.ndarray,  # [N, 3]
    opacity: np.ndarray | None,  # [N] uint8
) -> dict[str, Any]:
    """Write values as bytes that name numbers of a codebook, with opacities if there are any."""
    book, pixels = book_of(values)
    if opacity is not None:
        pixels = np.concatenate([pixels, opacity[:, None]], axis=1)
    _write_picture(file, f"{name}.webp", pixels)
    return {"codebook": _short(book), "files": [f"{name}.webp"]}


def _write_quats(
    file: zipfile.ZipFile,
    quats: np.ndarray,  # [N, 4] wxyz of length 1
) -> dict[str, Any]:
    largest, rest = smallest_three(quats)
    parts = to_bytes((rest * np.sqrt(0.5) + 0.5) * 255.0)
    _write_picture(file, "quats.webp", np.concatenate([parts, (252 + largest[:, None]).astype(np.uint8)], axis=1))
    return {"files": ["quats.webp"]}


def _write_harmonics(
    file: zipfile.ZipFile,
    rest: np.ndarray,  # [N, K, 3]
) -> dict[str, Any]:
    """Write a palette of all harmonics of a splat and the row that stands for each."""
    count, coefficients = rest.shape[:2]
    palette, labels = palette_of(rest.reshape(count, -1))
    book, codes = book_of(palette)
    height = math.ceil(len(palette) / PALETTE_COLUMNS)
    pixels = np.zeros((height * PALETTE_COLUMNS, coefficients, 3), dtype=np.uint8)
    pixels[: len(palette)] = codes.reshape(-1, coefficients, 3)
    picture = pixels.reshape(height, PALETTE_COLUMNS * coefficients, 3)
    _add(file, "shN_centroids.webp", _webp(picture))
    _write_picture(file, "shN_labels.webp", np.stack([labels & 255, labels >> 8, labels * 0], axis=1).astype(np.uint8))
    return {
        "count": len(palette),
        "bands": REST_COEFFICIENTS.index(coefficients),
        "codebook": _short(book),
        "files": ["shN_centroids.webp", "shN_labels.webp"],
    }


def _write_picture(
    file: zipfile.ZipFile,
    name: str,
    pixels: np.ndarray,  # [N, 3 or 4] uint8
) -> None:
    """Write a pixel per splat, row by row in a picture that is nearly square."""
    width = 4 * math.ceil(math.sqrt(len(pixels)) / 4)
    height = 4 * math.ceil(len(pixels) / width / 4)
    picture = np.zeros((height * width, pixels.shape[1]), dtype=np.uint8)
    picture[: len(pixels)] = pixels
    _add(file, name, _webp(picture.reshape(height, width, -1)))


def _webp(
    picture: np.ndarray,  # [H, W, 3 or 4] uint8
) -> bytes:
    content = io.BytesIO()
    # exact: colours under a transparent pixel are data here.
    Image.fromarray(picture).save(content, "WEBP", lossless=True, exact=True, quality=_EFFORT, method=4)
    return content.getvalue()


def _add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    # Without a date, so that the same cloud is the same file.
    file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_STORED)


def _short(book: np.ndarray) -> list[float]:
    """Return a codebook with six significant digits, which float32 hardly exceeds and JSON has to spell out."""
    return [float(f"{value:.6g}") for value in book]


def _loss(cloud: SplatCloud) -> str | None:
    if not cloud.sh_rest.shape[1] or len(cloud) <= PALETTE:
        return None
    return f"harmonics of {len(cloud)} Gaussians become a palette of {PALETTE}: colours change less with the direction"


CODEC = SplatCodec(read=read_sog, write=write_sog, recognizes=is_sog, loss=_loss)
