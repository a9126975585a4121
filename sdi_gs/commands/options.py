"""The options of every command, and their parsing into data; free of torch, so that help is quick."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sdi_gs import __version__
from sdi_gs.errors import UserError
from sdi_gs.mesh.formats import MESH_FORMATS
from sdi_gs.runs.export_formats import export_formats
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.check_names import CheckName
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.settings.probe import ProbeOptions
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.settings.tiers import TierChoice

if TYPE_CHECKING:
    ExportFormat = str
else:
    ExportFormat = tyro.extras.literal_type_from_choices([row.name for row in export_formats()])
FORMATS_HELP = f"Kind of file: {'; '.join(f'{row.name} {row.summary}' for row in export_formats())}."

DESCRIPTION = (
    f"sdi-gs {__version__}: a sentence in, a 3D object out. "
    'Start with: sdi-gs train --prompt "a blue robot". `sdi-gs --version` tells the version.'
)

LOCAL_HOST = "127.0.0.1"
VIEWER_PORT = 8080

MAX_PIXELS = 250_000_000
"""Pixels of one film, about 2 GiB while it is encoded."""

_NO_WRAPPING = "10000"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RULE = re.compile(r"[─-]{3,}")
_INNER_NAMES = re.compile(r"__tyro[\w-]*\.(config\.)?|^Error parsing [A-Z]\w*: ")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Turn a sentence into an object: splats.ply, a turntable and a contact sheet in a new run folder."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    preset: str | None = None
    """Settings to start from: toybox-ideal, toybox, smoke or sd21-base; chosen by prior or device if not given."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1; the first CUDA device if there is one, if not given."""
    output_dir: Path | None = None
    """The run's own folder, which must not exist; the next free outputs/<prompt>-<n> if not given."""
    resume: Path | None = None
    """A stopped run's folder to continue; its settings are used again."""
    tier: TierChoice = "auto"
    """Memory tier in GB, which sets what --compute.* leaves open; auto goes by a CUDA card's free memory."""
    two_stage: bool = False
    """Train a field first and splats from its surface second: two run folders, one after the other."""
    stages: StagesConfig = field(default_factory=StagesConfig)
    viewer: bool = False
    """Watch and steer the run in a browser; its address is printed."""
    viewer_host: str = LOCAL_HOST
    """Address that the viewer listens on; 0.0.0.0 lets every machine in, without a password."""
    viewer_port: int = VIEWER_PORT
    """Port of the viewer, or the next free one; 0 for any."""
    viewer_keep_open: bool = False
    """Keep showing the finished object until Ctrl-C."""

    def __post_init__(self) -> None:
        _require_port("viewer-port", self.viewer_port)


@dataclass(frozen=True, kw_only=True)
class Render:
    """Show an object: a turntable film, a contact sheet and, if asked for, its frames."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder (its latest checkpoint is shown), a checkpoint, or a .ply or .splat file."""
    out: Path | None = None
    """Folder for the pictures, which must not exist; the next free <source>-render-<n> if not given."""
    size: int = 512
    """Side of the pictures in pixels."""
    frames: int = 60
    """Frames of the film; 0 for no film."""
    views: int = 8
    """Views on the contact sheet; 0 for no sheet."""
    elevation: float = 15.0
    """Height of the camera above the horizon, degrees."""
    background: BackgroundName = "white"
    """Colour behind the object."""
    save_frames: bool = False
    """Also write every frame of the film as a picture."""
    frame: Frame = "viewer"
    """Axes that a splat file has: those of splat viewers, or those of training."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise ValueError(f"size must be 16 to 4096, got {self.size}")
        if not (0 <= self.frames <= 3600 and 0 <= self.views <= 256):
            raise ValueError(f"frames must be 0 to 3600 and views 0 to 256, got {self.frames} and {self.views}")
        if not -90.0 <= self.elevation <= 90.0:
            raise ValueError(f"elevation must be -90 to 90 degrees, got {self.elevation}")
        if self.frames == self.views == 0:
            raise ValueError("frames and views are both 0, which leaves nothing to make")
        if max(self.frames, self.views) * self.size**2 > MAX_PIXELS:
            raise ValueError(
                f"{max(self.frames, self.views)} pictures of {self.size} x {self.size} pixels are more than "
                f"{MAX_PIXELS / 1e6:.0f} million pixels, which must fit into memory: lower --size or --frames"
            )


@dataclass(frozen=True, kw_only=True)
class View:
    """Show an object in a browser until Ctrl-C."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder (its latest checkpoint is shown), a checkpoint, or a splat file."""
    host: str = LOCAL_HOST
    """Address to listen on; 0.0.0.0 lets every machine in, without a password."""
    port: int = VIEWER_PORT
    """Port to listen on, or the next free one; 0 for any."""
    frame: Frame = "viewer"
    """Axes that a file has: those of splat viewers, or those of training."""
    device: str | None = None
    """Where to render: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        _require_port("port", self.port)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's latest checkpoint as a splat file or a mesh, or turn one file into another."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder, a checkpoint, or a .ply or .splat file in the axes of splat viewers."""
    format: Annotated[ExportFormat, tyro.conf.arg(help=FORMATS_HELP)] = "ply"
    out: Path | None = None
    """The file, which must not exist; a name with the step in the run folder or beside the source if not given."""
    frame: Frame = "viewer"
    """Axes of the file: those of splat viewers (for a mesh glTF's: y up, front along z), or those of training."""
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        meshes = [row.name for row in MESH_FORMATS]
        if self.format not in meshes and self.mesh != MeshConfig():
            raise ValueError(f"--mesh.* options are for meshes, not for format {self.format}: add --format {meshes[0]}")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Score an object against toybox's truth (docs/eval.md); only toybox prompts have one."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder (its latest checkpoint is scored), a checkpoint, or a .ply or .splat file."""
    prompt: str | None = None
    """What the object should be; needed for a splat file, the run's own prompt if not given."""
    json: bool = False
    """Print one JSON object and nothing else."""
    draws: int = 32
    """K of "best of K": random members of what the prompt may mean."""
    ceiling: bool = True
    """Also fit the same representation to true views, the best that it could do."""
    image_size: int = 64
    """Side of the 24 held-out views in pixels."""
    out: Path | None = None
    """File for the JSON object, which must not exist."""
    frame: Frame = "viewer"
    """Axes that a splat file has: those of splat viewers, or those of training."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= 4096:
            raise ValueError(f"draws must be 1 to 4096, got {self.draws}")
        if not 16 <= self.image_size <= 1024:
            raise ValueError(f"image-size must be 16 to 1024, got {self.image_size}")


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Tell what this machine has, what would be used, and what is missing with its fix."""

    json: bool = False
    """Print one JSON object and nothing else."""
    full: bool = False
    """Compare the CUDA card with the CPU, part by part, and time it: minutes; exit code 1 where something is wrong."""
    only: tuple[CheckName, ...] = ()
    """With --full: these checks alone."""
    report: Path | None = None
    """With --full: a JSON file, which must not exist, to attach to a bug report."""
    device: str | None = None
    """With --full: the card, cuda or cuda:1; cpu is a dry run of the same checks at small size."""
    build: bool = False
    """Compile gsplat's CUDA code now, ahead of the first training (docs/gpu.md)."""
    arch: str | None = None
    """With --build: the compute capabilities to compile for, such as 8.9 or 8.0;8.9; those of the cards here if not
    given."""

    def __post_init__(self) -> None:
        if self.full and self.build:
            raise ValueError("--build compiles and --full checks: give one of the two, --build first")
        for name in ("only", "report", "device"):
            if getattr(self, name) and not self.full:
                raise ValueError(f"--{name} goes with the checks of --full: add --full")
        if self.arch is not None and not self.build:
            raise ValueError("--arch says what to compile for: add --build")


@dataclass(frozen=True, kw_only=True)
class Priors:
    """List the diffusion models that are known, where each comes from and whether it is here, or fetch one."""

    action: Annotated[Literal["list", "fetch"], tyro.conf.Positional] = "list"
    """What to do."""
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """A known name, a folder or a hub id (owner/name); all known ones are listed if not given."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __post_init__(self) -> None:
        if self.action == "fetch" and self.name is None:
            raise ValueError("fetch needs a name: see sdi-gs priors for those that are known")
        if self.action == "fetch" and self.json:
            raise ValueError("fetch prints a path: leave --json out")


Command = Train | Render | View | Export | Eval | Doctor | Priors | ProbeOptions
COMMANDS = ("train", "render", "view", "export", "eval", "doctor", "priors", "probe")


def parse_command(arguments: Sequence[str], *, train_defaults: RunConfig) -> Command:
    """Read a command line; help ends the program as usual (SystemExit 0).

    Raises UserError, in one line, for anything that is no command, no option or no acceptable value.
    """
    commands = (
        Annotated[Train, tyro.conf.subcommand("train", default=Train(config=train_defaults))]
        | Annotated[Render, tyro.conf.subcommand("render")]
        | Annotated[View, tyro.conf.subcommand("view")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Doctor, tyro.conf.subcommand("doctor")]
        | Annotated[Priors, tyro.conf.subcommand("priors")]
        | Annotated[ProbeOptions, tyro.conf.subcommand("probe")]
    )
    said = io.StringIO()
    try:
        with redirect_stderr(said), _unwrapped_unless_help(arguments):
            return tyro.cli(commands, prog="sdi-gs", description=DESCRIPTION, args=list(arguments))
    except SystemExit as stop:
        if not stop.code:
            raise
        command = "sdi-gs" if not arguments or arguments[0] not in COMMANDS else f"sdi-gs {arguments[0]}"
        raise UserError(_one_line(said.getvalue(), command)) from None
    except ValueError as error:
        # The outermost config's own checks, which tyro leaves to the caller.
        raise UserError(str(error)) from error


def peek(arguments: Sequence[str], option: str) -> str | None:
    """The value given to an option that decides the defaults of others, and so is needed before these are read."""
    value = None
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            value = arguments[index + 1]
        elif argument.startswith(f"{option}="):
            value = argument.removeprefix(f"{option}=")
    return value


def _require_port(name: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"{name} must be 0 to 65535, got {port}")


@contextmanager
def _unwrapped_unless_help(arguments: Sequence[str]) -> Iterator[None]:
    """Keep tyro from breaking the words of a message that is to become one line."""
    if {"-h", "--help"} & set(arguments):
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _NO_WRAPPING
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _one_line(box: str, command: str) -> str:
    """tyro's framed message as one line: what is wrong, the option that was perhaps meant, where help is."""
    plain = _COLOURS.sub("", box)
    sections: list[list[str]] = [[]]
    for line in plain.splitlines():
        text = line.strip("│ ")
        if line.startswith(("╭", "╰")):
            continue
        if _RULE.fullmatch(text):
            sections.append([])
        elif text:
            sections[-1].append(text)
    if "╭" not in plain:
        # Without UTF-8 the title stands over the first rule and not in the frame.
        sections = sections[1:]
    parts = []
    for section in filter(None, sections):
        text = " ".join(section)
        if text.startswith("Perhaps you meant"):
            options = re.findall(r"(?<!\S)--[\w.-]+", " ".join(section[1:]))
            parts.append(f"did you mean {options[0]}?" if options else text)
        elif not text.startswith(("Argument helptext", "For full helptext")):
            parts.append(_INNER_NAMES.sub("", text).removesuffix("."))
    return f"{'; '.join(parts) or 'the command line is not understood'} (see {command} --help)"
