"""Facts about the toolchain for gsplat's CUDA code: card, driver, toolkit, compilers, memory, compiled library.

Nothing is compiled and no CUDA context is created. ``remedies`` interprets the facts.
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
"""gsplat's kernels use labeled partitions of a warp, which older cards lack."""
SECONDS_TO_ANSWER = 20.0
"""Timeout of a program's version query; after it, the program counts as missing."""

SYSTEM_TOOLKIT = Path("/usr/local/cuda")

Source = Literal["CUDA_HOME", "PATH", "/usr/local/cuda", "PyPI"]


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """One CUDA compiler with its headers."""

    home: str
    """CUDA_HOME for this compiler."""
    release: str
    """Release of nvcc, such as 13.0."""
    source: Source
    """Location; "PyPI" for NVIDIA's Python packages."""
    newest_gcc: int | None = None
    """Newest major version of gcc that its headers accept; None if they state none."""

    @property
    def major(self) -> int:
        return int(self.release.partition(".")[0])


@dataclass(frozen=True, kw_only=True)
class Card:
    """One NVIDIA card, as reported by its driver."""

    name: str
    capability: Capability
    memory_gib: float

    def is_known_to(self, archs: tuple[str, ...]) -> bool:
        """Return whether torch has code for the card, as far as torch reports it.

        Machine code (sm_80) also runs on later minor versions; PTX (compute_80) is compiled for any later card.
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
    """All facts about the toolchain."""

    python: str
    torch: str
    torch_cuda: str | None
    """CUDA runtime of torch's build; None for a CPU build."""
    torch_archs: tuple[str, ...]
    """Architectures in torch's machine code, such as sm_80; empty if torch finds no card."""
    driver: str | None
    """The driver's version, such as 580.65.06; None without a driver."""
    driver_cuda: str | None
    """Newest CUDA runtime that the driver supports."""
    cards: tuple[Card, ...]
    """Cards that the driver reports, usable by torch or not."""
    card_on_bus: bool
    """Whether the machine has an NVIDIA card, with or without a driver."""
    toolkits: tuple[Toolkit, ...]
    """In torch's search order, NVIDIA's Python packages last."""
    host_compiler: str | None
    """Version of the C++ compiler; None without one."""
    ninja: bool
    python_headers: bool
    free_memory_gib: float
    """Available main memory."""
    cores: int
    max_jobs: int | None
    """The user's MAX_JOBS; None if not set."""
    gsplat: str
    library: str | None
    """gsplat's compiled library for this torch, this Python and every usable card; None without one."""
    other_torch: str | None
    """Version of torch that an existing library was compiled for, if it differs."""

    @property
    def usable_cards(self) -> tuple[Card, ...]:
        """Cards that both gsplat and torch support."""
        return usable(self.cards, self.torch_archs)

    @property
    def toolkit(self) -> Toolkit | None:
        """The toolkit to compile with: of torch's CUDA version, else of its major version; None if none fits."""
        fitting = [kit for kit in self.toolkits if kit.major == major(self.torch_cuda)]
        return next((kit for kit in fitting if kit.release == self.torch_cuda), fitting[0] if fitting else None)


def usable(cards: Iterable[Card], torch_archs: tuple[str, ...]) -> tuple[Card, ...]:
    """Return the cards that both gsplat and torch support."""
    return tuple(card for card in cards if card.capability >= OLDEST_CAPABILITY and card.is_known_to(torch_archs))


def major(version: str | None) -> int | None:
    """Return the first number of a version."""
    return int(version.partition(".")[0]) if version else None


def examine_toolchain() -> Toolchain:
    """Gather all facts; a second or two, because programs are run for their versions."""
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
    """Return the driver's version and its cards; (None, []) if nvidia-smi is missing or finds no driver."""
    fields = "driver_version,name,compute_cap,memory.total"
    found = output_of(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"])
    rows = [[cell.strip() for cell in row] for row in csv.reader((found or "").splitlines())]
    cards = [
        Card(name=row[1], capability=(int(cap[0]), int(cap[1])), memory_gib=float(row[3]) / 1024)
        for row in rows
        if len(row) == 4 and (cap := row[2].split("."))[0].isdigit() and len(cap) == 2 and row[3].isdigit()
    ]
    return (rows[0][0] if rows and len(rows[0]) == 4 else None), cards


def torch_cards() -> list[Card]:
    """Return the cards that torch can use."""
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        Card(name=one.name, capability=(one.major, one.minor), memory_gib=one.total_memory / 2**30) for one in found
    ]


def driver_cuda_version(library: str = "libcuda.so.1") -> str | None:
    """Return the newest CUDA runtime that the installed driver supports; None without a driver."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def card_on_bus(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Return whether the machine has an NVIDIA display controller or accelerator."""
    for device in devices.glob("*"):
        vendor, kind = device / "vendor", device / "class"
        if vendor.is_file() and kind.is_file():
            if vendor.read_text().strip() == "0x10de" and kind.read_text().startswith("0x03"):
                return True
    return False


def find_toolkits() -> list[Toolkit]:
    """Return every CUDA compiler with its headers; nvcc without them cannot compile."""
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
            found = re.search(r"release (\d+\.\d+)", output_of([str(home / "bin/nvcc"), "--version"]) or "")
            if found:
                newest = newest_gcc(home)
                toolkits.append(Toolkit(home=str(home), release=found[1], source=source, newest_gcc=newest))
    return toolkits


def newest_gcc(home: Path) -> int | None:
    """Read the newest accepted gcc from the toolkit's headers."""
    header = home / "include/crt/host_config.h"
    found = re.search(r"__GNUC__ > (\d+)", header.read_text(errors="replace")) if header.is_file() else None
    return int(found[1]) if found else None


def pypi_cuda_folders() -> list[Path]:
    """Return the folders of NVIDIA's Python packages of CUDA 13 and later: nvidia/cu13 on the import path."""
    folders = [folder for entry in sys.path if entry for folder in Path(entry, "nvidia").glob("cu[0-9]*")]
    return sorted({folder for folder in folders if folder.is_dir()}, reverse=True)


def ninja_folder() -> Path | None:
    """Return the folder of the ninja program: on the path, or beside this Python, where its package installs it."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("ninja", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    return Path(found).parent if found else None


def host_compiler_version() -> str | None:
    """Return the version of the C++ compiler that torch would use."""
    found = output_of([os.environ.get("CXX", "c++"), "-dumpfullversion", "-dumpversion"])
    return found.strip() if found else None


def free_memory_gib(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the available memory of the machine, or of the container if that is less."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text()) if meminfo.is_file() else None
    free = int(found[1]) * 1024 if found else 0
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and (cap := limit.read_text().strip()).isdigit():
        free = min(free, int(cap) - int(used.read_text()))
    return free / 2**30


def output_of(command: list[str]) -> str | None:
    """Return a program's output; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_ANSWER, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
