"""Workers as plain processes on this machine, one per device or as many as are asked for. Imports no torch.

Each worker has pipes for its jobs and its events, and a log file for what it prints. It is in a session of its own, so
that Ctrl-C reaches this program alone, which lets the workers save.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sdi_gs.batch.engine import EngineEvent, Job, WorkerLost
from sdi_gs.batch.messages import RETIRE, STOP, line_of, message_of
from sdi_gs.batch.threads import thread_environment
from sdi_gs.files import disk_errors

PROGRAM = "sdi_gs.batch.worker_process"
"""The module that a worker's process runs."""
LOGS = "logs"
"""Folder in the batch's folder with what the workers print."""
END_SECONDS = 10.0
"""How long a worker without a row may take to end before it is killed."""


@dataclass(frozen=True, kw_only=True)
class LocalWorker:
    """A worker to start."""

    name: str
    """Its name, such as cpu-0."""
    device: str
    """Its device: cpu, cuda:0."""
    share: float = 1.0
    """Part of its card that it may fill."""


def local_workers(devices: Sequence[str], count: int) -> list[LocalWorker]:
    """Return ``count`` workers on these devices in turn; those on one card share its memory equally."""
    used = [devices[index % len(devices)] for index in range(count)]
    return [
        LocalWorker(
            name=f"{device.replace(':', '-')}-{used[:index].count(device)}",
            device=device,
            share=1.0 / used.count(device),
        )
        for index, device in enumerate(used)
    ]


@dataclass(kw_only=True)
class _Process:
    """A worker's process."""

    process: subprocess.Popen[bytes]
    events: int
    """Descriptor that its events are read from."""
    received: bytearray = field(default_factory=bytearray)
    """Bytes of a line that is not whole yet."""
    is_retired: bool = False


class LocalEngine:
    """An ``Engine`` of processes on this machine."""

    def __init__(self, workers: Sequence[LocalWorker], *, threads: int, out: Path) -> None:
        """``threads`` is each worker's share of the cores; what it prints goes to ``out/logs/<name>.log``."""
        self._workers = {worker.name: worker for worker in workers}
        self._threads = threads
        self._logs = out / LOGS
        self._running: dict[str, _Process] = {}
        self._selector = selectors.DefaultSelector()

    def start(self) -> None:
        """Start the workers."""
        with disk_errors(self._logs):
            self._logs.mkdir(parents=True, exist_ok=True)
        for name in self._workers:
            self._start(name)

    def names(self) -> list[str]:
        """Return the names of the workers."""
        return list(self._workers)

    def assign(self, worker: str, job: Job) -> None:
        """Give a row to a worker."""
        self._send(worker, line_of(job))

    def stop_row(self, worker: str) -> None:
        """Ask a worker to save its row and to stop with it."""
        self._send(worker, STOP)

    def retire(self, worker: str) -> None:
        """Let a worker end."""
        if worker in self._running:
            self._running[worker].is_retired = True
            self._send(worker, RETIRE)

    def restart(self, worker: str) -> None:
        """Start a worker again that was lost."""
        self._start(worker)

    def poll(self, seconds: float) -> list[EngineEvent]:
        """Return what has happened since the last call, waiting at most ``seconds`` for the first event."""
        events: list[EngineEvent] = []
        if not self._running:
            time.sleep(seconds)
        for key, _ in self._selector.select(seconds) if self._running else ():
            events += self._read(key.data)
        return events

    def close(self, *, at_once: bool = False) -> None:
        """End all workers: those without a row in peace, the others by force, with ``at_once`` all."""
        for name, running in self._running.items():
            if not at_once and running.process.poll() is None:
                self._send(name, RETIRE)
        patience = time.monotonic() + (0.0 if at_once else END_SECONDS)
        for running in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(max(patience - time.monotonic(), 0.0))
            _kill(running.process)
            self._forget(running)
        self._running.clear()
        self._selector.close()

    def pids(self) -> dict[str, int]:
        """Return the process ids of the workers that run, by name."""
        return {name: running.process.pid for name, running in self._running.items()}

    def _start(self, name: str) -> None:
        worker, (reading, writing) = self._workers[name], os.pipe()
        command = [sys.executable, "-m", PROGRAM, "--name", name, "--device", worker.device]
        command += ["--threads", str(self._threads)]
        command += ["--share", str(worker.share), "--events", str(writing)]
        path = self._logs / f"{name}.log"
        with disk_errors(path), path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
                env={**os.environ, **thread_environment(self._threads)},
            )
        os.close(writing)
        os.set_blocking(reading, False)
        self._running[name] = _Process(process=process, events=reading)
        self._selector.register(reading, selectors.EVENT_READ, name)

    def _send(self, name: str, line: bytes) -> None:
        running = self._running.get(name)
        if running is None or running.process.stdin is None:
            return
        # Of a worker that has just died: its end is about to be read.
        with suppress(BrokenPipeError):
            running.process.stdin.write(line)
            running.process.stdin.flush()

    def _read(self, name: str) -> list[EngineEvent]:
        """Return the events that a worker has sent, and its end if it has ended."""
        running, events = self._running[name], list[EngineEvent]()
        has_ended = False
        while True:
            try:
                data = os.read(running.events, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                has_ended = True
                break
            running.received += data
        *lines, rest = bytes(running.received).split(b"\n")
        running.received = bytearray(rest)
        for line in lines:
            message = message_of(line)
            assert not isinstance(message, Job | str)
            events.append(message)
        if has_ended:
            events += self._end(name, running, reported=any(isinstance(event, WorkerLost) for event in events))
        return events

    def _end(self, name: str, running: _Process, *, reported: bool) -> list[EngineEvent]:
        """Take note of the end of a worker's process."""
        with suppress(subprocess.TimeoutExpired):
            running.process.wait(END_SECONDS)
        _kill(running.process)
        self._forget(running)
        del self._running[name]
        if reported or running.is_retired:
            return []
        return [WorkerLost(worker=name, reason=f"{reason_of(running.process.returncode)}; see {self._logs / name}.log")]

    def _forget(self, running: _Process) -> None:
        self._selector.unregister(running.events)
        os.close(running.events)
        if running.process.stdin is not None:
            with suppress(BrokenPipeError):
                running.process.stdin.close()


def reason_of(code: int | None) -> str:
    """Return how a process ended, in a few words."""
    if code is None or code >= 0:
        return f"the worker ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    killed = " (out of memory, or by hand)" if -code == signal.SIGKILL else ""
    return f"the worker was ended by {name}{killed}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that has not ended."""
    if process.poll() is None:
        process.kill()
        process.wait()
