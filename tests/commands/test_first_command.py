"""README's first command as containers and shared folders run it: no home, no locale, a read-only install, no fsync."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from command_line import QUICK
from plyfile import PlyData
from sources import ROOT

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
FIRST = ["train", "--prompt", "a blue robot"]
SHORT = ["--device", "cpu", "--steps", "2", *QUICK]
NOBODY = 65534
NO_FOLDER_FSYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
int fsync(int fd) {
  struct stat found;
  if (fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) { errno = atoi(getenv("FOLDER_FSYNC")); return -1; }
  int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
  return real(fd);
}
"""
"""Takes fsync's place in a process, for all of its libraries."""
EINVAL, EIO = "22", "5"


@pytest.fixture
def place() -> Iterator[Path]:
    """A new folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sdi-gs-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def unsynced(place: Path) -> dict[str, str]:
    """The variables of a process whose folders cannot be flushed."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for a stand-in of fsync")
    (place / "unsynced.c").write_text(NO_FOLDER_FSYNC)
    library = place / "unsynced.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, place / "unsynced.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "FOLDER_FSYNC": EINVAL}


@pytest.fixture
def stranger() -> list[str]:
    """The begin of a command of a user who owns nothing and may read everything."""
    if os.geteuid() != 0:
        return []
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    reads = [
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ]
    # The interpreter of a test may lie in root's home.
    for options in ([*user, "--inh-caps=-all", "--bounding-set=-all"], [*user, *reads]):
        command = ["setpriv", *options]
        works = [*command, sys.executable, "-c", "import numba"]
        if shutil.which("setpriv") and subprocess.run(works, check=False, capture_output=True).returncode == 0:
            return command
    pytest.skip("root, and no setpriv that starts this interpreter as nobody")


def ran(
    arguments: Sequence[str], *, folder: Path, variables: Mapping[str, str], prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "sdi_gs", *arguments]
    return subprocess.run(command, cwd=folder, env=dict(variables), capture_output=True, text=True, check=False)


def test_it_is_readmes_first_command() -> None:
    assert f'sdi-gs {FIRST[0]} {FIRST[1]} "{FIRST[2]}"' in README.partition("sdi-gs priors")[0]
    assert README.index("sdi-gs train") == README.index(f'sdi-gs {FIRST[0]} {FIRST[1]} "{FIRST[2]}"')


def test_in_a_container_without_a_home_and_with_a_read_only_install(
    place: Path, unsynced: dict[str, str], stranger: list[str]
) -> None:
    installed, work = place / "site-packages", place / "work"
    work.mkdir()
    shutil.copytree(ROOT / "sdi_gs", installed / "sdi_gs", ignore=shutil.ignore_patterns("__pycache__"))
    for entry in (installed, *installed.rglob("*")):
        entry.chmod(entry.stat().st_mode & ~0o222 | (0o555 if entry.is_dir() else 0o444))
    if stranger:
        os.chown(work, NOBODY, NOBODY)
    variables = {"HOME": "/proc/none", "PATH": os.environ["PATH"], "PYTHONPATH": str(installed), **unsynced}
    done = ran([*FIRST, *SHORT], folder=work, variables=variables, prefix=stranger)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("CPU kernels") == 1, done.stderr
    run = work / "outputs/a-blue-robot-1"
    assert sorted(path.name for path in run.iterdir()) == [
        *("checkpoints", "config.yaml", "contact_sheet.png", "previews"),
        *("splats.ply", "steps.jsonl", "summary.json", "turntable.mp4"),
    ]
    assert done.stdout.splitlines()[0] == "outputs/a-blue-robot-1/splats.ply"
    assert PlyData.read(run / "splats.ply")["vertex"].count == 200
    if stranger:
        assert {path.stat().st_uid for path in run.rglob("*")} == {NOBODY}


@pytest.mark.parametrize("error", [EINVAL, EIO])
def test_in_a_folder_that_cannot_be_flushed(place: Path, unsynced: dict[str, str], error: str) -> None:
    variables = os.environ | unsynced | {"FOLDER_FSYNC": error}
    for arguments in (
        [*FIRST, *SHORT],
        ["train", "--resume", "outputs/a-blue-robot-1", "--extend", "1"],
        ["export", "outputs/a-blue-robot-1", "--out", "robot.splat"],
    ):
        done = ran(arguments, folder=place, variables=variables)
        assert done.returncode == 0, done.stderr
        assert "cannot" not in done.stderr and "Traceback" not in done.stderr
    checkpoints = place / "outputs/a-blue-robot-1/checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step_000002", "step_000003"]
    assert (place / "robot.splat").stat().st_size == 32 * 200
