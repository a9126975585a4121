"""Facts, read from programs and files that tell them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdi_gs.gsplat_build import toolchain
from sdi_gs.gsplat_build.toolchain import (
    Card,
    ask_nvidia_smi,
    card_on_bus,
    driver_cuda_version,
    examine_toolchain,
    find_toolkits,
    free_memory_gib,
    host_compiler_version,
    ninja_folder,
    output_of,
    pypi_cuda_folders,
)

Program = Callable[..., Path]

NVCC = """echo 'nvcc: NVIDIA (R) Cuda compiler driver'
echo 'Cuda compilation tools, release {release}, V{release}.88'"""


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No toolkit of this machine's own is seen."""
    for name in ("CUDA_HOME", "CUDA_PATH", "MAX_JOBS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolchain, "SYSTEM_TOOLKIT", Path("/nowhere"))
    monkeypatch.setattr(toolchain, "SECONDS_TO_ANSWER", 600.0)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not Path(entry, "nvidia").exists()])


def toolkit(program: Program, home: Path, release: str, *, headers: bool = True) -> Path:
    program("nvcc", NVCC.format(release=release), home / "bin")
    if headers:
        (home / "include/crt").mkdir(parents=True)
        (home / "include/cuda_runtime.h").touch()
        (home / "include/crt/host_config.h").write_text("#if __GNUC__ > 14\n#error -- unsupported GNU version!\n")
    return home


def test_driver_and_cards_are_read_from_nvidia_smi(program: Program) -> None:
    program(
        "nvidia-smi",
        """case "$*" in *driver_version,name,compute_cap,memory.total*noheader*) ;; *) exit 1;; esac
echo '580.95.05, NVIDIA GeForce RTX 4090, 8.9, 24564'
echo '580.95.05, NVIDIA RTX A6000, 8.6, 49140'""",
    )
    driver, cards = ask_nvidia_smi()
    assert driver == "580.95.05"
    assert cards == [
        Card(name="NVIDIA GeForce RTX 4090", capability=(8, 9), memory_gib=24564 / 1024),
        Card(name="NVIDIA RTX A6000", capability=(8, 6), memory_gib=49140 / 1024),
    ]


@pytest.mark.parametrize(
    "script",
    [
        "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
        "echo 'No devices were found'",
        "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2",
    ],
    ids=["no driver", "no devices", "old program"],
)
def test_an_nvidia_smi_that_finds_nothing_tells_of_no_card(script: str, program: Program) -> None:
    program("nvidia-smi", script)
    assert ask_nvidia_smi() == (None, [])


def test_without_nvidia_smi_torch_is_asked_for_its_cards(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("nvidia-smi", "exit 127")
    properties = SimpleNamespace(name="NVIDIA A100", major=8, minor=0, total_memory=40 * 2**30)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_80"])
    facts = examine_toolchain()
    assert facts.cards == (Card(name="NVIDIA A100", capability=(8, 0), memory_gib=40.0),)
    assert facts.usable_cards == facts.cards


def test_the_cuda_version_of_the_driver_is_asked_of_its_library(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text("int cuDriverGetVersion(int *version) { *version = 12080; return 0; }\n")
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert driver_cuda_version(str(library)) == "12.8"
    assert driver_cuda_version(str(tmp_path / "libnothing.so.1")) is None


def test_a_driver_that_refuses_has_no_version(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text("int cuDriverGetVersion(int *version) { return 34; }\n")
    library = tmp_path / "libcuda_stub.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert driver_cuda_version(str(library)) is None


@pytest.mark.parametrize(
    ("vendor", "kind", "is_card"),
    [
        ("0x10de", "0x030000", True),
        ("0x10de", "0x030200", True),
        ("0x10de", "0x040300", False),
        ("0x8086", "0x030000", False),
    ],
    ids=["graphics", "accelerator", "its sound", "another maker"],
)
def test_a_card_without_a_driver_is_seen_on_the_bus(vendor: str, kind: str, is_card: bool, tmp_path: Path) -> None:
    device = tmp_path / "0000:01:00.0"
    device.mkdir()
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert card_on_bus(tmp_path) is is_card


def test_toolkits_are_found_in_torchs_order_and_pypis_last(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = toolkit(program, tmp_path / "chosen", "12.4")
    on_path = toolkit(program, tmp_path / "on_path", "12.8")
    system = toolkit(program, tmp_path / "system", "13.1")
    pypi = toolkit(program, tmp_path / "site/nvidia/cu13", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(chosen))
    monkeypatch.setenv("PATH", f"{on_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(toolchain, "SYSTEM_TOOLKIT", system)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = [(kit.home, kit.release, kit.source) for kit in find_toolkits()]
    assert found == [
        (str(chosen), "12.4", "CUDA_HOME"),
        (str(on_path), "12.8", "PATH"),
        (str(system), "13.1", "/usr/local/cuda"),
        (str(pypi), "13.0", "PyPI"),
    ]
    assert {kit.newest_gcc for kit in find_toolkits()} == {14}


def test_a_toolkit_named_twice_is_found_once(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = toolkit(program, tmp_path / "cuda", "13.0")
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setattr(toolchain, "SYSTEM_TOOLKIT", home)
    assert len([kit for kit in find_toolkits() if kit.home == str(home)]) == 1


def test_an_nvcc_without_headers_is_no_toolkit_but_what_it_points_to_is(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = toolkit(program, tmp_path / "cuda", "13.0")
    bare = toolkit(program, tmp_path / "bare", "13.0", headers=False)
    monkeypatch.setenv("PATH", f"{bare}/bin:/usr/bin:/bin")
    assert find_toolkits() == []
    (bare / "bin/nvcc").unlink()
    (bare / "bin/nvcc").symlink_to(home / "bin/nvcc")
    assert [(kit.home, kit.source) for kit in find_toolkits()] == [(str(home), "PATH")]


def test_the_compiler_of_pypis_cuda_12_packages_which_hold_no_nvcc_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia/cuda_nvcc/bin").mkdir(parents=True)
    (tmp_path / "nvidia/cuda_nvcc/bin/ptxas").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert pypi_cuda_folders() == []


def test_memory_is_the_machines_or_the_containers_if_that_is_less(tmp_path: Path) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable:   {16 * 2**20} kB\n")
    assert free_memory_gib(meminfo, group) == 16
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("0\n")
    assert free_memory_gib(meminfo, group) == 16
    (group / "memory.max").write_text(f"{8 * 2**30}\n")
    (group / "memory.current").write_text(f"{3 * 2**30}\n")
    assert free_memory_gib(meminfo, group) == 5


def test_the_host_compiler_is_asked_and_cxx_wins(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("c++", "echo 12.2.0")
    other = program("g++-14", "echo 14.1.0")
    assert host_compiler_version() == "12.2.0"
    monkeypatch.setenv("CXX", str(other))
    assert host_compiler_version() == "14.1.0"
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert host_compiler_version() is None


def test_ninja_is_found_beside_this_python_too(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = program("ninja", "", tmp_path / "env/bin")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env/bin/python"))
    assert ninja_folder() == beside.parent
    beside.unlink()
    assert ninja_folder() is None


def test_a_program_that_hangs_fails_or_is_missing_says_nothing(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "SECONDS_TO_ANSWER", 600.0)
    assert output_of([str(program("failing", "echo something; exit 1"))]) is None
    assert output_of(["/nowhere/program"]) is None
    assert output_of([str(program("working", "echo something"))]) == "something\n"
    monkeypatch.setattr(toolchain, "SECONDS_TO_ANSWER", 0.2)
    assert output_of([str(program("slow", "echo something; exec sleep 600"))]) is None


def test_this_machine_is_examined_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "3")
    facts = examine_toolchain()
    assert facts.gsplat == "1.5.3"
    assert facts.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert facts.free_memory_gib > 0.1
    assert facts.max_jobs == 3
