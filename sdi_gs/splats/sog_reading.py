"""Reading of PlayCanvas' .sog, version 2: a zip, or a folder of the same files; every fault is a one-line UserError.

Letters: N splats, K harmonics per channel above band 0, P rows of the palette.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, is_there
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS
from sdi_gs.splats.quantised import from_smallest_three, logits_of_bytes, require_real
from sdi_gs.splats.screening import require_at_most, screened_after_reading
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud

META = "meta.json"
PALETTE_COLUMNS = 64
"""Rows of the palette that stand beside each other in its picture."""
_LONGEST_META = 4 * 2**20
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError)
"""What zipfile raises for damaged, encrypted and unknown content."""
_CONVERT = "convert it to a .ply of splats, as SuperSplat and splat-transform do"


def is_sog(path: Path, head: bytes) -> bool:
    """Return whether a file is a zip with a meta.json, or a folder or its meta.json describes splats."""
    if path.is_dir():
        return _is_meta(path / META)
    if path.name == META:
        return _is_meta(path)
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return any(Path(name).name == META for name in file.namelist())
    except (OSError, *_DAMAGED_ZIP):
        return re.match(rb"PK\x03\x04.{0,200}meta\.json", head, re.DOTALL) is not None


def read_sog(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read a cloud into the training world; ``frame`` names the file's axes.

    Raises UserError where the file is missing, damaged, of another version, or holds more than ``max_splats`` or more
    than its bytes can; the last two before memory is taken.
    """
    if not is_there(path):
        raise UserError(f"cannot read {path}: there is no such file")
    with disk_errors(path, "read"):
        if path.is_dir() or path.name == META:
            return _Sog(_Folder(path if path.is_dir() else path.parent), path, max_splats).cloud(frame)
        try:
            file = zipfile.ZipFile(path)
        except _DAMAGED_ZIP as error:
            raise UserError(f"cannot read {path}: it is no whole .sog (a zip); copy or export it anew") from error
        with file:
            return _Sog(_Archive(file), path, max_splats).cloud(frame)


class _Folder:
    """The files of a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int:
        """Return the bytes of all files of a .sog."""
        return sum(file.stat().st_size for file in self._path.iterdir() if file.suffix in (".webp", ".json"))

    def content(self, name: str, most: int) -> bytes:
        """Return the first bytes of a file, one more than ``most`` at the most."""
        with (self._path / name).open("rb") as file:
            return file.read(most + 1)


class _Archive:
    """The files of a zip, in its topmost folder or in one."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        names = [name for name in file.namelist() if Path(name).name == META]
        self._folder = min(names, key=len, default=META)[: -len(META)]

    def size(self) -> int:
        """Return the packed bytes of all members."""
        return sum(member.compress_size for member in self._file.infolist())

    def content(self, name: str, most: int) -> bytes:
        """Return the first bytes of a member, one more than ``most`` at the most."""
        with self._file.open(self._folder + name) as file:
            return file.read(most + 1)


class _Sog:
    """One .sog that is read; what it declares is checked against what is there."""

    def __init__(self, source: _Folder | _Archive, path: Path, max_splats: int) -> None:
        self._source, self._path = source, path
        self._meta = self._read_meta()
        version = self._meta.get("version")
        if version != 2:
            found = "1" if version is None and "means" in self._meta else repr(version)[:20]
            raise UserError(f"cannot read {path}: it is a .sog of version {found}, and version 2 is read; {_CONVERT}")
        count = self._meta.get("count")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise self._wrong("count")
        self._count = count
        require_at_most(max_splats, count, path)
        require_real(count, source.size(), path)

    def cloud(self, frame: Frame) -> SplatCloud:
        """Return the splats in the training world."""
        return screened_after_reading(self._raw_cloud(), self._path, frame, is_raw=True)

    def _raw_cloud(self) -> SplatCloud:
        colours = self._per_splat("sh0", 0, 4)
        quats = self._per_splat("quats", 0, 4)
        rest = (quats[:, :3].astype(np.float32) / 255.0 - 0.5) * np.float32(np.sqrt(2.0))
        turned = from_smallest_three(np.maximum(quats[:, 3], 252).astype(np.int64) - 252, rest)
        # As PlayCanvas reads a tag that is none.
        turned[quats[:, 3] < 252] = (1.0, 0.0, 0.0, 0.0)
        return SplatCloud(
            means=torch.from_numpy(self._means()),
            log_scales=torch.from_numpy(self._book("scales")[self._per_splat("scales", 0, 3)]),
            quats=torch.from_numpy(turned),
            opacity_logit=logits_of_bytes(colours[:, 3]),
            sh_dc=torch.from_numpy(self._book("sh0")[colours[:, :3]]),
            sh_rest=torch.from_numpy(self._harmonics()),
        )

    def _means(self) -> np.ndarray:  # [N, 3]
        low, high = self._numbers("means", "mins", 3), self._numbers("means", "maxs", 3)
        steps = self._per_splat("means", 1, 3).astype(np.uint16) << np.uint16(8)
        steps |= self._per_splat("means", 0, 3)
        span = np.where(high == low, 1.0, high - low)
        with np.errstate(over="ignore", invalid="ignore"):
            bent = low + span * (steps / 65535.0)
            return (np.sign(bent) * np.expm1(np.abs(bent))).astype(np.float32)

    def _harmonics(self) -> np.ndarray:  # [N, K, 3]
        if "shN" not in self._meta:
            return np.zeros((self._count, 0, 3), dtype=np.float32)
        found = self._part("shN")
        bands, rows = found.get("bands"), found.get("count")
        if type(bands) is not int or not 0 < bands < 4 or type(rows) is not int or not 0 < rows <= 65536:
            raise self._wrong("shN")
        coefficients = REST_COEFFICIENTS[bands]
        height = -(-rows // PALETTE_COLUMNS)
        picture = self._picture("shN", 0, (PALETTE_COLUMNS * coefficients, height), 3)
        palette = self._book("shN")[picture.reshape(-1, coefficients, 3)[:rows]]
        labels = self._per_splat("shN", 1, 3)
        chosen = labels[:, 0].astype(np.int64) | (labels[:, 1].astype(np.int64) << 8)
        # A label behind the palette's end means no harmonics, as PlayCanvas reads it.
        return np.concatenate([palette, np.zeros((1, coefficients, 3), np.float32)])[np.minimum(chosen, rows)]

    def _per_splat(self, part: str, number: int, channels: int) -> np.ndarray:  # [N, channels] uint8
        return self._picture(part, number, None, channels).reshape(-1, channels)[: self._count]

    def _picture(self, part: str, number: int, size: tuple[int, int] | None, channels: int) -> np.ndarray:
        """Return a picture [H, W, channels] of a size, or of at least a pixel per splat and not many more."""
        names = self._part(part).get("files")
        name = names[number] if isinstance(names, list) and len(names) > number else None
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
            raise self._wrong(f"{part}.files")
        most = 16 * self._count + 2**20 if size is None else 4 * size[0] * size[1] + 2**20
        content = self._content(name, most)
        found = webp_size(content)
        pixels = found[0] * found[1]
        if found != size and (size is not None or not self._count <= pixels <= 2 * self._count + 65536):
            raise UserError(
                f"cannot read {self._path}: its picture {name} is {found[0]} x {found[1]} pixels, which does not go "
                f"with {self._count} splats; export it anew"
            )
        try:
            with Image.open(io.BytesIO(content), formats=("WEBP",)) as picture:
                return np.asarray(picture.convert("RGBA" if channels == 4 else "RGB"))
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise UserError(
                f"cannot read {self._path}: its picture {name} is damaged; copy or export it anew"
            ) from error

    def _content(self, name: str, most: int) -> bytes:
        try:
            content = self._source.content(name, most)
        except (OSError, *_DAMAGED_ZIP) as error:
            raise UserError(f"cannot read {self._path}: {name} in it is missing or damaged; export it anew") from error
        if len(content) > most:
            raise UserError(f"cannot read {self._path}: {name} in it has more than {most} bytes; export it anew")
        return content

    def _read_meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._content(META, _LONGEST_META))
        except (ValueError, RecursionError) as error:
            raise UserError(f"cannot read {self._path}: its {META} is no JSON; copy or export it anew") from error
        if not isinstance(meta, dict):
            raise UserError(f"cannot read {self._path}: its {META} describes no splats; copy or export it anew")
        return meta

    def _part(self, name: str) -> dict[str, Any]:
        part = self._meta.get(name)
        if not isinstance(part, dict):
            raise self._wrong(name)
        return part

    def _book(self, part: str) -> np.ndarray:  # [256]
        """Return a codebook; numbers that are not in it are NaN, so that their splats are left out and reported."""
        values = self._numbers(part, "codebook", None)
        book = np.full(256, np.nan, dtype=np.float32)
        with np.errstate(over="ignore"):
            book[: len(values)] = values
        return book

    def _numbers(self, part: str, name: str, count: int | None) -> np.ndarray:
        values = self._part(part).get(name)
        if isinstance(values, list) and (len(values) == count or (count is None and 0 < len(values) <= 256)):
            # Whole numbers in JSON may be too long for a float.
            if all(type(value) in (int, float) and abs(value) < 1e300 for value in values):
                return np.array(values, dtype=np.float64)
        raise self._wrong(f"{part}.{name}")

    def _wrong(self, name: str) -> UserError:
        return UserError(f"cannot read {self._path}: {name} in its {META} is missing or wrong; copy or export it anew")


def webp_size(content: bytes) -> tuple[int, int]:
    """Return the width and height that a WebP declares, without unpacking it; zeros for no WebP."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return 0, 0
    match content[12:16]:
        case b"VP8L":
            bits = int.from_bytes(content[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
        case _:
            return int.from_bytes(content[26:28], "little") & 0x3FFF, int.from_bytes(content[28:30], "little") & 0x3FFF


def _is_meta(path: Path) -> bool:
    """Return whether a meta.json describes splats."""
    try:
        with path.open("rb") as file:
            meta = json.loads(file.read(_LONGEST_META))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(meta, dict) and isinstance(meta.get("means"), dict) and "quats" in meta
