"""``index.html`` of a batch: one page for all runs, which needs no server and no network.

Its facts are inside it, its pictures, films and splats are links into the run folders, which are loaded when they come
into sight. Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdi_gs.batch.journal import now
from sdi_gs.batch.pace import Pace
from sdi_gs.batch.ranking import Ranking, best_rows, seconds_left
from sdi_gs.batch.state import BatchState, RowState
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.runs.folder import RunFolder

if TYPE_CHECKING:
    from sdi_gs.batch.engine import EngineEvent

PAGE = "index.html"
"""File in the batch's folder."""
SECONDS_BETWEEN = 10.0
"""Shortest time between two versions of the page while the batch runs."""
SHARE_OF_TIME = 0.02
"""Largest share of the program's time that writing the page may take."""

_HERE = Path(__file__).parent
_PLACE = re.compile(r"/\*(STYLE|SCRIPT|DATA)\*/")


class PageWriter:
    """Writes the page of one batch: an observer of it, and ``write`` for its end."""

    def __init__(self, out: Path, *, keep: int = 0, ranking: Ranking | None = None) -> None:
        """``keep`` is how many of a prompt's seeds are marked as the best by ``ranking``; 0 for none."""
        self.path = out / PAGE
        self._out = out
        self._keep = keep if ranking is not None else 0
        self._ranking = ranking
        self._records: dict[str, tuple[RowState, bool, str]] = {}
        """Per key what a row's text was made from, and the text."""
        self._pace = Pace(SECONDS_BETWEEN, share=SHARE_OF_TIME)

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        """Write the page if the last one is old enough; a page that cannot be written costs the batch nothing."""
        if not self._pace.is_due:
            return
        with self._pace.measured():
            try:
                self.write(state, running=True)
            except UserError as error:
                say(f"the page could not be written: {error}")

    def write(self, state: BatchState, *, running: bool) -> None:
        """Write the page, whole; ``running`` while further versions will follow. Raises UserError if it cannot be."""
        best: frozenset[str] = frozenset()
        if self._ranking is not None and self._keep:
            best = best_rows(state, self._keep, self._ranking)
        records = ",\n".join(self._text_of(known, known.row.key in best) for known in state.rows)
        about = {
            "title": f"Batch: {self._out.resolve().name}",
            "source": state.header.source,
            "version": state.header.version,
            "begun": state.header.time,
            "written": now(),
            "running": running,
            "left": seconds_left(state, state.count("running")) if running else None,
            "keep": self._keep,
            "score": self._ranking.name if self._ranking is not None else "",
        }
        data = f'{_json(about)[:-1]}, "rows": [\n{records}\n]}}'
        parts = {"STYLE": _part("css"), "SCRIPT": _part("js"), "DATA": data}
        # In one pass: what a stranger writes into a prompt is never a place itself.
        text = _PLACE.sub(lambda found: parts[found[1]], _part("html"))
        write_atomically(self.path, text.encode("utf-8", "replace"), overwrite=True)

    def _text_of(self, known: RowState, is_best: bool) -> str:
        """Return a row as JSON; that of a row which has not changed is kept, so that its files are looked for once."""
        kept = self._records.get(known.row.key)
        if kept is not None and kept[0] is known and kept[1] == is_best and known.status != "running":
            return kept[2]
        text = _json(_record(known, self._out, is_best=is_best))
        self._records[known.row.key] = (known, is_best, text)
        return text


def write_page(
    out: Path, state: BatchState, *, running: bool = False, keep: int = 0, ranking: Ranking | None = None
) -> Path:
    """Write the page of a batch and return its path; UserError if it cannot be written."""
    writer = PageWriter(out, keep=keep, ranking=ranking)
    writer.write(state, running=running)
    return writer.path


def _record(known: RowState, out: Path, *, is_best: bool) -> dict[str, Any]:
    """Return what the page shows of a row, without what is absent."""
    row, folder = known.row, RunFolder(known.row.folder(out))
    finished = known.status == "finished"
    record: dict[str, Any] = {
        "index": row.index,
        "key": row.key,
        "prompt": row.prompt,
        "seed": row.seed,
        "name": row.name,
        "status": known.status,
        "step": known.step,
        "steps": known.steps,
        "seconds": round(known.seconds, 1),
        "scores": _numbers(known.scores),
        "reason": known.reason,
        "settings": dict(row.settings),
        "best": is_best,
        "folder": known.status != "waiting" and folder.path.is_dir(),
        "sheet": finished and folder.contact_sheet.is_file(),
        "film": finished and folder.turntable.is_file(),
        "ply": finished and folder.splats.is_file(),
    }
    if not finished and known.status != "waiting":
        previews = folder.saved_previews()
        record["preview"] = previews and f"previews/{previews[max(previews)].name}"
    always = ("index", "seed", "step")
    return {name: value for name, value in record.items() if value or name in always}


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores that are finite numbers: what JSON can hold and the page can sort."""
    found = {name: value for name, value in scores.items() if isinstance(value, int | float) and math.isfinite(value)}
    return {name: round(value, 4) for name, value in found.items()}


def _json(values: Any) -> str:
    """Return JSON that may stand inside a script element: nothing in it can end the element."""
    return json.dumps(values, ensure_ascii=False, default=str).replace("<", "\\u003c")


@cache
def _part(ending: str) -> str:
    return (_HERE / f"page.{ending}").read_text(encoding="utf-8").strip()
