"""A worker's program that stands still at the first checkpoint of a batch, where a stop or a kill finds it.

``LocalEngine`` starts it in place of its own where ``local_engine.PROGRAM`` names it, in ``held_environment``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from sdi_gs.batch import worker
from sdi_gs.batch.engine import Job, RowProgress
from sdi_gs.batch.journal import RowEvent
from sdi_gs.batch.worker_process import main

PROGRAM = Path(__file__).stem
VARIABLE = "SDI_GS_HELD_ROW"


def held_environment(mark: Path) -> dict[str, str]:
    """Return the variables with which this program is found and holds one row, whose key it writes to ``mark``."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), VARIABLE: str(mark)}


class Held(worker.Worker):
    """Holds the first row that reports a checkpoint until it is asked to stop; those after it are made as ever."""

    def make(self, job: Job, report: Callable[[RowEvent | RowProgress], None], should_stop: Callable[[], bool]) -> None:
        def report_and_wait(event: RowEvent | RowProgress) -> None:
            is_held = isinstance(event, RowEvent) and event.event == "checkpoint" and _is_first(event.key)
            report(event)
            while is_held and not should_stop():
                time.sleep(0.01)

        super().make(job, report_and_wait, should_stop)


def _is_first(key: str) -> bool:
    try:
        with Path(os.environ[VARIABLE]).open("x") as mark:
            mark.write(key)
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    with patch.object(worker, "Worker", Held):
        code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
