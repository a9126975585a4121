"""Run the checks of ``sdi-gs doctor --full`` one after the other; a failing one does not stop the others."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch

from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.rows import Row, failed
from sdi_gs.priors.layout import in_one_line
from sdi_gs.settings.check_names import SUMMARIES, CheckName

Check = Callable[[CheckSetup], Iterator[Row]]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Result of one check."""

    name: CheckName
    rows: tuple[Row, ...]
    seconds: float
    trace: str | None = None
    """Traceback of an exception, if one was raised."""

    @property
    def passed(self) -> bool:
        """Whether no row failed."""
        return all(row.verdict != "fail" for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "summary": SUMMARIES[self.name],
            "passed": self.passed,
            "seconds": self.seconds,
            "rows": [row.as_json() for row in self.rows],
            "trace": self.trace,
        }


def run_checks(
    setup: CheckSetup,
    names: Sequence[CheckName],
    *,
    say: Callable[[str], None] = lambda _: None,
    check_named: Callable[[CheckName], Check] | None = None,
) -> list[CheckResult]:
    """Run the named checks in order and return their results; an exception becomes a failed row."""
    results = []
    for number, name in enumerate(names, start=1):
        say(f"check {number} of {len(names)}, {name}: {SUMMARIES[name]}")
        results.append(_run(setup, name, (check_named or check_of)(name)))
    return results


def check_of(name: CheckName) -> Check:
    """Return the function of a check."""
    match name:
        case "rasterizer":
            from sdi_gs.doctor.check_rasterizer import check_rasterizer

            return check_rasterizer
        case "field":
            from sdi_gs.doctor.check_field import check_field

            return check_field
        case "growth":
            from sdi_gs.doctor.check_growth import check_growth

            return check_growth
        case "toybox":
            from sdi_gs.doctor.check_toybox import check_toybox

            return check_toybox
        case "precision":
            from sdi_gs.doctor.check_precision import check_precision

            return check_precision
        case "cost":
            from sdi_gs.doctor.check_cost import check_cost

            return check_cost
        case "fallback":
            from sdi_gs.doctor.check_fallback import check_fallback

            return check_fallback
        case "throughput":
            from sdi_gs.doctor.check_throughput import check_throughput

            return check_throughput
        case _:
            assert_never(name)


def _run(setup: CheckSetup, name: CheckName, check: Check) -> CheckResult:
    started = time.perf_counter()
    rows: list[Row] = []
    trace = None
    try:
        _free_memory(setup.device)
        rows.extend(check(setup))
    except Exception as error:  # A kernel that does not load, a card that gives up, memory that is out, each by a type
        # of its own: these checks exist to find them, and the report has the traceback.
        rows.append(failed("the check itself", in_one_line(error)))
        trace = traceback.format_exc()
    return CheckResult(name=name, rows=tuple(rows), seconds=time.perf_counter() - started, trace=trace)


def _free_memory(device: torch.device) -> None:
    """Free the memory of the check before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
