"""What stdout and stderr are connected to: other encodings, closed pipes, full disks, nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SDI_GS = f"{sys.executable} -m sdi_gs"


def shell(
    command: str, folder: Path, stdout: int = subprocess.PIPE, /, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUNBUF"))
    }
    settings = plain | {"COLUMNS": "100"} | environment
    command = command.replace("sdi-gs", SDI_GS)
    words = ["bash", "-c", command]
    return subprocess.run(words, cwd=folder, env=settings, stdout=stdout, stderr=subprocess.PIPE, check=False)


@pytest.mark.parametrize(("encoding", "arguments"), [("latin-1", "--help"), ("ascii", "train --help-all")])
def test_help_is_whole_in_any_encoding(tmp_path: Path, encoding: str, arguments: str) -> None:
    done = shell(f"sdi-gs {arguments}", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    said = done.stdout.decode(encoding)
    last = "probe" if arguments == "--help" else "--viewer-port"
    assert last in said


def test_a_locale_without_letters_stops_nothing(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("sdi-gs train --help && sdi-gs render 'b\u00fccher.ply'", tmp_path, **plain)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr and done.stderr.count(b"\n") == 1
    assert b"cher.ply does not exist" in done.stderr


@pytest.mark.parametrize("command", ["--help", "priors"])
def test_a_reader_that_has_enough_ends_the_program_quietly(tmp_path: Path, command: str) -> None:
    reading, writing = os.pipe()
    # The reader is gone before the first letter.
    os.close(reading)
    done = shell(f"sdi-gs {command}; echo $? >&2", tmp_path, writing)
    os.close(writing)
    assert done.stderr == b"141\n"


def test_help_can_be_cut_by_head(tmp_path: Path) -> None:
    done = shell("sdi-gs train --help-all | head -1", tmp_path)
    assert done.stderr == b"" and done.stdout.count(b"\n") == 1


def test_an_error_that_nobody_reads_keeps_its_exit_code(tmp_path: Path) -> None:
    done = shell("{ sdi-gs render none.ply 2>&1 >/dev/null; echo $? > code; } | true; cat code", tmp_path)
    assert done.stdout == b"2\n" and done.stderr == b""


def test_without_stderr_nothing_goes_to_stdout(tmp_path: Path) -> None:
    done = shell("sdi-gs render none.ply 2>&-; echo $?", tmp_path)
    assert done.stdout == b"2\n"
    done = shell("sdi-gs --version >&-; echo $?", tmp_path)
    assert done.stdout == b"0\n" and done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path, unbuffered: str) -> None:
    done = shell("sdi-gs --version > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr == b"sdi-gs: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("command", ["--help", "render --help", "train --help-all"])
@pytest.mark.parametrize("columns", ["1", "39", "40", "wide"])
def test_no_width_stops_help(tmp_path: Path, columns: str, command: str) -> None:
    done = shell(f"timeout -s KILL 600 sdi-gs {command}", tmp_path, COLUMNS=columns, TERM="dumb")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
