"""Compiling ahead of time: what is chosen, how far it is, where it goes, and what becomes of a failure."""

from __future__ import annotations

import fcntl
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdi_gs.errors import UserError
from sdi_gs.gsplat_build import build, compile_gsplat
from sdi_gs.gsplat_build.build import BuildPlan, build_gsplat, ensure_built, plan_build
from sdi_gs.gsplat_build.toolchain import Card, Toolchain, Toolkit
from sdi_gs.rasterize.gsplat_library import LIBRARY, find_library

Machine = Callable[..., Toolchain]

WORKER = """
import json, os, pathlib, sys
folder, libraries = map(pathlib.Path, sys.argv[1:])
print("Using the build folder", folder)
for done in range(1, 4):
    print(f"[{done}/3] nvcc -c file{done}.cu", flush=True)
(folder / "objects.o").touch()
told = {name: os.environ[name] for name in ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS")}
(folder.parent / "environment.json").write_text(json.dumps(told | {"links": os.listdir(libraries)}))
FAILURE
(folder / "csrc.so").write_bytes(b"machine code")
print(json.dumps({"symbols": ["a", "b"], "seconds": 3.5, "cpu_seconds": 9.0, "peak_mib_of_a_compiler": 700}))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a program that only claims to compile in the compiling process's place; ``failure`` is what it dies of."""

    def put(failure: str = "") -> None:
        script = tmp_path / "worker.py"
        script.write_text(WORKER.replace("FAILURE", failure and f"print({failure!r}); sys.exit(1)"))
        monkeypatch.setattr(build, "WORKER", (str(script),))

    return put


@pytest.fixture
def toolkit(tmp_path: Path) -> Toolkit:
    """As NVIDIA's Python packages leave it: a library without the name that linkers ask for."""
    home = tmp_path / "nvidia/cu13"
    (home / "lib").mkdir(parents=True)
    (home / "lib/libcudart.so.13").touch()
    return Toolkit(home=str(home), release="13.0", source="PyPI", newest_gcc=15)


def built_from(facts: Toolchain, archs: str | None = None) -> tuple[build.Built, list[tuple[int, int]]]:
    shown: list[tuple[int, int]] = []
    built = build_gsplat(plan_build(facts, archs), facts, show=lambda done, total: shown.append((done, total)))
    return built, shown


def test_it_is_compiled_for_the_cards_that_are_here(machine: Machine) -> None:
    hopper = Card(name="H100", capability=(9, 0), memory_gib=80.0)
    facts = machine(cards=(hopper, *machine().cards, hopper))
    assert plan_build(facts).archs == ("8.9", "9.0")


def test_a_card_that_is_too_old_is_no_reason_to_leave_the_other_out(machine: Machine) -> None:
    old = Card(name="GTX 1080", capability=(6, 1), memory_gib=8.0)
    assert plan_build(machine(cards=(old, *machine().cards))).archs == ("8.9",)


def test_without_a_card_it_is_compiled_for_what_is_asked(machine: Machine) -> None:
    nowhere = machine(cards=(), driver=None, driver_cuda=None, card_on_bus=False, torch_archs=())
    assert plan_build(nowhere, "10.0; 8.0;8.9+PTX").archs == ("8.0", "8.9+PTX", "10.0")
    with pytest.raises(UserError, match="no NVIDIA card answers: name its architecture, --arch 8.9"):
        plan_build(nowhere)


@pytest.mark.parametrize("archs", ["ada", "89", "sm_89", "8.9,9.0", ""])
def test_what_is_no_list_of_architectures_is_refused(archs: str, machine: Machine) -> None:
    with pytest.raises(UserError, match=r"--arch '.*' is not a list of compute capabilities: use 8\.9"):
        plan_build(machine(), archs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"torch_cuda": None, "torch": "2.13.0+cpu"}, "torch 2.13.0.cpu is a CPU build"),
        ({"toolkits": ()}, "there is no CUDA compiler: pip install 'sdi-gs"),
        ({"ninja": False}, "there is no ninja to run gsplat's build: pip install ninja"),
        ({"driver_cuda": "12.4"}, "knows CUDA up to 12.4, older than torch's 13.0: update the driver"),
        ({"max_jobs": 64}, "MAX_JOBS=64 needs up to 141 GiB"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(
    changes: dict[str, Any], message: str, machine: Machine
) -> None:
    with pytest.raises(UserError, match=message):
        plan_build(machine(**changes))


def test_a_library_for_another_torch_is_a_reason_to_compile(machine: Machine) -> None:
    assert plan_build(machine(other_torch="2.12.1")).jobs == 8


def test_a_build_ends_as_a_library_that_is_found_with_a_description_beside_it(
    machine: Machine, worker: Callable[..., None], toolkit: Toolkit, cache: Path
) -> None:
    worker()
    built, shown = built_from(machine(toolkits=(toolkit,)))
    assert shown == [(1, 3), (2, 3), (3, 3)]
    library = find_library((8, 9))
    assert library is not None
    assert str(library) == built.library
    assert library.read_bytes() == b"machine code"
    assert json.loads((library.parent / "build.json").read_text()) == built.as_json()
    assert (built.archs, built.nvcc, built.compiler, built.symbols) == (("8.9",), "13.0", "PyPI", ("a", "b"))
    assert list(cache.rglob("*.o")) == [], "objects are of no more use"


def test_the_compilers_are_told_where_the_toolkit_is_and_how_many_may_run(
    machine: Machine, worker: Callable[..., None], toolkit: Toolkit, cache: Path
) -> None:
    worker()
    built_from(machine(toolkits=(toolkit,), cores=3), "8.0;9.0")
    [told] = [json.loads(file.read_text()) for file in cache.rglob("environment.json")]
    assert told == {
        "CUDA_HOME": toolkit.home,
        "TORCH_CUDA_ARCH_LIST": "8.0;9.0",
        "MAX_JOBS": "3",
        "links": ["libcudart.so"],
    }


def test_a_failure_is_one_line_keeps_what_is_done_and_can_be_tried_again(
    machine: Machine, worker: Callable[..., None], toolkit: Toolkit, cache: Path
) -> None:
    worker("c++: fatal error: Killed signal terminated program cc1plus")
    facts = machine(toolkits=(toolkit,))
    with pytest.raises(UserError, match="the compiler ran out of memory: MAX_JOBS=7 sdi-gs doctor --build") as failed:
        built_from(facts)
    assert "\n" not in str(failed.value)
    said = re.search(r"their output: (\S+)\)", str(failed.value))
    assert said is not None
    assert "cc1plus" in Path(said[1]).read_text()
    assert [file.name for file in cache.rglob("*.o")] == ["objects.o"]
    assert find_library((8, 9)) is None
    worker()
    built_from(facts)
    assert find_library((8, 9)) is not None


def test_a_process_that_the_kernel_killed_ran_out_of_memory(
    machine: Machine, toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(build, "WORKER", (str(script),))
    with pytest.raises(UserError, match="the compiler ran out of memory: MAX_JOBS=7"):
        built_from(machine(toolkits=(toolkit,)))


def test_a_lock_that_a_killed_build_left_is_no_reason_to_wait(
    machine: Machine, worker: Callable[..., None], toolkit: Toolkit
) -> None:
    worker()
    facts = machine(toolkits=(toolkit,))
    work = plan_build(facts).folder.with_name(".8.9.objects")
    work.mkdir(parents=True)
    (work / "lock").touch()
    built_from(facts)


def test_two_builds_of_the_same_do_not_mix(machine: Machine, worker: Callable[..., None], toolkit: Toolkit) -> None:
    worker()
    facts = machine(toolkits=(toolkit,))
    work = plan_build(facts).folder.with_name(".8.9.objects")
    work.mkdir(parents=True)
    with (work / "held").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is compiling gsplat"):
            built_from(facts)


def test_a_stop_reaches_the_compilers(
    machine: Machine, toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "print('[1/3] nvcc', flush=True)\nchild.wait()\n"
    )
    monkeypatch.setattr(build, "WORKER", (str(script),))
    facts = machine(toolkits=(toolkit,))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gsplat(plan_build(facts), facts, show=stop)
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    # A busy machine takes its time to deliver a signal.
    deadline = time.monotonic() + 300
    while (alive := _is_alive(stat)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


def _is_alive(stat: Path) -> bool:
    """Not gone, and not dead and waiting to be collected by the process that inherited it."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_training_compiles_first_and_says_so_before(
    machine: Machine,
    worker: Callable[..., None],
    toolkit: Toolkit,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker()
    monkeypatch.setattr(build, "examine_toolchain", lambda: machine(toolkits=(toolkit,)))
    ensure_built(use=lambda: find_library((8, 9)) is not None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("gsplat's kernels: will be compiled on first use, about ")
    assert [line.split("  ")[1] for line in lines[1:]] == ["1/3 files", "2/3 files", "3/3 files"]
    ensure_built(use=lambda: find_library((8, 9)) is not None)
    assert capsys.readouterr().err == ""


def test_a_training_that_cannot_compile_says_why_before_anything_is_loaded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "examine_toolchain", lambda: machine(toolkits=()))
    with pytest.raises(UserError, match="there is no CUDA compiler: pip install 'sdi-gs"):
        ensure_built(use=lambda: False)


def test_what_is_compiled_and_how_is_what_gsplat_does() -> None:
    cuda = compile_gsplat.gsplat_folder() / "cuda"
    files = compile_gsplat.sources(cuda)
    assert {file.suffix for file in files} == {".cu", ".cpp"}
    assert set(files) == {*cuda.glob("csrc/*.cu"), *cuda.glob("csrc/*.cpp"), cuda / "ext.cpp"}
    theirs, ours = (cuda / "_backend.py").read_text(), Path(compile_gsplat.__file__).read_text()
    for text in (
        '"-use_fast_math"',
        '"-Wno-attributes"',
        "include",
        "third_party",
        "csrc/*.cu",
        "csrc/*.cpp",
        "ext.cpp",
    ):
        assert text in theirs
        assert text.strip('"') in ours
    assert 'opt_level = "-O0" if FAST_COMPILE else "-O3"' in theirs
    assert ours.count('"-O3"') == 2
    assert "from gsplat import csrc as _C" in theirs


def test_the_plan_is_for_this_python(machine: Machine) -> None:
    plan = plan_build(machine())
    assert isinstance(plan, BuildPlan)
    assert sys.implementation.cache_tag is not None
    assert plan.folder.parent.name.endswith(sys.implementation.cache_tag)
    assert (plan.folder / LIBRARY).suffix == ".so"
