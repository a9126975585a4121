"""`sdi-gs train --viewer` and `sdi-gs view` as programs: their address, their end, and what they load."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sdi_gs.commands.main import main
from sdi_gs.viewer import labels

TINY = [
    *("--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu", "--gaussians.num-initial", "60"),
    *("--ideal-prior.renders-per-view", "2", "--ideal-prior.unconditional-renders", "4"),
    *("--views-per-step", "1", "--outputs.turntable-frames", "0", "--outputs.turntable-size", "32"),
    *("--outputs.preview-every", "0"),
]

pytestmark = pytest.mark.slow


@contextmanager
def program(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A command that serves a page, and the port that it told."""
    command = [sys.executable, "-m", "sdi_gs", *arguments]
    settings = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"} | environment
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("viewer: http://127.0.0.1:"), (line, process.stderr and process.stderr.read())
            yield process, int(line.rpartition(":")[2])
        finally:
            process.kill()


def ended_by_ctrl_c(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def is_closed(port: int) -> bool:
    """Whether nobody listens at a port, which another program may take for a while once it is closed."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def endless_run(folder: Path) -> Any:
    """``program`` with a run that trains until it is stopped, with its viewer."""
    options = ["--viewer", "--viewer-port", "0", "--steps", "100000", "--output-dir", str(folder)]
    return program("train", *TINY, *options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "robot"
    assert main(["train", *TINY, "--steps", "2", "--output-dir", str(folder)]) == 0
    return folder


def test_ctrl_c_leaves_a_saved_run_and_a_closed_port(
    tmp_path: Path, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"
    with endless_run(folder) as (process, port):
        browser = browsers(port)
        wait_until(lambda: browser.of_kind("SceneNodeUpdateMessage"))
        # Even while it is paused.
        browser.press(labels.PAUSE)
        wait_until(lambda: "**paused**" in browser.texts())
        code, out, err = ended_by_ctrl_c(process)
    assert code == 130
    wait_until(lambda: is_closed(port))
    assert (folder / "splats.ply").exists()
    assert str(folder / "splats.ply") in out
    assert "Traceback" not in err
    assert "viser" not in out
    wait_until(lambda: browser.is_gone)
    assert f"the run is in {folder}" in browser.texts().replace("\\", "")


def test_stop_and_save_ends_the_program(
    tmp_path: Path, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"
    with endless_run(folder) as (process, port):
        browser = browsers(port)
        wait_until(lambda: browser.of_kind("SceneNodeUpdateMessage"))
        browser.press(labels.STOP_AND_SAVE)
        process.communicate(timeout=600)
    assert (folder / "summary.json").exists()
    wait_until(lambda: is_closed(port))


def test_a_page_that_is_kept_open_shows_the_finished_object(
    tmp_path: Path, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"
    options = ["--viewer", "--viewer-port", "0", "--viewer-keep-open", "--steps", "3", "--output-dir", str(folder)]
    with program("train", *TINY, *options) as (process, port):
        wait_until((folder / "summary.json").exists)
        browser = browsers(port)
        wait_until(lambda: "**finished** · step 3 of 3" in browser.texts())
        wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
        code, _, _ = ended_by_ctrl_c(process)
    assert code == 0
    wait_until(lambda: is_closed(port))


def test_a_taken_port_leads_to_another_that_is_told(finished: Path, wait_until: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with program("view", str(finished), "--port", str(port)) as (process, told):
            assert told > port
            assert not is_closed(told)
            code, out, _ = ended_by_ctrl_c(process)
    assert (code, out) == (0, "")
    wait_until(lambda: is_closed(told))


@pytest.mark.parametrize("name", ["", "splats.ply"])
def test_runs_and_files_can_be_viewed(
    finished: Path, browsers: Callable[..., Any], wait_until: Callable[..., Any], name: str
) -> None:
    count = json.loads((finished / "summary.json").read_text())["n_exported"]
    with program("view", str(finished / name), "--port", "0") as (_, port):
        browser = browsers(port)
        wait_until(lambda: f"{count} Gaussians" in browser.texts())
        [message] = wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
    assert 32 * count in message["_sizes"]


def test_a_run_of_a_field_can_be_viewed(
    tmp_path: Path, browsers: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    folder = tmp_path / "field"
    options = ["--representation", "ngp", "--ngp.samples-per-ray", "32", "--steps", "1"]
    assert main(["train", *TINY, *options, "--output-dir", str(folder)]) == 0
    with program("view", str(folder), "--port", "0") as (process, port):
        browser = browsers(port)
        wait_until(lambda: [m for m in browser.of_kind("BackgroundImageMessage") if m["format"] == "jpeg"])
        assert labels.NO_SPLATS_NOTE in browser.texts()
        code, out, err = ended_by_ctrl_c(process)
    assert (code, out) == (0, "")
    assert "Traceback" not in err


def test_the_tunnel_and_the_warning_are_told(finished: Path) -> None:
    connection = "198.51.100.4 51234 203.0.113.9 22"
    options = ("view", str(finished), "--port", "0", "--host", "0.0.0.0")
    with program(*options, SSH_CONNECTION=connection, USER="ada") as (process, port):
        _, _, err = ended_by_ctrl_c(process)
    assert f"ssh -N -L {port}:127.0.0.1:{port} ada@203.0.113.9" in err
    assert "warning: listening on 0.0.0.0 without a password" in err


VIEWERLESS = """
import sys
from sdi_gs.commands.main import main
assert main({arguments}) == 0
found = sorted(name for name in sys.modules if name.split(".")[0] == "viser" or name.startswith("sdi_gs.viewer"))
assert not found, found
"""


def test_a_run_without_a_viewer_loads_nothing_of_it(tmp_path: Path) -> None:
    arguments = ["train", *TINY, "--steps", "1", "--output-dir", str(tmp_path / "run")]
    code = VIEWERLESS.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
