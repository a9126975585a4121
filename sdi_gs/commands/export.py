"""``sdi-gs export``: a finished scene as files, splats or meshes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sdi_gs.commands.common import print_paths
from sdi_gs.console import print_lines, say
from sdi_gs.runs.export_formats import ExportFormat, export_formats, formats_for, refuse_idle_options
from sdi_gs.settings.export import AS_IT_IS, ExportOptions

FORMATS_HELP = (
    f"Kinds of file, one or several: {'; '.join(f'{row.name} {row.summary}' for row in export_formats())}. "
    f"If not given, the one that --out ends like, or {export_formats()[0].name}."
)
FORMAT_NAMES = f"{{{','.join(row.name for row in export_formats())}}} ..."
SECONDS_BETWEEN_LINES = 5.0
"""Of the progress of a fit."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's latest checkpoint as splat files or meshes, or turn one file into others."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder, a checkpoint, or a splat file in the axes of splat viewers."""
    format: Annotated[
        tuple[str, ...], tyro.conf.arg(help=FORMATS_HELP, metavar=FORMAT_NAMES, help_behavior_hint="")
    ] = ()
    out: Path | None = None
    """The file, which must not exist; a name with the step in the run folder or beside the source if not given. With
    several formats the name that each one's ending is added to."""
    inria_layout: bool = False
    """Write the splats as a folder in INRIA's layout: short for --format inria."""
    options: Annotated[ExportOptions, tyro.conf.arg(name="")] = AS_IT_IS

    def __post_init__(self) -> None:
        refuse_idle_options(self.formats(), self.options)

    def formats(self) -> list[ExportFormat]:
        """Return the formats to write."""
        return formats_for(self.out, (*self.format, *(["inria"] if self.inria_layout else [])))


def export_file(options: Export) -> int:
    """Write a scene in each format; print the files' paths and a line about each."""
    from sdi_gs.runs.export import Exporter, paths_for
    from sdi_gs.runs.loading import load

    scene, chosen = load(options.source), options.formats()
    paths = paths_for(scene, chosen, options.out)
    exporter = Exporter(scene, options.options, after_step=_progress(options.options.fit_steps))
    for row, path in zip(chosen, paths, strict=True):
        exported = exporter.write(path, row)
        print_paths([exported.path])
        print_lines(exported.summary)
        if exported.remark is not None:
            say(exported.remark)
    return 0


def _progress(steps: int) -> Callable[[int], None]:
    """Return a function that prints, from time to time, how many steps of a fit are finished."""
    last = time.monotonic()

    def after_step(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES or done == steps:
            last = time.monotonic()
            say(f"fitting splats to the field: {done} of {steps} steps")

    return after_step
