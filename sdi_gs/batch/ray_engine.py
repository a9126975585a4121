"""Workers as Ray actors, on one machine or on a cluster: Ray places them, this engine fetches their events.

Needs the extra ``ray``. Imports neither Ray nor torch before it is used.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdi_gs import __version__
from sdi_gs.batch.collecting import changed_files, write_files
from sdi_gs.batch.engine import EngineEvent, EngineNote, Job, WorkerLost
from sdi_gs.batch.ray_worker import RayWorker, RayWorkerOptions, Sent
from sdi_gs.batch.threads import thread_environment
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors

FETCH_SECONDS = 5.0
"""How long a worker waits for its next event before it answers that there is none."""
ANSWER_SECONDS = 10.0
"""How long a cluster may take to answer at all."""
MOST_PORT = 65535
START_SECONDS = 180
"""How long a cluster on this machine may take to start."""
SECONDS_BETWEEN_LOOKS = 5.0
"""Between two looks at whether nodes have joined."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How a cluster is used."""

    address: str | None = None
    """auto, HOST:PORT or ray://HOST:PORT of a cluster that runs; None to start one on this machine."""
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
        self._ray, self._dashboard = connected(options.address)
        self._options = options
        self._out = out.absolute()
        self._num_rows = num_rows
        self._actors: dict[str, _Actor] = {}
        self._next = 0
        self._looked = 0.0
        self._notes: list[EngineEvent] = []
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
            runtime_env={"env_vars": dict(thread_environment(options.cpus_per_run))},
            **resources,
        )
        handle = actor_class.remote(
            RayWorkerOptions(
                name=name,
                device="cuda" if options.uses_gpus else "cpu",
                threads=options.cpus_per_run,
                share=min(options.gpus_per_run, 1.0),
                version=__version__,
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
            events.append(one.event)
        if any(isinstance(event, WorkerLost) for event in events):
            self.retire(name)
        else:
            actor.fetch = actor.handle.events.remote(FETCH_SECONDS)
        return events


def require_ray() -> None:
    """Raise UserError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError('--engine ray needs Ray: pip install "sdi-gs[ray]", or use --engine local')


def connected(address: str | None) -> tuple[Any, str | None]:
    """Return the module ``ray``, connected to a cluster, and its dashboard's address, if it has one.

    Raises UserError without Ray or without the cluster.
    """
    require_ray()
    if address not in (None, "auto"):
        _require_answer(address)
    import ray

    # Seconds that a node may take to start: half a minute is too short for a busy machine.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_SECONDS))
    try:
        context = ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
    # Where a node does not start in time Ray raises Exception itself.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address is None:
            raise UserError(f"Ray could not be started on this machine ({reason}); try --engine local") from error
        raise UserError(_no_cluster(address, reason)) from error
    return ray, context.dashboard_url or None


def _require_answer(address: str) -> None:
    """Raise UserError unless something listens at an address: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > MOST_PORT:
        raise UserError(f"--ray-address {address} means nothing: use auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(_no_cluster(address, error.strerror or str(error))) from error


def _no_cluster(address: str, reason: str) -> str:
    return (
        f"no Ray cluster answers at {address} ({reason}): start one with ray start --head, check --ray-address, or "
        "leave it out for one on this machine"
    )


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
