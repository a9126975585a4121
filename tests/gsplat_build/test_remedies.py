"""Every way in which a machine can lack something, and the line that mends it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from sdi_gs.gsplat_build.remedies import card_problems, explain_failure, forecast, jobs_for, toolchain_problems
from sdi_gs.gsplat_build.toolchain import Card, Toolchain, Toolkit

CUDA_12_TOOLKIT = Toolkit(home="/usr/local/cuda", release="12.8", source="/usr/local/cuda", newest_gcc=14)
CUDA_13_TOOLKIT = Toolkit(home="/usr/local/cuda", release="13.0", source="/usr/local/cuda", newest_gcc=15)
CPU_TORCH: dict[str, Any] = {"torch": "2.13.0+cpu", "torch_cuda": None, "torch_archs": ()}
TORCH_12: dict[str, Any] = {"torch": "2.10.0+cu128", "torch_cuda": "12.8", "toolkits": (CUDA_12_TOOLKIT,)}

Machine = Callable[..., Toolchain]


def test_a_machine_that_lacks_nothing_has_no_problem(machine: Machine) -> None:
    assert toolchain_problems(machine()) == []


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        pytest.param(
            {"toolkits": ()},
            "there is no CUDA compiler",
            "pip install 'sdi-gs[cuda]', which brings NVIDIA's compiler for CUDA 13.0",
            id="no toolkit, CUDA 13",
        ),
        pytest.param(
            {**TORCH_12, "toolkits": ()},
            "there is no CUDA compiler",
            "install the CUDA toolkit 12.8 and set CUDA_HOME to it, or take a torch for CUDA 13",
            id="no toolkit, CUDA 12",
        ),
        pytest.param(
            {"toolkits": (CUDA_12_TOOLKIT,)},
            "nvcc (12.8 in /usr/local/cuda) and torch (CUDA 13.0) disagree",
            "pip install 'sdi-gs[cuda]'",
            id="older toolkit",
        ),
        pytest.param(
            {**TORCH_12, "toolkits": (CUDA_13_TOOLKIT,)},
            "nvcc (13.0 in /usr/local/cuda) and torch (CUDA 12.8) disagree",
            "install the CUDA toolkit 12.8",
            id="newer toolkit",
        ),
        pytest.param({"host_compiler": None}, "no C++ compiler", "apt install g++", id="no g++"),
        pytest.param(
            {"host_compiler": "16.1.0"},
            "nvcc 13.0 takes gcc up to 15, and 16.1.0 is here",
            "CC=gcc-15 CXX=g++-15 sdi-gs doctor --build",
            id="gcc too new",
        ),
        pytest.param({"ninja": False}, "no ninja", "pip install ninja", id="no ninja"),
        pytest.param({"python_headers": False}, "Python's headers", "apt install python3-dev", id="no headers"),
        pytest.param(
            {"max_jobs": 10, "free_memory_gib": 6.5},
            "MAX_JOBS=10 needs up to 22 GiB to compile gsplat, and 6.5 are free",
            "MAX_JOBS=2",
            id="too many jobs",
        ),
        pytest.param(
            {"free_memory_gib": 0.7}, "0.7 are free", "add swap, then MAX_JOBS=1 sdi-gs doctor --build", id="no memory"
        ),
        pytest.param(
            {"other_torch": "2.12.1+cu130 with cpython-312"},
            "gsplat is compiled for another torch (2.12.1",
            "sdi-gs doctor --build",
            id="wheel for another torch",
        ),
        pytest.param(
            {"driver": None, "driver_cuda": None, "cards": (), "torch_archs": ()},
            "an NVIDIA card is here, but no driver answers",
            "580.65.06 or newer for torch's CUDA 13.0; in a container, start it with --gpus all",
            id="no driver",
        ),
        pytest.param(
            {"driver": "550.54.14", "driver_cuda": "12.4", "torch_archs": ()},
            "driver 550.54.14 knows CUDA up to 12.4, older than torch's 13.0",
            "update the driver to 580.65.06 or newer, or pip install 'torch==2.10.*' (CUDA 12)",
            id="driver too old",
        ),
        pytest.param(
            {**TORCH_12, "driver": "470.82", "driver_cuda": "11.4", "torch_archs": ()},
            "driver 470.82 knows CUDA up to 11.4, older than torch's 12.8",
            "525.60.13 or newer",
            id="driver much too old",
        ),
        pytest.param(
            {"cards": (Card(name="GeForce GTX 1080", capability=(6, 1), memory_gib=8.0),)},
            "GeForce GTX 1080 (sm_61) is too old for gsplat: sm_70 is the oldest",
            "--device cpu",
            id="card too old for gsplat",
        ),
        pytest.param(
            {"cards": (Card(name="Tesla V100", capability=(7, 0), memory_gib=16.0),)},
            "torch 2.13.0+cu130 has no code for Tesla V100 (sm_70), only for sm_75, ",
            "--index-url https://download.pytorch.org/whl/cu126, or --device cpu",
            id="card too old for torch",
        ),
        pytest.param(
            {"torch_archs": ("sm_80", "sm_90"), "cards": (Card(name="A card", capability=(12, 0), memory_gib=32.0),)},
            "torch 2.13.0+cu130 has no code for A card (sm_120)",
            "pip install --upgrade torch",
            id="card too new for torch",
        ),
        pytest.param(
            CPU_TORCH,
            "NVIDIA GeForce RTX 4090 is here, but torch 2.13.0+cpu is a CPU build",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130",
            id="CPU torch",
        ),
        pytest.param(
            {**CPU_TORCH, "driver": "550.54.14", "driver_cuda": "12.4"},
            "is a CPU build",
            "https://download.pytorch.org/whl/cu128",
            id="CPU torch, older driver",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_line_that_mends_it(
    changes: dict[str, Any], what: str, fix: str, machine: Machine
) -> None:
    [problem] = toolchain_problems(machine(**changes))
    assert what in problem.what
    assert fix in problem.fix
    assert "\n" not in problem.what + problem.fix


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"library": "/c/csrc.so", "toolkits": (), "ninja": False}, id="compiled code needs no compiler"),
        pytest.param({**TORCH_12, "driver_cuda": "12.2"}, id="a driver of the same major version"),
        pytest.param({"driver_cuda": "14.1"}, id="a newer driver"),
        pytest.param(
            {"torch_archs": ("sm_80", "compute_80"), "cards": (Card(name="n", capability=(12, 0), memory_gib=32.0),)},
            id="code that the driver compiles for a new card",
        ),
        pytest.param({"max_jobs": 1, "free_memory_gib": 2.5}, id="one job that fits"),
        pytest.param(
            {**CPU_TORCH, "cards": (), "driver": None, "driver_cuda": None, "card_on_bus": True}, id="CPU torch alone"
        ),
        pytest.param(
            {"cards": (), "driver": None, "driver_cuda": None, "card_on_bus": False, "toolkits": ()},
            id="PyPI's CUDA torch on a machine without a card",
        ),
    ],
)
def test_what_is_no_problem_is_left_alone(changes: dict[str, Any], machine: Machine) -> None:
    assert toolchain_problems(machine(**changes)) == []


def test_several_lacks_are_told_at_once(machine: Machine) -> None:
    problems = toolchain_problems(machine(toolkits=(), ninja=False, host_compiler=None))
    assert len(problems) == 3


def test_each_of_two_cards_is_judged(machine: Machine) -> None:
    old = Card(name="GeForce GTX 1080", capability=(6, 1), memory_gib=8.0)
    two = machine(cards=(*machine().cards, old))
    [problem] = toolchain_problems(two)
    assert "GTX 1080" in problem.what
    assert card_problems(two) == [], "the other can be used"
    assert "and sm_89" in forecast(two)
    assert len(toolchain_problems(machine(cards=(*machine().cards, old), ninja=False))) == 2


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"driver_cuda": "12.4"}, "older than torch's 13.0"),
        ({"cards": (Card(name="GTX 1080", capability=(6, 1), memory_gib=8.0),)}, "too old for gsplat"),
        (CPU_TORCH, "is a CPU build"),
    ],
)
def test_why_no_card_can_be_used(changes: dict[str, Any], what: str, machine: Machine) -> None:
    [problem] = card_problems(machine(**changes))
    assert what in problem.what


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [({}, 8), ({"free_memory_gib": 5.0}, 2), ({"free_memory_gib": 0.5}, 1), ({"cores": 2}, 2), ({"max_jobs": 5}, 5)],
)
def test_as_many_files_at_once_as_memory_and_cores_allow(changes: dict[str, Any], jobs: int, machine: Machine) -> None:
    assert jobs_for(machine(**changes)) == jobs


def test_the_toolkit_of_torchs_own_version_is_taken_before_an_earlier_one_of_its_major_version(
    machine: Machine,
) -> None:
    newer = Toolkit(home="/usr/local/cuda-13.2", release="13.2", source="CUDA_HOME", newest_gcc=15)
    assert machine(toolkits=(newer, CUDA_12_TOOLKIT, CUDA_13_TOOLKIT)).toolkit == CUDA_13_TOOLKIT
    assert machine(toolkits=(CUDA_12_TOOLKIT, newer)).toolkit == newer
    assert machine(toolkits=(CUDA_12_TOOLKIT,)).toolkit is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "will be compiled on first use, about "),
        ({}, "because no compiled code fits torch 2.13.0+cu130 on Python 3.12 and sm_89; ahead of time: sdi-gs doctor"),
        ({"toolkits": ()}, "cannot be compiled yet: no compiled code fits"),
        ({"library": "/c/csrc.so"}, "compiled: /c/csrc.so"),
        ({"cards": ()}, "not used: no NVIDIA card answers"),
        (CPU_TORCH, "not used: torch 2.13.0+cpu is a CPU build"),
    ],
)
def test_what_will_happen_is_told_with_its_reason(changes: dict[str, Any], said: str, machine: Machine) -> None:
    assert said in forecast(machine(**changes))


def test_fewer_cores_take_longer(machine: Machine) -> None:
    minutes = [int(forecast(machine(cores=cores)).split("about ")[1].split()[0]) for cores in (1, 8)]
    assert minutes[0] > minutes[1] >= 1


@pytest.mark.parametrize(
    ("output", "what", "fix"),
    [
        ("c++: fatal error: Killed signal terminated program cc1plus", "ran out of memory", "MAX_JOBS=7 sdi-gs doctor"),
        ("nvcc error   : 'cicc' died due to signal 9 (Kill signal)", "ran out of memory", "MAX_JOBS=7"),
        ("fatal error: error writing to x.s: No space left on device", "the disk is full", "XDG_CACHE_HOME"),
        ("#error -- unsupported GNU version! gcc versions later than 15", "does not accept gcc 13.3.0", "CC=gcc-13"),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_70'", "architecture", "--arch"),
        ("pyconfig.h:3: fatal error: Python.h: No such file or directory", "headers are missing", "python3-dev"),
        (
            "The detected CUDA version (12.8) mismatches the version that was used to compile",
            "of different CUDA versions",
            "sdi-gs[cuda]",
        ),
        ("/usr/bin/ld: cannot find -lcudart: No such file", "toolkit is not complete", "sdi-gs[cuda]"),
        ("a\nx.cu(3): error: no such thing\nb", "the compiler says: x.cu(3): error: no such thing", "docs/gpu.md"),
        ("", "no reason was given", "docs/gpu.md"),
    ],
)
def test_a_failed_build_is_explained(output: str, what: str, fix: str, machine: Machine) -> None:
    problem = explain_failure(output, machine())
    assert what in problem.what
    assert fix in problem.fix


def test_the_extra_that_mends_a_missing_compiler_brings_all_of_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    [requirement] = [Requirement(line) for line in project["optional-dependencies"]["cuda"]]
    assert requirement.name == "cuda-toolkit"
    # The driver program, the headers that it includes, the code generator, the templates that gsplat sorts with.
    assert {"nvcc", "crt", "nvvm", "cccl", "cudart"} == requirement.extras
    assert requirement.specifier.contains("13.0.3.0")
    assert not requirement.specifier.contains("12.8.1")
