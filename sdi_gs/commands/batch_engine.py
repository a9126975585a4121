"""Where the rows of a batch are made: on this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sdi_gs.batch.display import batch_display
from sdi_gs.batch.driver import BatchObserver, MakeJob, drive
from sdi_gs.batch.engine import Engine, EngineEvent
from sdi_gs.batch.local_engine import LocalEngine, local_workers
from sdi_gs.batch.opening import OpenBatch
from sdi_gs.batch.page import PageWriter
from sdi_gs.batch.ray_cluster import require_ray
from sdi_gs.batch.ray_engine import RayEngine, RayOptions
from sdi_gs.batch.scheduler import Scheduler
from sdi_gs.batch.state import BatchState
from sdi_gs.batch.threads import threads_per_worker
from sdi_gs.commands.common import pick_device
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.runs.interrupts import Interrupts, StoppedAtOnce
from sdi_gs.settings.bounds import Range

_RAY_ONLY = ("ray_address", "ray_dashboard", "cpus_per_run", "collect", "collect_every")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of ``sdi-gs batch`` that choose the workers."""

    engine: Literal["local", "ray"] = "local"
    """Processes on this machine, or Ray's actors on a cluster."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1; every CUDA device, or the CPU without one, if not given. With Ray cpu or
    cuda; cuda for a prior that is no instrument, if not given."""
    workers: Annotated[int | None, Range(1, 4096)] = None
    """Processes that make rows side by side; one per device if not given, with Ray as many as there is room for. On
    the CPU of one machine they share the cores."""
    gpus_per_run: Annotated[float, Range(0.05, 1.0)] = 1.0
    """Share of a card that a run has: 0.5 packs two on each."""
    cpus_per_run: Annotated[int, Range(1, 1024)] = 1
    """With Ray: cores that a run has."""
    ray_address: str | None = None
    """With Ray: auto, HOST:PORT or ray://HOST:PORT of a cluster that runs; one is started here if not given."""
    ray_dashboard: bool = False
    """With a Ray cluster that is started here: start its dashboard too, whose address is printed."""
    collect: bool = False
    """With Ray: send the results back as they come, because the nodes share no folder."""
    collect_every: Annotated[int, Range(1, 1_000_000)] = 500
    """With --collect: steps between two checkpoints that are sent back."""


def require_engine(options: EngineOptions) -> None:
    """Raise UserError for options that do not go together, and for Ray if it is not installed."""
    if options.engine == "ray":
        require_ray()
        if options.collect_every != EngineOptions.collect_every and not options.collect:
            raise UserError(f"--collect-every {options.collect_every} goes with --collect: add it, or leave both out")
        if options.ray_dashboard and options.ray_address is not None:
            raise UserError("--ray-dashboard is for a cluster that is started here: leave it out, or --ray-address")
        if options.device not in (None, "cpu", "cuda"):
            raise UserError(f"--device {options.device} names a card, which Ray chooses: use cpu or cuda")
        return
    for name in _RAY_ONLY:
        if getattr(options, name) != getattr(EngineOptions, name):
            raise UserError(f"--{name.replace('_', '-')} is for Ray: add --engine ray")


def engine_of(options: EngineOptions, prior: str, out: Path, num_rows: int) -> Engine:
    """Return the engine; UserError for a cluster that cannot be used."""
    if options.engine == "ray":
        return _ray_engine(options, prior, out, num_rows)
    device = pick_device(options.device)
    devices = [str(device)]
    if device.type == "cuda":
        if options.device is None:
            import torch

            devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        devices *= int(1.0 / options.gpus_per_run)
    elif options.gpus_per_run != EngineOptions.gpus_per_run:
        raise UserError(_no_card(options.gpus_per_run))
    workers = local_workers(devices, min(options.workers or len(devices), num_rows))
    threads = threads_per_worker(len(workers))
    say(f"{', '.join(worker.name for worker in workers)}: {threads} thread{'s' * (threads > 1)} each")
    return LocalEngine(workers, threads=threads, out=out)


def make_rows(
    engine: Engine,
    opened: OpenBatch,
    page: PageWriter,
    *,
    job_of: MakeJob,
    attempts: int,
    max_failures: int | None,
    shown: Collection[str] | None = None,
) -> bool:
    """Make the rows that a batch still has to; return whether a stop was asked for. The engine is closed.

    What is printed is about the rows with the keys ``shown``, about all if not given; the page is of the whole batch.
    Raises UserError if no worker is left.
    """
    scheduler = Scheduler(opened.todo, attempts=attempts, max_failures=max_failures)
    at_once = True
    try:
        with (
            Interrupts("stopping: the workers save what they have; Ctrl-C once more stops at once") as interrupts,
            batch_display() as display,
        ):
            engine.start()
            opened.begin()
            drive(
                engine,
                scheduler,
                opened.state,
                opened.journal,
                job_of,
                observers=[display if shown is None else _PartOfBatch(display, shown), page],
                should_stop=lambda: interrupts.requested,
            )
        at_once = False
    except StoppedAtOnce:
        return True
    finally:
        engine.close(at_once=at_once)
    if not scheduler.is_done:
        name, reason = next(iter(scheduler.given_up.items()))
        raise UserError(f"no worker is left; {name} ended again and again, last: {reason}")
    return interrupts.requested


class _PartOfBatch:
    """Shows an observer some of a batch's rows alone."""

    def __init__(self, observer: BatchObserver, keys: Collection[str]) -> None:
        self._observer = observer
        self._keys = keys

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        """Pass an event on; rows that other commands put into the folder are not made, and have none."""
        self._observer.observe(event, state.part(self._keys))


def _ray_engine(options: EngineOptions, prior: str, out: Path, num_rows: int) -> RayEngine:
    from sdi_gs.priors.catalog import is_instrument

    uses_gpus = not is_instrument(prior) if options.device is None else options.device == "cuda"
    if not uses_gpus and options.gpus_per_run != EngineOptions.gpus_per_run:
        raise UserError(_no_card(options.gpus_per_run))
    engine = RayEngine(
        RayOptions(
            address=options.ray_address,
            dashboard=options.ray_dashboard,
            uses_gpus=uses_gpus,
            gpus_per_run=options.gpus_per_run,
            cpus_per_run=options.cpus_per_run,
            workers=options.workers,
            collect=options.collect,
            collect_every=options.collect_every,
        ),
        out=out,
        num_rows=num_rows,
    )
    say(f"Ray: room for {engine.room} worker{'s' * (engine.room > 1)} now")
    return engine


def _no_card(share: float) -> str:
    return f"--gpus-per-run {share:g} is for cards, and these runs are made on the CPU: leave it out, or --device cuda"
