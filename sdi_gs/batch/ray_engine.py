"""Workers as Ray actors, on one machine or on a cluster: Ray places them, this engine fetches their events.

Needs the extra ``ray``. Imports neither Ray nor torch before it is used.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdi_gs import __version__
from sdi_gs.batch.collecting import changed_files, write_files
from sdi_gs.batch.engine import EngineEvent, EngineNote, Job, WorkerLost
from sdi_gs.batch.ray_cluster import connected
from sdi_gs.batch.ray_worker import RayWorker, RayWorkerOptions, Sent, library_versions
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors

FETCH_SECONDS = 5.0
"""How long a worker waits for its next event before it answers that there is none."""
SECONDS_BETWEEN_LOOKS = 5.0
"""Between two looks at whether nodes have joined."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How a cluster is used."""

    address: str | None = None
    """auto, HOST:PORT or ray://HOST:PORT of a cluster that runs; None to start one on this machine."""
    dashboard: bool = False
    """Whether a cluster that is started here has a dashboard."""
    uses_gpus: bool = False
    """Whether every worker has a share of a card."""
    gpus_per_run: float = 1.0
    """Share of a card that a worker has."""
    cpus_per_run: int = 1
    """Cores that a worker has."""
    workers: int | None = None
    """Most workers; None for as many as the cluster has room for, nodes that join later included."""
    collect: bool = False
    """Whether results are sent back, because nodes share no folder."""
    collect_every: int = 500
    """Steps between two checkpoints that are sent back."""


@dataclass(kw_only=True)
class _Actor:
    """A worker's actor, placed or waiting for room."""

    handle: Any
    """Ray's handle."""
    fetch: Any
    """The call that brings its next events."""
    row: Path | None = None
    """Folder of the row that it has."""


class RayEngine:
    """An ``Engine`` of Ray actors."""

    def __init__(self, options: RayOptions, *, out: Path, num_rows: int) -> None:
        """Connect to the cluster, or start one; UserError if that cannot be done or nothing in it can run a row."""
        self._ray, self._dashboard = connected(
            options.address, threads=options.cpus_per_run, dashboard=options.dashboard
        )
        self._options = options
        self._out = out.absolute()
        self._num_rows = num_rows
        self._actors: dict[str, _Actor] = {}
        self._next = 0
        self._looked = 0.0
        self._notes: list[EngineEvent] = []
        self._noted: set[str] = set()
        self._seen = None if options.collect else self._out / f".seen-{secrets.token_hex(8)}"
        if self.room == 0:
            self.close(at_once=True)
            raise UserError(no_room(options))

    @property
    def room(self) -> int:
        """Workers that the cluster's nodes have room for, as many as are wanted at most."""
        options, count = self._options, 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = int(has.get("CPU", 0) // options.cpus_per_run)
                count += min(fits, int(has.get("GPU", 0) / options.gpus_per_run + 1e-9)) if options.uses_gpus else fits
        return min(count, options.workers or count, self._num_rows)

    def start(self) -> None:
        """Ask for the workers."""
        if self._seen is not None:
            with disk_errors(self._seen):
                self._seen.parent.mkdir(parents=True, exist_ok=True)
                self._seen.touch()
        if self._dashboard:
            self._notes.append(EngineNote(text=f"Ray's dashboard: http://{self._dashboard}"))
        self._grow()

    def names(self) -> list[str]:
        """Return the names of the workers that were asked for."""
        return list(self._actors)

    def assign(self, worker: str, job: Job) -> None:
        """Give a row to a worker."""
        actor = self._actors.get(worker)
        if actor is None:
            # It has just been lost, which is about to be noted.
            return
        actor.row = Path(job.folder)
        files = changed_files(actor.row, {}) if self._options.collect else None
        actor.handle.assign.remote(job, files)

    def stop_row(self, worker: str) -> None:
        """Ask a worker to save its row and to stop with it."""
        if worker in self._actors:
            self._actors[worker].handle.stop_row.remote()

    def retire(self, worker: str) -> None:
        """End a worker that has no row."""
        actor = self._actors.pop(worker, None)
        if actor is not None:
            self._ray.kill(actor.handle)

    def restart(self, worker: str) -> None:
        """Ask for a worker again, wherever there is room."""
        self._ask_for(worker)

    def poll(self, seconds: float) -> list[EngineEvent]:
        """Return what has happened since the last call, waiting at most ``seconds`` for the first event."""
        events, self._notes = self._notes, []
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self._grow()
        by_fetch = {actor.fetch: name for name, actor in self._actors.items()}
        if not by_fetch:
            time.sleep(seconds)
            return events
        # All that are there, or the first one that comes.
        ready, _ = self._ray.wait(list(by_fetch), num_returns=len(by_fetch), timeout=0)
        if not ready and not events:
            ready, _ = self._ray.wait(list(by_fetch), num_returns=1, timeout=seconds)
        for fetch in ready:
            events += self._fetched(by_fetch[fetch], fetch)
        return events

    def close(self, *, at_once: bool = False) -> None:
        """End all workers, and the cluster if this program has started it."""
        for actor in self._actors.values():
            self._ray.kill(actor.handle)
        self._actors.clear()
        if self._seen is not None:
            with suppress(OSError):
                self._seen.unlink(missing_ok=True)
        self._ray.shutdown()

    def _grow(self) -> None:
        """Ask for more workers if there is room for them, such as on nodes that have joined."""
        self._looked = time.monotonic()
        # Those that were lost or refused count as well: whether they are wanted again is not for this engine to say.
        for _ in range(self.room - self._next):
            name = f"ray-{self._next}"
            self._next += 1
            self._ask_for(name)

    def _ask_for(self, name: str) -> None:
        options = self._options
        resources: dict[str, Any] = {"num_cpus": options.cpus_per_run}
        if options.uses_gpus:
            resources["num_gpus"] = options.gpus_per_run
        actor_class = self._ray.remote(RayWorker).options(
            # The events are waited for on one thread while rows are given and stopped on others.
            max_concurrency=4,
            **resources,
        )
        handle = actor_class.remote(
            RayWorkerOptions(
                name=name,
                device="cuda" if options.uses_gpus else "cpu",
                threads=options.cpus_per_run,
                share=min(options.gpus_per_run, 1.0),
                version=__version__,
                libraries=library_versions(),
                seen=None if self._seen is None else str(self._seen),
                collect_every=options.collect_every,
            )
        )
        self._actors[name] = _Actor(handle=handle, fetch=handle.events.remote(FETCH_SECONDS))

    def _fetched(self, name: str, fetch: Any) -> list[EngineEvent]:
        """Return the events of one call, and ask for the next ones."""
        actor, events = self._actors[name], list[EngineEvent]()
        try:
            sent: list[Sent] = self._ray.get(fetch)
        except self._ray.exceptions.RayError as error:
            del self._actors[name]
            return [WorkerLost(worker=name, reason=lost_reason(error))]
        for one in sent:
            if one.files is not None and actor.row is not None:
                write_files(actor.row, one.files)
            if isinstance(one.event, EngineNote):
                # Of every worker on a node.
                if one.event.text in self._noted:
                    continue
                self._noted.add(one.event.text)
            events.append(one.event)
        if any(isinstance(event, WorkerLost) for event in events):
            self.retire(name)
        else:
            actor.fetch = actor.handle.events.remote(FETCH_SECONDS)
        return events


def no_room(options: RayOptions) -> str:
    """Return the line of a cluster in which no row can be made."""
    cores = f"{options.cpus_per_run} core{'s' * (options.cpus_per_run > 1)}"
    if options.uses_gpus:
        return (
            f"no node of the cluster has {options.gpus_per_run:g} of a GPU and {cores}, which a run is to have: add a "
            "node with a card, or choose --device cpu or another --prior"
        )
    return f"no node of the cluster has {cores}, which a run is to have: lower --cpus-per-run, or add a node"


def lost_reason(error: Exception) -> str:
    """Return in one line why an actor is gone."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next(
        (line for line in lines if "cause" in line.lower() or "died" in line.lower()), lines[0] if lines else ""
    )
    return f"{type(error).__name__}: {cause}"[:300]
