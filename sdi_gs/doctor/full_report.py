"""``sdi-gs doctor --full``: the printed table, and the JSON report for a bug report."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sdi_gs.console import print_path, say
from sdi_gs.doctor.check_setup import DRY_RUN, FULL, CheckSetup
from sdi_gs.doctor.checks import CheckResult, run_checks
from sdi_gs.doctor.rows import Row
from sdi_gs.errors import UserError
from sdi_gs.files import refuse_existing, refuse_impossible, write_atomically
from sdi_gs.gsplat_build.toolchain import ask_nvidia_smi
from sdi_gs.runs.provenance import versions
from sdi_gs.settings.check_names import CHECK_NAMES, CheckName
from sdi_gs.settings.run import RunConfig

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {"pass": "green", "fail": "bold red", "skipped": "yellow", "shown": ""}
_COLUMNS = 160
_SIGNS = {"at most": "≤", "at least": "≥"}


@dataclass(frozen=True, kw_only=True)
class FullReport:
    """The results of all checks on one machine."""

    machine: dict[str, Any]
    dry_run: bool
    """Whether the checks ran on a CPU at small sizes."""
    results: tuple[CheckResult, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no row of any check failed."""
        return all(result.passed for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; paths of this machine appear in tracebacks only."""
        return {
            "report": "sdi-gs doctor --full",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "passed": self.passed,
            "dry_run": self.dry_run,
            "seconds": self.seconds,
            "versions": versions(),
            "machine": self.machine,
            "checks": [result.as_json() for result in self.results],
        }


def check_and_print(
    device: torch.device | None,
    only: Sequence[CheckName],
    *,
    toybox: RunConfig,
    smoke: RunConfig,
    stable_diffusion: RunConfig,
    out: Path | None,
    as_json: bool,
) -> bool:
    """Run the checks, print the results, write them to ``out``, and return whether all passed.

    ``device`` is the first CUDA device if None; a CPU's dry run takes ``smoke`` in place of ``toybox``. Raises
    UserError if there is no CUDA device, and if ``out`` exists.
    """
    if out is not None:
        refuse_impossible(out)
        refuse_existing(out)
    if device is None:
        if not torch.cuda.is_available():
            raise UserError(
                "--full compares a CUDA card with the CPU, and torch finds no CUDA device: sdi-gs doctor says what is "
                "missing; --full --device cpu makes a dry run of the same checks here"
            )
        device = torch.device("cuda")
    report = full_report(
        device,
        # In the fixed order, each once.
        [name for name in CHECK_NAMES if name in (only or CHECK_NAMES)],
        toybox=toybox if device.type == "cuda" else smoke,
        stable_diffusion=stable_diffusion,
        say=say,
    )
    if out is not None:
        write_report(report, out)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        print_report(report)
        if out is not None:
            print_path(out)
    return report.passed


def full_report(
    device: torch.device,
    names: Sequence[CheckName],
    *,
    toybox: RunConfig,
    stable_diffusion: RunConfig,
    say: Callable[[str], None],
) -> FullReport:
    """Run the named checks on a device: at full size on a card, as a dry run of the same code on a CPU."""
    started = time.perf_counter()
    dry_run = device.type == "cpu"
    setup = CheckSetup(
        device=device, size=DRY_RUN if dry_run else FULL, toybox=toybox, stable_diffusion=stable_diffusion
    )
    results = run_checks(setup, names, say=say)
    return FullReport(
        machine=machine_facts(device),
        dry_run=dry_run,
        results=tuple(results),
        seconds=time.perf_counter() - started,
    )


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return the facts about the machine that a report needs."""
    facts: dict[str, Any] = {
        "device": str(device),
        "system": platform.platform(),
        "torch_cuda": torch.version.cuda,
        "torch_threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        driver, _ = ask_nvidia_smi()
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "name": properties.name,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "memory_gib": properties.total_memory / 2**30,
            "driver": driver,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def write_report(report: FullReport, path: Path) -> None:
    """Write one JSON object; raises UserError if the file exists or cannot be written."""
    write_atomically(path, f"{json.dumps(report.as_json(), indent=2)}\n".encode())


def print_report(report: FullReport) -> None:
    """Print the table and a summary line."""
    from rich.console import Console

    # Files and pipes have no width; rich would assume 80 columns and wrap everything.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _COLUMNS)
    console.print(report_table(report), markup=False)
    console.print(summary_line(report), markup=False, soft_wrap=True)


def report_table(report: FullReport) -> Table:
    """Return a table with a row per figure: quantity, value, limit, verdict, note."""
    from rich.table import Table
    from rich.text import Text

    machine = report.machine
    title = f"{machine.get('name', machine['device'])}{', dry run' if report.dry_run else ''}"
    table = Table(title=title, title_justify="left")
    for column in ("check", "what", "figure", "limit", "", "note"):
        table.add_column(column, justify="right" if column in ("figure", "limit") else "left")
    for result in report.results:
        for number, row in enumerate(result.rows):
            name = result.name if number == 0 else ""
            cells = (name, row.what, _figure(row), _limit(row))
            table.add_row(*map(Text, cells), Text(row.verdict, style=_COLOURS[row.verdict]), Text(row.note))
        table.add_section()
    return table


def summary_line(report: FullReport) -> str:
    """Count passed, failed and skipped rows, and name the failed checks."""
    verdicts = [row.verdict for result in report.results for row in result.rows]
    counts = {
        name: verdicts.count(verdict)
        for name, verdict in (("passed", "pass"), ("failed", "fail"), ("skipped", "skipped"))
    }
    summary = ", ".join(f"{count} {name}" for name, count in counts.items())
    broken = [result.name for result in report.results if not result.passed]
    more = f"; look at {', '.join(broken)}" if broken else ""
    return f"{summary}, {report.seconds:.0f} s{more}"


def _figure(row: Row) -> str:
    return "" if row.figure is None else f"{_number(row.figure)} {row.unit}".strip()


def _limit(row: Row) -> str:
    return "" if row.limit is None or row.bound is None else f"{_SIGNS[row.bound]} {row.limit:g}"


def _number(value: float) -> str:
    """Format a value with four significant digits."""
    if 0.99 < value < 1.0:
        # A cosine: its distance from 1 matters.
        return f"{value:.6f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
