"""`sdi-gs doctor --full` as a user meets it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from sdi_gs.commands.main import main
from sdi_gs.doctor.checks import CheckResult
from sdi_gs.doctor.full_report import FullReport, report_table, summary_line
from sdi_gs.doctor.rows import at_least, at_most, failed, shown, skipped

FAST = ["doctor", "--full", "--device", "cpu", "--only", "throughput", "field"]


@pytest.fixture
def report() -> FullReport:
    rows = (
        at_most("image: worst pixel", 2.5e-5, 1e-4),
        at_least("cosine of the target", 0.99963, 0.999, note="worst: [a case]"),
        skipped("nerfacc's compositing", "nerfacc is not installed"),
        shown("speed", 1234.5, unit="pictures/s"),
    )
    return FullReport(
        machine={"device": "cuda:0", "name": "a card"},
        dry_run=False,
        results=(
            CheckResult(name="rasterizer", rows=rows, seconds=2.0),
            CheckResult(name="cost", rows=(failed("the check itself", "out of memory"),), seconds=1.0, trace="where"),
        ),
        seconds=3.2,
    )


def test_the_table_has_figure_limit_verdict_and_note(report: FullReport) -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report_table(report), markup=False)
    lines = [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]
    assert "a card" in lines[0]
    assert "rasterizer image: worst pixel 2.5e-05 ≤ 0.0001 pass" in lines
    assert "cosine of the target 0.999630 ≥ 0.999 pass worst: [a case]" in lines
    assert "nerfacc's compositing skipped nerfacc is not installed" in lines
    assert "speed 1234 pictures/s shown" in lines
    assert "cost the check itself fail out of memory" in lines


def test_the_summary_counts_and_names_what_failed(report: FullReport) -> None:
    assert summary_line(report) == "2 passed, 1 failed, 1 skipped, 3 s; look at cost"
    assert not report.passed


@pytest.mark.slow
def test_a_dry_run_prints_a_table_and_leaves_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert main([*FAST, "--report", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "dry run" in out and str(path) in out
    assert "check 1 of 2, field" in err, "in their own order"
    told = json.loads(path.read_text())
    assert (told["passed"], told["dry_run"], told["machine"]["device"]) == (True, True, "cpu")
    assert [check["name"] for check in told["checks"]] == ["field", "throughput"]
    assert told["versions"]["torch"] == torch.__version__
    assert all(check["seconds"] > 0.0 and check["rows"] for check in told["checks"])
    home = str(Path.home())
    assert home not in path.read_text(), "a report is for others to read"


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--full", "--device", "cpu", "--only", "throughput", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"][0]["name"] == "throughput"


def test_a_check_that_fails_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(device: torch.device) -> dict[str, object]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("sdi_gs.doctor.check_throughput.ball_scene", broken)
    path = tmp_path / "report.json"
    assert main(["doctor", "--full", "--device", "cpu", "--only", "throughput", "--report", str(path)]) == 1
    [check] = json.loads(path.read_text())["checks"]
    assert check["rows"][-1]["verdict"] == "fail" and "check_throughput" in check["trace"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--full"], "torch finds no CUDA device"),
        (["--full", "--device", "cuda"], "device 'cuda' is not there"),
        (["--full", "--device", "tpu"], "device 'tpu' means nothing"),
        (["--full", "--only", "speed"], "speed"),
        (["--only", "field"], "--only goes with the checks of --full"),
        (["--device", "cpu"], "--device goes with the checks of --full"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main(["doctor", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


def test_a_report_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_text("mine")
    assert main([*FAST, "--report", str(path)]) == 2
    assert path.read_text() == "mine"
    err = capsys.readouterr().err
    assert "exists and is never overwritten" in err and "check 1" not in err, "before any check has run"
