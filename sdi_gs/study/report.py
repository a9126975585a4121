"""What a study leaves: study.md, study.json, a figure and contact sheets per setting."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sdi_gs.evaluation.report import git_commit
from sdi_gs.files import disk_errors, write_atomically
from sdi_gs.runs.provenance import versions
from sdi_gs.study.differences import (
    Result,
    answer,
    cells_of,
    contrasts_of,
    findings_of,
    verdict,
)
from sdi_gs.study.figures import write_figures
from sdi_gs.study.page import MARKS, PAGE, kept_reading
from sdi_gs.study.results import results_as_json
from sdi_gs.study.spec import Study
from sdi_gs.study.tables import claim_tables, means_of, page_tables

DATA = "study.json"

READING = (
    "Means over runs of complete groups of prompt and seed. Differences are paired by prompt and seed, with 95 % "
    "intervals of 10 000 bootstrap resamplings in two stages, prompts first and then the seeds of each; bold where "
    "they exclude 0, and ahead or behind by the side. Of few prompts such intervals are too narrow, of one there is "
    "none. Many differences are shown: some exclude 0 by chance."
)
FIGURE_CAPTION = "means with their intervals over prompts; grey: single runs, or pairs of them"
SHEET_CAPTION = "each object from the front and from behind"


def write_report(
    study: Study,
    results: Sequence[Result],
    out: Path,
    *,
    command: str,
    complete: tuple[int, int],
    sheets: Sequence[Path] = (),
    say: Callable[[str], None],
) -> list[Path]:
    """Write all files, over those of an earlier report, and return their paths; ``complete`` counts groups.

    What stands between the marks of an earlier page is kept.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    figures = write_figures(study, results, out, say=say)
    page, data = out / PAGE, out / DATA
    text = _page(study, results, command, complete, kept_reading(out), figures, sheets)
    write_atomically(page, text.encode(), overwrite=True)
    write_atomically(data, _as_text(_data(study, results, command)).encode(), overwrite=True)
    return [page, data, *figures, *sheets]


def _page(
    study: Study,
    results: Sequence[Result],
    command: str,
    complete: tuple[int, int],
    reading: str,
    figures: Sequence[Path],
    sheets: Sequence[Path],
) -> str:
    parts = [f"# {study.title}", "", *([study.about, ""] if study.about else []), "```bash", command, "```", ""]
    parts += [MARKS[0], "", *([reading, ""] if reading else []), MARKS[1], ""]
    done, total = complete
    groups = "All" if done == total else f"{done} of"
    parts += [f"{groups} {total} groups of prompt and seed are complete. {READING}", ""]
    claims = claim_tables(study, results)
    parts += ["## Claims", "", claims, ""] if claims else []
    parts += ["## Pictures", ""] if figures or sheets else []
    for figure in figures:
        parts += [f"![{figure.stem}]({figure.name})", "", _captioned(FIGURE_CAPTION, figure, study), ""]
    for sheet in sheets:
        parts += [f"![{sheet.stem}]({sheet.name})", "", _captioned(SHEET_CAPTION, sheet, study), ""]
    parts += ["## Tables", "", page_tables(study, results)]
    return "\n".join(parts)


def _captioned(caption: str, picture: Path, study: Study) -> str:
    """Return a caption with the setting and the budget of a file's name, where there are several."""
    _, _, place = picture.stem.partition("-")
    budget = next((f"equal {one}" for one in study.budgets if place.endswith(f"-{one}")), "")
    setting = place.removesuffix(f"-{budget.removeprefix('equal ')}") if len(study.settings) > 1 else ""
    where = ", ".join(filter(None, [setting, budget if len(study.budgets) > 1 else ""]))
    return f"*{where[:1].upper()}{where[1:]}: {caption}.*" if where else f"*{caption[:1].upper()}{caption[1:]}.*"


def _data(study: Study, results: Sequence[Result], command: str) -> dict[str, Any]:
    """Return all means, differences, answers and results as plain values."""
    contrasts, keys = contrasts_of(study, results), (*study.means, *study.scores)
    return {
        "study": study.name,
        "command": command,
        "versions": versions(),
        "git": git_commit(),
        "arms": [
            {"setting": setting.name, "arm": arm, "budget": budget, "runs": len(found), "means": means_of(found, keys)}
            for setting in study.settings
            for (arm, budget), found in cells_of(study, results, setting.name).items()
        ],
        "differences": [
            asdict(one) | {"scores": {key: asdict(value) for key, value in found.items()}} | verdict(found)
            for one, found in contrasts.items()
        ],
        "claims": [{**asdict(claim), "holds": answer(study, claim, contrasts)} for claim in study.claims],
        "findings": [
            {
                "claim": found.claim.name,
                "budget": found.budget,
                "score": found.score,
                **asdict(found.interval),
                "p_holm": found.corrected_p,
            }
            for found in findings_of(study, contrasts)
        ],
        "results": results_as_json(results),
    }


def _as_text(data: dict[str, Any]) -> str:
    """Return JSON with a line per result, of which there are hundreds."""
    lines = ",\n".join(json.dumps(row) for row in data.pop("results"))
    return f'{json.dumps(data, indent=1)[:-2]},\n "results": [\n{lines}\n ]\n}}\n'


def command_line(words: Sequence[str]) -> str:
    """Return a command as it is typed."""
    return shlex.join(words)
