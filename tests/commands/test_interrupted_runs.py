"""Ctrl-C, SIGTERM and SIGHUP, in real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import QUICK, SMOKE

from sdi_gs.commands.main import main

FILM_BEGUN = ".*turntable.mp4"
"""The film, under the name that it has until it is whole."""


@contextmanager
def endless_run(folder: Path, *, film: tuple[int, int]) -> Iterator[subprocess.Popen[str]]:
    """A run that is there to be interrupted; the film's frames and their size say how long its export takes."""
    long = [*("--steps", "20000", "--outputs.checkpoint-every", "5", "--outputs.preview-every", "0")]
    size = ["--outputs.turntable-frames", str(film[0]), "--outputs.turntable-size", str(film[1])]
    command = [sys.executable, "-m", "sdi_gs", *SMOKE, *QUICK, *long, *size, "--output-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            # Whichever it is: the first is gone within milliseconds.
            wait_for(folder, "checkpoints/step_*", process)
            yield process
        finally:
            process.kill()


def wait_for(folder: Path, name: str, process: subprocess.Popen[str], seconds: float = 600.0) -> None:
    """Wait until a program has a file or folder of this name."""
    end = time.monotonic() + seconds
    while not any(folder.glob(name)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{folder} has no {name}"
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"{text!r} was not said")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_exports_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    with endless_run(folder, film=(2, 16)) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].endswith(f"go on with: sdi-gs train --resume {folder}")
    step = json.loads((folder / "summary.json").read_text())["step"]
    assert 5 <= step < 20000
    assert (folder / f"checkpoints/step_{step:06d}").is_dir()
    written = [Path(line) for line in out.splitlines()[:4]]
    assert [path.name for path in written] == ["splats.ply", "turntable.mp4", "contact_sheet.png", "summary.json"]
    assert all(path.is_file() for path in written)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # A film of many minutes, so that the second one comes before its end.
    with endless_run(folder, film=(10_000, 512)) as process:
        process.send_signal(signal.SIGINT)
        read_until(process, "saving and exporting")
        wait_for(folder, FILM_BEGUN, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    [line] = err.splitlines()
    assert line.startswith("sdi-gs: stopped at once; step_")
    assert line.endswith(f"go on with: sdi-gs train --resume {folder}")
    # Whatever is there is whole: no film yet, no leftovers, and the saved step can be exported.
    assert list(folder.rglob(".*")) == []
    assert not (folder / "summary.json").exists()
    assert main(["export", str(folder), "--out", str(tmp_path / "saved.ply")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_film_that_is_terminated_leaves_no_half_of_it(run: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "film"
    options = ["--frames", "3600", "--size", "512", "--views", "0", "--out", str(folder)]
    command = [sys.executable, "-m", "sdi_gs", "render", str(run), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(folder, FILM_BEGUN, process)
            process.send_signal(number)
            _, err = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "sdi-gs: stopped"
    assert list(folder.iterdir()) == []
