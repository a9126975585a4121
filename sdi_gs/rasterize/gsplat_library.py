"""Find gsplat's compiled CUDA code and load it, so that no compiler is needed at run time.

gsplat imports a module ``gsplat.csrc``. If it is missing, gsplat compiles it without a message, needs nvcc for that,
and repeats it whenever torch or the list of architectures changes. This module keeps one library per gsplat, torch,
Python and list of architectures, and registers it under that name before gsplat imports it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

from sdi_gs.files import user_cache_folder

MODULE = "gsplat.csrc"
"""The module that gsplat 1.5.3 imports (``gsplat/cuda/_backend.py``)."""
LIBRARY = f"csrc{EXTENSION_SUFFIXES[-1]}"

Capability = tuple[int, int]
"""A card's compute capability: (8, 9) is sm_89."""


def library_root() -> Path:
    """Return the folder of all libraries compiled ahead of time."""
    return user_cache_folder() / "sdi-gs" / "gsplat"


def library_key() -> str:
    """Return a folder name for this gsplat, torch and Python: each combination needs a library of its own."""
    python = f"{sys.implementation.cache_tag}"
    return f"gsplat-{metadata.version('gsplat')}-torch-{torch.__version__}-{python}"


def library_folder(archs: Iterable[str]) -> Path:
    """Return the folder for the library of some architectures, such as "8.9"."""
    return library_root() / library_key() / "_".join(archs)


def covers(archs: Iterable[str], capability: Capability) -> bool:
    """Return whether code for these architectures runs on a card.

    Machine code runs on the same major version with the same or a later minor version; that of "9.0a" on 9.0 only.
    The driver compiles "+PTX" for any later card.
    """
    for arch in archs:
        number = arch.removesuffix("+PTX")
        major, minor = (int(part) for part in number.rstrip("abcdefghijklmnopqrstuvwxyz").split("."))
        if number[-1].isalpha():
            if (major, minor) == capability:
                return True
        elif (major == capability[0] and minor <= capability[1]) or (
            arch.endswith("+PTX") and (major, minor) <= capability
        ):
            return True
    return False


def find_library(capability: Capability) -> Path | None:
    """Return a library of gsplat's CUDA code for this torch and Python that runs on a card, or None.

    Searched in this order: libraries compiled ahead of time, gsplat's package (a wheel with compiled code), and the
    library that gsplat compiled on first use, if it was built against this torch.
    """
    for folder in sorted((library_root() / library_key()).glob("*")):
        if (folder / LIBRARY).is_file() and covers(folder.name.split("_"), capability):
            return folder / LIBRARY
    packaged = packaged_library()
    if packaged is not None and _torch_of_wheel() in (None, _torch_tag()):
        return packaged
    return _jit_library(capability)


def packaged_library() -> Path | None:
    """Return the compiled code inside gsplat's package, or None: PyPI's wheel has none."""
    spec = importlib.util.find_spec("gsplat")
    if spec is None or spec.origin is None:
        return None
    return next((file for file in Path(spec.origin).parent.glob("csrc*.so")), None)


def other_torch() -> str | None:
    """Return the version of another torch that the compiled code was built for.

    None if some code was built for this torch, or if no compiled code exists.
    """
    wheel = _torch_of_wheel()
    if wheel is not None and wheel != _torch_tag():
        return wheel
    ours, prefix = library_key(), f"gsplat-{metadata.version('gsplat')}-torch-"
    names = sorted(folder.parent.name for folder in library_root().glob(f"{prefix}*/*") if (folder / LIBRARY).exists())
    if not names or ours in names:
        return None
    return names[-1].removeprefix(prefix).replace("-", " with ", 1)


def use_library(device: torch.device | None = None) -> bool:
    """Load the library that fits a card as gsplat's compiled code; return False if none fits and gsplat will compile.

    Raises:
        ImportError: The library does not load.
    """
    if MODULE in sys.modules:
        return True
    path = find_library(torch.cuda.get_device_capability(device))
    if path is None:
        return False
    # Python derives the library's initialisation function, PyInit_<name>, from the last part of the module's name.
    name = MODULE if path.name.startswith("csrc") else path.name.removesuffix(".so")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[MODULE] = module
    return True


def _torch_of_wheel() -> str | None:
    """Return the tag, such as "pt24cu121", of a wheel from gsplat's own index; None for PyPI's wheel."""
    tag = metadata.version("gsplat").partition("+")[2]
    return tag if tag.startswith("pt") else None


def _torch_tag() -> str:
    major, minor = torch.__version__.split(".")[:2]
    return f"pt{major}{minor}cu{(torch.version.cuda or '').replace('.', '')}"


def _jit_library(capability: Capability) -> Path | None:
    """Return the library that gsplat compiled on first use, or None.

    Its build file must name this torch's folder and the card's architecture, and it must be newer than this torch.
    """
    folder = jit_folder()
    library, script = folder / "gsplat_cuda.so", folder / "build.ninja"
    if not library.is_file() or not script.is_file():
        return None
    torch_folder, text = Path(torch.__path__[0]), script.read_text()
    archs = [f"{digits[:-1]}.{digits[-1]}" for digits in re.findall(r"code=sm_(\d+)", text)]
    archs += [f"{digits[:-1]}.{digits[-1]}+PTX" for digits in re.findall(r"code=compute_(\d+)", text)]
    fresh = library.stat().st_mtime >= (torch_folder / "version.py").stat().st_mtime
    return library if fresh and str(torch_folder / "include") in text and covers(archs, capability) else None


def jit_folder() -> Path:
    """Return the folder where torch keeps the code that gsplat compiles on first use."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    if chosen:
        return Path(chosen) / "gsplat_cuda"
    cuda = (torch.version.cuda or "cpu").replace(".", "")
    tag = f"py{sys.version_info.major}{sys.version_info.minor}_{'cu' if torch.version.cuda else ''}{cuda}"
    return user_cache_folder() / "torch_extensions" / tag / "gsplat_cuda"
