"""Facts about what gsplat's CUDA code needs: card, driver, toolkit, compilers, memory, and a library already made.

Nothing is compiled and no CUDA context is made. What the facts mean is said in ``remedies``.
"""

from __future__ import annotations

import csv
import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from sdi_gs.rasterize.gsplat_library import Capability, find_library, other_torch

OLDEST_CAPABILITY = (7, 0)
"""gsplat's kernels group the threads of a warp by label, which older cards cannot."""
SECONDS_TO_ANSWER = 20.0
"""A program that says nothing about itself for so long is taken for absent."""

SYSTEM_TOOLKIT = Path("/usr/local/cuda")

Source = Literal["CUDA_HOME", "PATH", "/usr/local/cuda", "PyPI"]


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """One CUDA compiler with its headers."""

    home: str
    """What CUDA_HOME must be for it."""
    release: str
    """Of nvcc, such as 13.0."""
    source: Source
    """Where it was found; PyPI means NVIDIA's Python packages."""
    newest_gcc: int | None = None
    """The newest major version of gcc that its headers accept; None where they do not say."""

    @property
    def major(self) -> int:
        return int(self.release.partition(".")[0])


@dataclass(frozen=True, kw_only=True)
class Card:
    """One NVIDIA card, as its driver tells."""

    name: str
    capability: Capability
    memory_gib: float

    def is_known_to(self, archs: tuple[str, ...]) -> bool:
        """Whether torch has code for it, as far as torch tells.

        Machine code (sm_80) runs on later minor versions of its major one, compute_80 is compiled for any later card.
        """
        for arch in archs:
            kind, _, digits = arch.partition("_")
            version = divmod(int(re.sub(r"\D", "", digits) or 0), 10)
            if kind == "compute" and version <= self.capability:
                return True
            if kind == "sm" and version[0] == self.capability[0] and version[1] <= self.capability[1]:
                return True
        return not archs


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """All facts."""

    python: str
    torch: str
    torch_cuda: str | None
    """The CUDA runtime that torch brings; None for a CPU build."""
    torch_archs: tuple[str, ...]
    """What torch has machine code for, such as sm_80; empty where torch sees no card."""
    driver: str | None
    """The driver's version, such as 580.65.06; None where there is no driver."""
    driver_cuda: str | None
    """The newest CUDA runtime that the driver knows."""
    cards: tuple[Card, ...]
    """As the driver tells them, whether torch can use them or not."""
    card_on_bus: bool
    """Whether the machine has an NVIDIA card at all, driver or not."""
    toolkits: tuple[Toolkit, ...]
    """In the order in which torch looks, NVIDIA's Python packages last."""
    host_compiler: str | None
    """Version of the C++ compiler; None where there is none."""
    ninja: bool
    python_headers: bool
    free_memory_gib: float
    """Main memory that may be taken now."""
    cores: int
    max_jobs: int | None
    """The user's MAX_JOBS; None where it is not set."""
    gsplat: str
    library: str | None
    """Compiled code of gsplat that fits this torch, this Python and every usable card; None where there is none."""
    other_torch: str | None
    """The torch that compiled code is here for instead."""

    @property
    def usable_cards(self) -> tuple[Card, ...]:
        """Those that gsplat and torch both have code for."""
        return usable(self.cards, self.torch_archs)

    @property
    def toolkit(self) -> Toolkit | None:
        """The toolkit to compile with: of torch's CUDA version, else of its major version; None where none fits."""
        fitting = [kit for kit in self.toolkits if kit.major == major(self.torch_cuda)]
        return next((kit for kit in fitting if kit.release == self.torch_cuda), fitting[0] if fitting else None)


def usable(cards: Iterable[Card], torch_archs: tuple[str, ...]) -> tuple[Card, ...]:
    """The cards that are neither too old for gsplat nor unknown to torch."""
    return tuple(card for card in cards if card.capability >= OLDEST_CAPABILITY and card.is_known_to(torch_archs))


def major(version: str | None) -> int | None:
    """The first number of a version."""
    return int(version.partition(".")[0]) if version else None


def examine_toolchain() -> Toolchain:
    """Gather all facts; takes a second or two, for the programs that are asked for their version."""
    import torch

    driver, cards = ask_nvidia_smi()
    if not cards and torch.cuda.is_available():
        # A container can have the driver without the program.
        cards = torch_cards()
    cuda_of_driver = driver_cuda_version()
    archs = tuple(torch.cuda.get_arch_list())
    libraries = [find_library(capability) for capability in {card.capability for card in usable(cards, archs)}]
    return Toolchain(
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        torch_archs=archs,
        driver=driver or (f"for CUDA {cuda_of_driver}" if cuda_of_driver else None),
        driver_cuda=cuda_of_driver,
        cards=tuple(cards),
        card_on_bus=bool(cards) or card_on_bus(),
        toolkits=tuple(find_toolkits()),
        host_compiler=host_compiler_version(),
        ninja=ninja_folder() is not None,
        python_headers=Path(sysconfig.get_path("include"), "Python.h").is_file(),
        free_memory_gib=free_memory_gib(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        max_jobs=int(jobs) if (jobs := os.environ.get("MAX_JOBS", "")).isdigit() else None,
        gsplat=metadata.version("gsplat"),
        library=str(libraries[0]) if libraries and all(libraries) else None,
        other_torch=other_torch(),
    )


def ask_nvidia_smi() -> tuple[str | None, list[Card]]:
    """The driver's version and its cards; (None, []) where the program is missing or finds no driver."""
    fields = "driver_version,name,compute_cap,memory.total"
    said = output_of(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    rows = [[cell.strip() for cell in row] for row in csv.reader((said or "").splitlines())]
    cards = [
        Card(name=row[1], capability=(int(cap[0]), int(cap[1])), memory_gib=float(row[3]) / 1024)
        for row in rows
        if len(row) == 4 and (cap := row[2].split("."))[0].isdigit() and len(cap) == 2 and row[3].isdigit()
    ]
    return (rows[0][0] if rows and len(rows[0]) == 4 else None), cards


def torch_cards() -> list[Card]:
    """The cards that torch can use."""
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        Card(name=one.name, capability=(one.major, one.minor), memory_gib=one.total_memory / 2**30) for one in found
    ]


def driver_cuda_version(library: str = "libcuda.so.1") -> str | None:
    """The newest CUDA runtime that the installed driver knows; None where there is no driver."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def card_on_bus(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether an NVIDIA display controller or accelerator is plugged in."""
    for device in devices.glob("*"):
        vendor, kind = device / "vendor", device / "class"
        if vendor.is_file() and kind.is_file():
            if vendor.read_text().strip() == "0x10de" and kind.read_text().startswith("0x03"):
                return True
    return False


def find_toolkits() -> list[Toolkit]:
    """Every CUDA compiler that has its headers beside it; a bare nvcc without them compiles nothing."""
    places: list[tuple[Source, Path]] = []
    chosen = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if chosen:
        places.append(("CUDA_HOME", Path(chosen)))
    found = shutil.which("nvcc")
    if found:
        places.append(("PATH", Path(found).parents[1]))
        places.append(("PATH", Path(found).resolve().parents[1]))
    places.append(("/usr/local/cuda", SYSTEM_TOOLKIT))
    for home in pypi_cuda_folders():
        places.append(("PyPI", home))
    toolkits: list[Toolkit] = []
    for source, home in places:
        if (home / "include/cuda_runtime.h").is_file() and str(home) not in {kit.home for kit in toolkits}:
            said = re.search(r"release (\d+\.\d+)", output_of([str(home / "bin/nvcc"), "--version"]) or "")
            if said:
                newest = newest_gcc(home)
                toolkits.append(Toolkit(home=str(home), release=said[1], source=source, newest_gcc=newest))
    return toolkits


def newest_gcc(home: Path) -> int | None:
    """What the toolkit's headers say of gcc before they refuse it."""
    header = home / "include/crt/host_config.h"
    said = re.search(r"__GNUC__ > (\d+)", header.read_text(errors="replace")) if header.is_file() else None
    return int(said[1]) if said else None


def pypi_cuda_folders() -> list[Path]:
    """Where NVIDIA's Python packages of CUDA 13 and later put themselves: nvidia/cu13 on the import path."""
    folders = [folder for entry in sys.path if entry for folder in Path(entry, "nvidia").glob("cu[0-9]*")]
    return sorted({folder for folder in folders if folder.is_dir()}, reverse=True)


def ninja_folder() -> Path | None:
    """The folder of the ninja program: on the path, or beside this Python, where its package puts it."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("ninja", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    return Path(found).parent if found else None


def host_compiler_version() -> str | None:
    """Version of the C++ compiler that torch would take."""
    said = output_of([os.environ.get("CXX", "c++"), "-dumpfullversion", "-dumpversion"])
    return said.strip() if said else None


def free_memory_gib(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> float:
    """What the machine has left, or the container if that is less."""
    said = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.is_file() else None
    free = int(said[1]) * 1024 if said else 0
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (cap := limit.read_text().strip()).isdigit():
        free = min(free, int(cap) - int(used.read_text()))
    return free / 2**30


def output_of(command: list[str]) -> str | None:
    """What a program prints; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_ANSWER, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
