"""The process of a local worker: jobs as lines on its standard input, events as lines on another descriptor.

Started by ``local_engine``. Where its input ends, because the program is gone, it saves its row and ends.
"""

from __future__ import annotations

import argparse
import os
import queue
import socket
import sys
import threading
import traceback

from sdi_gs.batch.engine import EngineEvent, Job, WorkerLost, WorkerReady
from sdi_gs.batch.messages import line_of, message_of
from sdi_gs.batch.threads import use_threads


class _Inbox:
    """Reads the requests on a thread of its own, so that a stop arrives while a row is made."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def next_job(self) -> Job | None:
        """Wait for the next job; None where there will be none."""
        job = self._jobs.get()
        self._stop.clear()
        return job

    def should_stop(self) -> bool:
        """Return whether the row should be saved and stopped."""
        return self._stop.is_set()

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            match message_of(line):
                case Job() as job:
                    self._jobs.put(job)
                case "stop":
                    self._stop.set()
                case _:
                    break
        self._jobs.put(None)
        self._stop.set()


def main() -> int:
    """Make rows until there are none; 1 after an error of the program, which is reported."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--share", type=float, required=True)
    parser.add_argument("--events", type=int, required=True)
    options = parser.parse_args()
    inbox, events = _Inbox(), open(options.events, "wb", buffering=0)

    def report(event: EngineEvent) -> None:
        # One write: the lines of this thread are whole.
        events.write(line_of(event))

    try:
        use_threads(options.threads)
        from sdi_gs.batch.worker import Worker
        from sdi_gs.devices import pick_device

        device = pick_device(options.device)
        worker = Worker(name=options.name, machine=socket.gethostname(), device=device, share=options.share)
        report(WorkerReady(worker=worker.name, machine=worker.machine, device=str(worker.device)))
        while not worker.was_signalled and (job := inbox.next_job()) is not None:
            worker.make(job, report, inbox.should_stop)
    except BrokenPipeError:
        # The program is gone; the row is as its last checkpoint left it.
        return 0
    # Whatever it is, the program has to learn why this process ends, and the log shows where.
    except Exception as error:
        traceback.print_exc()
        report(WorkerLost(worker=options.name, reason=f"{type(error).__name__}: {' '.join(str(error).split())}"))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The thread that reads would hold the interpreter's end until its input is closed.
    os._exit(code)
