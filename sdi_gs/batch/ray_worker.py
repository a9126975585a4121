"""The actor of a Ray worker: checks its node, makes rows on a thread of its own, and lets its events be fetched."""

from __future__ import annotations

import platform
import queue
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from sdi_gs import __version__
from sdi_gs.batch.collecting import Files, changed_files, write_files
from sdi_gs.batch.engine import EngineEvent, EngineNote, Job, RowProgress, WorkerLost, WorkerReady
from sdi_gs.batch.journal import RowEvent
from sdi_gs.batch.ray_cluster import PACKAGE

if TYPE_CHECKING:
    from sdi_gs.batch.worker import Worker

LIBRARIES = ("torch", "numpy", "numba")
"""What the last bits of a result depend on."""


@dataclass(frozen=True, kw_only=True)
class RayWorkerOptions:
    """What an actor is started with."""

    name: str
    """Name of the worker."""
    device: str
    """cpu, or cuda for the card that Ray gives it."""
    threads: int
    """Cores that it may use."""
    share: float
    """Part of its card that it may fill."""
    version: str
    """Version of the package in the program."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Versions of ``LIBRARIES`` in the program."""
    seen: str | None
    """A file in the batch's folder that every node must see; None where results are collected."""
    collect_every: int
    """Steps between two checkpoints that are sent back, where results are collected."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What an actor sends: an event, after the files that it speaks of."""

    event: EngineEvent
    files: Files | None = None


class RayWorker:
    """A worker on some node; made into an actor by ``ray_engine``."""

    def __init__(self, options: RayWorkerOptions) -> None:
        self._options = options
        self._sent: queue.SimpleQueue[Sent] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[tuple[Job, Files | None] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._node = node_name()
        problem = self._problem()
        if problem is not None:
            self._sent.put(Sent(event=WorkerLost(worker=options.name, reason=problem, is_final=True)))
            return
        others = differing_libraries(options.libraries, library_versions())
        if others:
            text = f"node {self._node} has {others}: its results may differ in the last bits"
            self._sent.put(Sent(event=EngineNote(text=text)))
        threading.Thread(target=self._work, daemon=True).start()

    def assign(self, job: Job, files: Files | None) -> None:
        """Begin with a row; ``files`` are those of its run folder so far, where results are collected."""
        self._stop.clear()
        self._jobs.put((job, files))

    def stop_row(self) -> None:
        """Save the row and stop with it."""
        self._stop.set()

    def events(self, seconds: float) -> list[Sent]:
        """Return what has happened since the last call, waiting for the first event at most so long."""
        found: list[Sent] = []
        try:
            found.append(self._sent.get(timeout=seconds))
            while True:
                found.append(self._sent.get_nowait())
        except queue.Empty:
            return found

    def _problem(self) -> str | None:
        """Return why this node cannot take part, in one line."""
        options, node = self._options, f"node {self._node}"
        if options.version != __version__:
            return (
                f"{node} uses sdi-gs {__version__} from {PACKAGE}, and this program is "
                f"{options.version}: install the same there"
            )
        if options.seen is not None and not Path(options.seen).is_file():
            folder = Path(options.seen).parent
            return f"{node} does not see {folder}: choose an --output-dir that all nodes share, or add --collect"
        return None

    def _work(self) -> None:
        """Make rows until the process ends; an error of the program is reported as the worker's end."""
        options = self._options
        try:
            from sdi_gs.batch.threads import use_threads
            from sdi_gs.batch.worker import Worker
            from sdi_gs.devices import pick_device

            use_threads(options.threads)
            device = pick_device(options.device)
            worker = Worker(name=options.name, machine=self._node, device=device, share=options.share)
            self.send(WorkerReady(worker=options.name, machine=self._node, device=str(device)))
            while (given := self._jobs.get()) is not None:
                self._make(worker, *given)
        except ModuleNotFoundError as error:
            what = f"node {self._node} has no {error.name}: install sdi-gs with what it needs there"
            self.send(WorkerLost(worker=options.name, reason=what, is_final=True))
        # Whatever it is, the program has to learn why this worker ends, and Ray's log shows where.
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.send(WorkerLost(worker=options.name, reason=reason))

    def _make(self, worker: Worker, job: Job, files: Files | None) -> None:
        """Make a row, in the shared folder or in one of its own whose files are sent back."""
        if self._options.seen is not None:
            worker.make(job, self.send, self._stop.is_set)
            return
        with tempfile.TemporaryDirectory(prefix="sdi-gs-") as scratch:
            folder = Path(scratch) / Path(job.folder).name
            write_files(folder, files or Files())
            collected = _Collected(self, folder, self._options.collect_every)
            worker.make(replace(job, folder=str(folder)), collected.report, self._stop.is_set)

    def send(self, event: EngineEvent, files: Files | None = None) -> None:
        """Let an event be fetched, with the files that it speaks of."""
        self._sent.put(Sent(event=event, files=files))


class _Collected:
    """Sends a row's files along with the events that speak of them."""

    def __init__(self, worker: RayWorker, folder: Path, every: int) -> None:
        self._worker = worker
        self._folder = folder
        self._every = every
        self._known = changed_files(folder, {}).known
        self._sent_step: int | None = None

    def report(self, event: RowEvent | RowProgress) -> None:
        """Send an event; a checkpoint only if it is collected, because it is lost with this node otherwise."""
        if isinstance(event, RowProgress) or event.event == "failed":
            self._worker.send(event)
        elif event.event == "started":
            self._sent_step = event.step or 0
            self._worker.send(event)
        elif event.event != "checkpoint" or (event.step or 0) - (self._sent_step or 0) >= self._every:
            self._sent_step = event.step
            files = changed_files(self._folder, self._known)
            self._known = files.known
            self._worker.send(event, files)


def library_versions() -> dict[str, str]:
    """Return the versions of ``LIBRARIES`` that are installed here."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differing_libraries(program: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return the libraries that a node has in another version than the program, in words; empty if there is none."""
    names = [name for name, wanted in program.items() if name in here and here[name] != wanted]
    return ", ".join(f"{name} {here[name]}, not {program[name]}" for name in names)


def node_name() -> str:
    """Return the name of this machine, with Ray's id of the node where several are on one."""
    import ray

    return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:6]}"
