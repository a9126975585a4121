"""``sdi-gs train``: start or resume a run, with the live viewer on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from sdi_gs.commands.common import EXIT_INTERRUPTED, LOCAL_HOST, PORTS, VIEWER_PORT, pick_device, print_address
from sdi_gs.commands.defaults import named_settings, settings_for_device
from sdi_gs.commands.given import given_type
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.runs.events import Event, Observer, Planned
from sdi_gs.runs.export_formats import formats_for
from sdi_gs.runs.request import RunRequest
from sdi_gs.settings.bounds import Range, check_settings
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.settings.tiers import TierChoice
from sdi_gs.settings.tree import flatten

if TYPE_CHECKING:
    from sdi_gs.runs.folder import RunFolder
    from sdi_gs.runs.launch import Watch
    from sdi_gs.training.trainer import Trainer
    from sdi_gs.viewer.server import LiveViewer

    GivenSettings = Mapping[str, Any]
else:
    GivenSettings = given_type(RunConfig)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Turn a sentence into an object: splats.ply, a turntable and a contact sheet in a new run folder."""

    settings: Annotated[GivenSettings, tyro.conf.arg(name="")]
    preset: str | None = None
    """Settings to start from, one of those that --help lists; chosen by prior or device if not given."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1; the first CUDA device if there is one, if not given."""
    output_dir: Path | None = None
    """The run's own folder, new or empty; the next free outputs/<prompt>-<n> if not given."""
    resume: Path | None = None
    """A run's folder to continue; its settings are used again, except for what is steered (prompt, guidance scales,
    timesteps, views, learning-rate scale) or extended here."""
    at: Annotated[int | None, Range(0, 20_000_000)] = None
    """With --resume: the step of one of its checkpoints, to go on from there in a new folder."""
    export: tuple[str, ...] = ()
    """Formats that the result is also written in at the end, one or several: those of sdi-gs export."""
    tier: TierChoice = "auto"
    """Memory tier in GB, which sets what --compute.* leaves open; auto goes by a CUDA card's free memory."""
    dry_run: bool = False
    """Print the settings of the run, its predicted memory and time, and do nothing."""
    two_stage: bool = False
    """Train a field first and splats from its surface second: two run folders, one after the other."""
    stages: StagesConfig = field(default_factory=StagesConfig)
    viewer: bool = False
    """Watch and steer the run in a browser; its address is printed."""
    viewer_host: str = LOCAL_HOST
    """Address that the viewer listens on; 0.0.0.0 lets every machine in, without a password."""
    viewer_port: Annotated[int, PORTS] = VIEWER_PORT
    """Port of the viewer, or the next free one; 0 for any."""
    viewer_origin: tuple[str, ...] = ()
    """Names of sites whose pages may use the viewer, such as a proxy's: my-box.example.org (docs/viewer.md)."""
    viewer_keep_open: bool = False
    """Keep showing the finished object until Ctrl-C."""

    def __post_init__(self) -> None:
        check_settings(self)


def train(options: Train) -> int:
    """Train, export and print what was made; return 0, or 130 for a run that was stopped."""
    started = time.perf_counter()
    request, chosen = requested_run(options)
    if options.dry_run:
        from sdi_gs.runs.dry_run import dry_run

        dry_run(request, chosen=chosen, say=print)
        return 0
    if options.viewer:
        from sdi_gs.viewer.guard import free_port, origin_name

        # Now, so that a viewer that cannot start leaves no half of a run.
        free_port(options.viewer_host, options.viewer_port)
        for origin in options.viewer_origin:
            origin_name(origin)
    from sdi_gs.runs.console_observer import ConsoleObserver
    from sdi_gs.runs.launch import launch

    if pick_device(options.device).type == "cpu":
        from sdi_gs.files.kept_memory import keep_freed_memory
        from sdi_gs.files.kernel_cache import import_array_functions

        keep_freed_memory()
        import_array_functions()
    with ConsoleObserver() as console:
        result = launch(
            request,
            observers=[_choice_printer(chosen, asked=options.device is not None), console],
            watch=_viewer_of(options, console) if options.viewer else None,
            started=started,
        )
    return 0 if result.is_complete else EXIT_INTERRUPTED


def requested_run(options: Train) -> tuple[RunRequest, str]:
    """Return the run that the options describe, and the origin of its settings in a few words.

    Raises UserError for an unknown preset or device, for settings that are not valid, and for options of the viewer
    without one.
    """
    for name in ("viewer_host", "viewer_port", "viewer_keep_open"):
        if not options.viewer and getattr(options, name) != getattr(Train, name):
            raise UserError(f"--{name.replace('_', '-')} is for the viewer: add --viewer")
    given = flatten(dict(options.settings))
    representation = given.get("representation")

    def settings_for(representation: str | None) -> tuple[RunConfig | None, str]:
        named = named_settings(options.preset, given.get("prior"), options.resume, representation)
        return named or settings_for_device(options.device, representation)

    config, chosen = settings_for(representation)
    if config is not None:
        _require_file_for(given, config)
    request = RunRequest(
        config=config,
        given=given,
        device=options.device,
        output_dir=options.output_dir,
        resume=options.resume,
        at=options.at,
        export=options.export,
        tier=options.tier,
        two_stage=options.two_stage,
        stages=options.stages,
        field_config=settings_for("ngp")[0] if options.two_stage and options.resume is None else None,
    )
    return request, chosen


def _require_file_for(given: Mapping[str, Any], config: RunConfig) -> None:
    """Raise UserError for options about a file of Gaussians where none is started from; a saved config may hold them.

    ``config`` holds the settings beside the given ones.
    """
    about_file = [name for name in ("init_axes", "init_fit") if given.get(f"gaussians.{name}") is not None]
    if not about_file:
        return
    option, start = f"--gaussians.{about_file[0].replace('_', '-')}", config.gaussians.init_from
    start = given.get("gaussians.init_from", start)
    if start is None:
        raise UserError(f"{option} has no effect without a file to start from: add --init-from FILE, or leave it out")
    from sdi_gs.splats.contents import contents_of

    if is_there(Path(start)) and contents_of(Path(start)).kind in ("run", "checkpoint"):
        raise UserError(f"{option} has no effect on a run to start from, whose axes and size are kept: leave it out")


def _choice_printer(chosen: str, *, asked: bool) -> Callable[[Event], None]:
    """Return an observer that prints what is used and why; ``asked`` if the device was named."""

    def print_choice(event: Event) -> None:
        if isinstance(event, Planned):
            say(_choice_line(event, chosen, asked=asked))

    return print_choice


def _choice_line(event: Planned, chosen: str, *, asked: bool) -> str:
    import torch

    from sdi_gs.devices import device_reason
    from sdi_gs.priors.catalog import CATALOG, is_instrument

    prior = event.config.prior
    if is_instrument(prior):
        from sdi_gs.toybox.classes import CLASSES

        about = f"an instrument: it knows {len(CLASSES)} toy objects"
    else:
        about = {entry.name: entry.summary for entry in CATALOG}.get(prior, "by path or hub id")
    reason = device_reason(torch.device(event.device), asked=asked)
    told = {"words": "told the view in words", "cameras": "told the camera"}[event.config.guidance.views]
    return f"prior {prior} ({about}), {told}, {chosen}, device {event.device}: {reason}"


def _viewer_of(options: Train, console: Observer) -> Watch:
    """Return a function that opens the live viewer for a run; kept open, it can ask for more steps."""

    exports = formats_for(None, options.export) if options.export else []

    @contextmanager
    def watch(trainer: Trainer, folder: RunFolder, *, interrupted: Callable[[], bool]) -> Iterator[LiveViewer]:
        from sdi_gs.runs.loop import train_on
        from sdi_gs.viewer.server import LiveViewer

        with LiveViewer(
            trainer,
            folder,
            host=options.viewer_host,
            port=options.viewer_port,
            origins=options.viewer_origin,
            interrupted=interrupted,
        ) as viewer:
            print_address(viewer.address)
            yield viewer
            while options.viewer_keep_open and not interrupted():
                say("the viewer stays open; Ctrl-C closes it")
                more = viewer.keep_open(interrupted)
                if more:
                    train_on(
                        trainer,
                        folder,
                        more,
                        observers=[console, viewer.observe],
                        should_stop=lambda: interrupted() or viewer.stop_requested,
                        exports=exports,
                    )

    return watch
