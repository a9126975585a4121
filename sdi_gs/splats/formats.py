"""The splat formats: one row each; reading and writing are in a module per format.

A new format is a new module that defines ``CODEC`` and a row in ``SPLAT_FORMATS``. torch is not imported here, so that
the command line can list the formats at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file
from sdi_gs.files.origin import UNKNOWN, Origin
from sdi_gs.settings.export import AS_IT_IS, ExportOptions
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.named import row_named

if TYPE_CHECKING:
    from sdi_gs.splats.screening import ExportReport
    from sdi_gs.splats.splat_cloud import SplatCloud

HEAD_BYTES = 4096
"""Bytes at the start of a file by which its format is recognized."""
MAX_SPLATS = 10_000_000
"""Most splats that are read from a file; more would fill the memory of a common machine."""


class SplatReader(Protocol):
    """Read a file into a cloud in the training world; ``frame`` names the file's axes.

    Raises UserError where the file is missing, damaged, of another format, or holds more than ``max_splats``; the last
    before memory is taken for them.
    """

    def __call__(self, path: Path, /, *, frame: Frame, max_splats: int) -> SplatCloud: ...


class SplatWriter(Protocol):
    """Write a cloud given in the training world, whose size and harmonics are already those of the file.

    ``options.frame`` names the file's axes. What is known of the ``origin`` is written where the format has room.

    Raises UserError where ``path`` exists (unless ``overwrite``), where no splat is left to write, and for a full disk.
    """

    def __call__(
        self, path: Path, cloud: SplatCloud, /, *, options: ExportOptions, origin: Origin, overwrite: bool
    ) -> ExportReport: ...


def _never(path: Path, head: bytes) -> bool:
    return False


def _no_loss(cloud: SplatCloud) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class SplatCodec:
    """The functions of one format; each format's module defines one as ``CODEC``."""

    read: SplatReader | None = None
    """None for a format that is only written."""
    write: SplatWriter | None = None
    """None for a format that is only read."""
    recognizes: Callable[[Path, bytes], bool] = _never
    """Whether ``path`` holds this format, by its first ``HEAD_BYTES`` bytes (none for a folder) or by what is in it.

    The default leaves the decision to the name.
    """
    loss: Callable[[SplatCloud], str | None] = _no_loss
    """One line on what of a cloud the format cannot hold; None where it holds everything."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a cloud in a file."""

    report: ExportReport
    loss: str | None
    """One line on what the format could not hold; None where it holds everything."""


@dataclass(frozen=True, kw_only=True)
class SplatFormat:
    """One format that splats are read from or written to: a file, or a folder or an archive of files."""

    name: str
    """Value of ``--format``."""
    suffix: str
    """End of the file's name in lower case, such as ``.ply``; empty for a folder."""
    summary: str
    """What the format holds, for the help: completes the sentence that begins with its name."""
    noun: str
    """How messages call a file of it, with its article."""
    module: str
    """Import path of the module that defines ``CODEC``; imported when a file is read or written."""
    reads: bool = True
    writes: bool = True
    is_meant_by_suffix: bool = True
    """Whether a name that ends so asks for this format: a ``.glb`` is a mesh unless it is said to hold splats."""

    def codec(self) -> SplatCodec:
        """Import the format's functions."""
        return import_module(self.module).CODEC

    def read(self, path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
        """Read a file of this format into the training world (UserError as ``SplatReader``)."""
        reader = self.codec().read
        if reader is None:
            raise UserError(f"cannot read {path}: {self.name} is only written; give {readable_nouns()}")
        return reader(path, frame=frame, max_splats=max_splats)

    def write(
        self,
        path: Path,
        cloud: SplatCloud,
        *,
        options: ExportOptions = AS_IT_IS,
        origin: Origin = UNKNOWN,
        overwrite: bool = False,
    ) -> Written:
        """Write a cloud given in the training world as the options ask (UserError as ``SplatWriter``)."""
        from sdi_gs.splats.preparing import prepared

        codec = self.codec()
        if codec.write is None:
            known = ", ".join(row.name for row in SPLAT_FORMATS if row.writes)
            raise UserError(f"cannot write {path}: {self.name} is only read; the formats to write are {known}")
        ready, unit = prepared(cloud, options)
        report = codec.write(path, ready, options=options, origin=replace(origin, unit=unit), overwrite=overwrite)
        return Written(report=report, loss=codec.loss(ready))


SPLAT_FORMATS: tuple[SplatFormat, ...] = (
    SplatFormat(
        name="ply", suffix=".ply", summary="holds all there is", noun="a .ply of splats", module="sdi_gs.splats.ply"
    ),
    SplatFormat(
        name="splat",
        suffix=".splat",
        summary="one colour per Gaussian",
        noun="an antimatter15 .splat",
        module="sdi_gs.splats.dot_splat",
    ),
    SplatFormat(
        name="html",
        suffix=".html",
        summary="is one page that any browser shows, offline",
        noun="a page of splats",
        module="sdi_gs.splats.html",
        reads=False,
    ),
    SplatFormat(
        name="spz",
        suffix=".spz",
        summary="Niantic's, a fifth of the .ply",
        noun="an .spz",
        module="sdi_gs.splats.spz",
    ),
    SplatFormat(
        name="sog",
        suffix=".sog",
        summary="PlayCanvas', a quarter of the .ply",
        noun="a .sog",
        module="sdi_gs.splats.sog",
    ),
    SplatFormat(
        name="compressed-ply",
        suffix=".compressed.ply",
        summary="PlayCanvas', a quarter of the .ply",
        noun="a compressed .ply (PlayCanvas)",
        module="sdi_gs.splats.compressed_ply",
    ),
    SplatFormat(
        name="gltf-splats",
        suffix=".glb",
        summary="Khronos' KHR_gaussian_splatting, without loss",
        noun="a .glb of splats",
        module="sdi_gs.splats.gltf_splats",
        is_meant_by_suffix=False,
    ),
    SplatFormat(
        name="usda",
        suffix=".usda",
        summary="OpenUSD text, without loss and large",
        noun="a .usda of splats",
        module="sdi_gs.splats.usda",
        reads=False,
    ),
    SplatFormat(
        name="inria",
        suffix="",
        summary="INRIA's folder, a .ply with cameras",
        noun="a folder in INRIA's layout",
        module="sdi_gs.splats.inria_folder",
    ),
)
"""Every format; where two fit a file, the first one is taken."""


def read_splats(
    path: Path,
    file_format: SplatFormat | str | None = None,
    *,
    frame: Frame = "viewer",
    max_splats: int = MAX_SPLATS,
) -> SplatCloud:
    """Read a splat file of any origin into the training world; ``frame`` names the file's axes.

    Without ``file_format`` the format is recognized. Raises UserError as ``SplatReader``.
    """
    row = format_of(path) if file_format is None else _row(file_format)
    return row.read(path, frame=frame, max_splats=max_splats)


def write_splats(
    path: Path,
    cloud: SplatCloud,
    file_format: SplatFormat | str,
    *,
    options: ExportOptions = AS_IT_IS,
    origin: Origin = UNKNOWN,
    overwrite: bool = False,
) -> Written:
    """Write a cloud given in the training world as the options ask (UserError as ``SplatWriter``)."""
    return _row(file_format).write(path, cloud, options=options, origin=origin, overwrite=overwrite)


def format_of(path: Path) -> SplatFormat:
    """Return the format of a file or folder: by its content, else by its name.

    Raises UserError where ``path`` is missing or fits no format.
    """
    found = known_format(path)
    if found is not None:
        return found
    # A folder that no format recognizes has an error of its own.
    require_file(path)
    kind = f"{path.suffix.lower()} files are" if path.suffix else "it is"
    raise UserError(
        f"cannot read {path}: {kind} none of the formats that this program opens; "
        f"give {readable_nouns()}, a run folder or a checkpoint of one"
    )


def known_format(path: Path) -> SplatFormat | None:
    """Return the format of a file or folder as ``format_of``, but None where it fits none."""
    with disk_errors(path, "read"):
        head = b"" if path.is_dir() else _head(path)
    return format_by_content(path, head) or format_by_name(path)


def format_by_content(path: Path, head: bytes) -> SplatFormat | None:
    """Return the format that recognizes a file by its first ``HEAD_BYTES``, or a folder; None where none does."""
    return next((row for row in SPLAT_FORMATS if row.reads and row.codec().recognizes(path, head)), None)


def format_by_name(path: Path) -> SplatFormat | None:
    """Return the format whose files end like ``path``; None for a folder and where there is none."""
    if path.is_dir():
        return None
    return next(
        (
            row
            for row in SPLAT_FORMATS
            if row.reads and row.is_meant_by_suffix and row.suffix and path.name.lower().endswith(row.suffix)
        ),
        None,
    )


def readable_suffixes() -> str:
    """Return the suffixes of the files that can be read, for messages: ``.ply or .splat``."""
    suffixes = [row.suffix for row in SPLAT_FORMATS if row.reads and row.suffix]
    return " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))


def _head(path: Path) -> bytes:
    require_file(path)
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _row(file_format: SplatFormat | str) -> SplatFormat:
    if isinstance(file_format, SplatFormat):
        return file_format
    return row_named(SPLAT_FORMATS, file_format, what="format of splats")


def readable_nouns() -> str:
    """Return what can be read, for messages: ``a .ply of splats, an antimatter15 .splat``."""
    return ", ".join(row.noun for row in SPLAT_FORMATS if row.reads)
