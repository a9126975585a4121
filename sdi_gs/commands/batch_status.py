"""``sdi-gs batch status``: how far a batch is, from its journal alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sdi_gs.batch.ranking import ranking_named
from sdi_gs.batch.state import replay
from sdi_gs.batch.status import status_json, status_lines
from sdi_gs.console import print_lines
from sdi_gs.runs.writer_lock import is_held
from sdi_gs.settings.bounds import Range, check_settings


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """Print how far a batch is: its totals, what is under way, what failed and why."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The batch's folder."""
    json: bool = False
    """Print one JSON object with every row and nothing else."""
    keep_best: Annotated[int, Range(1, 1000, zero_means="none")] = 0
    """Also list this many best seeds of each prompt that has scores."""
    score: str = "judge"
    """Score that --keep-best goes by."""

    def __post_init__(self) -> None:
        check_settings(self)


def batch_status(options: BatchStatus) -> int:
    """Print the state of a batch."""
    ranking, state, running = ranking_named(options.score), replay(options.out), is_held(options.out)
    if options.json:
        print(json.dumps(status_json(options.out, state, running=running, keep=options.keep_best, ranking=ranking)))
    else:
        print_lines(*status_lines(options.out, state, running=running, keep=options.keep_best, ranking=ranking))
    return 0
