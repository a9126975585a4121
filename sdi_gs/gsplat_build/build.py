"""Compile gsplat's CUDA code ahead of time, with a progress line.

With a given architecture no card is needed. A failed or stopped build keeps its objects for the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdi_gs.console import build_progress, say
from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.gsplat_build.remedies import build_problems, card_problems, explain_failure, forecast, jobs_for
from sdi_gs.gsplat_build.toolchain import Toolchain, Toolkit, examine_toolchain, ninja_folder
from sdi_gs.rasterize.gsplat_library import LIBRARY, library_folder

Show = Callable[[int, int], None]
"""Called with the number of compiled files and their total."""

ARCH = re.compile(r"\d{1,2}\.\d[a-z]?(\+PTX)?")
WORKER = ("-m", "sdi_gs.gsplat_build.compile_gsplat")
"""Python's arguments for the process that compiles."""
TRACE_LINES = 200
"""Last lines of the compilers' output that are kept to explain a failure."""


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Architectures, compiler and destination of a build."""

    archs: tuple[str, ...]
    """Such as 8.9, ascending."""
    toolkit: Toolkit
    jobs: int
    """Files compiled at once."""
    folder: Path
    """Destination of the library."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A compiled library, its versions and costs."""

    library: str
    gsplat: str
    torch: str
    cuda: str
    """CUDA version of torch."""
    python: str
    archs: tuple[str, ...]
    nvcc: str
    """Release of nvcc."""
    compiler: str
    """Source of nvcc."""
    host_compiler: str
    jobs: int
    seconds: float
    """Wall time."""
    cpu_seconds: float
    peak_mib_of_a_compiler: int
    """Largest memory of one compiler process."""
    symbols: tuple[str, ...]
    """Names in the imported module."""

    def as_json(self) -> dict[str, Any]:
        """Return a dict of plain values."""
        return json.loads(json.dumps(asdict(self)))


def plan_build(facts: Toolchain, archs: str | None = None) -> BuildPlan:
    """Choose compiler, jobs and architectures: those of this machine's cards, or of a list like ``8.0;8.9``.

    Raises:
        UserError: It cannot be compiled here; with the reason.
    """
    if facts.torch_cuda is None:
        raise UserError(
            f"torch {facts.torch} is a CPU build, which gsplat's CUDA code cannot be compiled for: "
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
        )
    if archs is None:
        if not facts.cards:
            raise UserError("no NVIDIA card answers: name its architecture, --arch 8.9 (or several: 8.0;8.9)")
        for problem in card_problems(facts):
            raise UserError(f"{problem.what}: {problem.fix}")
        wanted = sorted({card.capability for card in facts.usable_cards})
        chosen = tuple(f"{major}.{minor}" for major, minor in wanted)
    else:
        chosen = tuple(part.strip() for part in archs.split(";"))
        for arch in chosen:
            if not ARCH.fullmatch(arch):
                raise UserError(f"--arch {archs!r} is not a list of compute capabilities: use 8.9, or 8.0;8.9;9.0+PTX")
        chosen = tuple(sorted(set(chosen), key=lambda arch: float(re.sub(r"[a-z+].*", "", arch))))
    problems = build_problems(facts)
    if problems:
        raise UserError(f"{problems[0].what}: {problems[0].fix}")
    assert facts.toolkit is not None
    return BuildPlan(archs=chosen, toolkit=facts.toolkit, jobs=jobs_for(facts), folder=library_folder(chosen))


def build_gsplat(plan: BuildPlan, facts: Toolchain, *, show: Show) -> Built:
    """Compile, import the result in another process, and move it where gsplat_library finds it.

    Raises:
        UserError: The compilers failed (with a fix in one line), or another process compiles the same.
    """
    work = plan.folder.with_name(f".{plan.folder.name}.objects")
    work.mkdir(parents=True, exist_ok=True)
    with _sole_builder(work):
        # A killed build leaves torch's lock behind, and the next one would wait for it.
        (work / "lock").unlink(missing_ok=True)
        told, output = _compile(plan, work, show)
        log = work / "output.txt"
        if told is None:
            write_atomically(log, output.encode())
            problem = explain_failure(output, facts)
            raise UserError(f"compiling gsplat failed: {problem.what}: {problem.fix} (their output: {log})")
        built = Built(
            library=str(plan.folder / LIBRARY),
            gsplat=facts.gsplat,
            torch=facts.torch,
            cuda=facts.torch_cuda or "",
            python=facts.python,
            archs=plan.archs,
            nvcc=plan.toolkit.release,
            compiler=plan.toolkit.source,
            host_compiler=facts.host_compiler or "",
            jobs=plan.jobs,
            symbols=tuple(told.pop("symbols")),
            **told,
        )
        plan.folder.mkdir(exist_ok=True)
        # The description first: a library without one would be used.
        write_atomically(plan.folder / "build.json", f"{json.dumps(built.as_json(), indent=2)}\n".encode())
        os.replace(work / "csrc.so", plan.folder / LIBRARY)
    shutil.rmtree(work)
    return built


def build_and_print(archs: str | None, *, as_json: bool) -> None:
    """Run ``sdi-gs doctor --build``: announce the build, show progress, print the library's path.

    Raises:
        UserError: It cannot be compiled.
    """
    facts = examine_toolchain()
    plan = plan_build(facts, archs)
    say(
        f"compiling gsplat {facts.gsplat} for torch {facts.torch} and {', '.join(plan.archs)} with nvcc "
        f"{plan.toolkit.release} ({plan.toolkit.source}), {plan.jobs} at once"
    )
    with build_progress() as show:
        built = build_gsplat(plan, facts, show=show)
    say(f"{len(built.symbols)} symbols import; {built.seconds:.0f} s, {built.peak_mib_of_a_compiler} MiB at most")
    print(json.dumps(built.as_json()) if as_json else built.library)


def ensure_built(*, use: Callable[[], bool]) -> None:
    """Compile before a training on a card, after a line that announces it; nothing if ``use()`` finds compiled code.

    Raises:
        UserError: It cannot be compiled.
    """
    if use():
        return
    facts = examine_toolchain()
    say(f"gsplat's kernels: {forecast(facts)}")
    plan = plan_build(facts)
    with build_progress() as show:
        build_gsplat(plan, facts, show=show)
    use()


def _compile(plan: BuildPlan, work: Path, show: Show) -> tuple[dict[str, Any] | None, str]:
    """Run the compiling process; returns its report (None if it failed) and its last lines of output."""
    command = [sys.executable, *WORKER, str(work), str(_link_folder(plan, work))]
    lines: list[str] = []
    # A process group, so that a stop reaches the compilers too.
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with subprocess.Popen(command, env=_environment(plan), start_new_session=True, **pipe) as process:
        try:
            for line in process.stdout or ():
                lines = [*lines[-TRACE_LINES:], line]
                progress = re.match(r"\[(\d+)/(\d+)\]", line)
                if progress:
                    show(int(progress[1]), int(progress[2]))
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode == -signal.SIGKILL:
        # The kernel kills a process when memory runs out; the output does not show it.
        lines.append("Killed\n")
    return (None if process.returncode else json.loads(lines[-1])), "".join(lines)


def _environment(plan: BuildPlan) -> dict[str, str]:
    """Return the environment of the build: torch's variables, and paths to sdi_gs and ninja."""
    ninja, own = ninja_folder(), find_spec("sdi_gs")
    assert own is not None and own.origin is not None
    path = [f"{plan.toolkit.home}/bin", *([str(ninja)] if ninja else []), os.environ.get("PATH", "")]
    imports = [str(Path(own.origin).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "CUDA_HOME": plan.toolkit.home,
        "TORCH_CUDA_ARCH_LIST": ";".join(plan.archs),
        "MAX_JOBS": str(plan.jobs),
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(filter(None, imports)),
        "PYTHONUNBUFFERED": "1",
    }


def _link_folder(plan: BuildPlan, work: Path) -> Path:
    """Make a folder with ``libcudart.so``: the linker needs this name, which the Python packages do not contain."""
    folder = work / "libraries"
    folder.mkdir(exist_ok=True)
    link = folder / "libcudart.so"
    link.unlink(missing_ok=True)
    for place in ("lib64", "lib"):
        found = sorted(Path(plan.toolkit.home, place).glob("libcudart.so*"))
        if found:
            link.symlink_to(found[0].resolve())
            break
    return folder


@contextmanager
def _sole_builder(work: Path) -> Iterator[None]:
    """Lock a build folder; raises UserError if another process holds it."""
    with (work / "held").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is compiling gsplat in {work}: wait until it is done") from None
        yield
