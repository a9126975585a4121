"""Where gsplat's compiled CUDA code lies, and its use without a compiler at hand.

gsplat looks for a module ``gsplat.csrc`` and, where there is none, compiles one in silence, each time that torch or
the list of architectures has changed, and only where it finds nvcc again. Here a library is kept for each gsplat,
torch, Python and list of architectures, and put under that name before gsplat looks.
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

MODULE = "gsplat.csrc"
"""What gsplat 1.5.3 imports (``gsplat/cuda/_backend.py``)."""
LIBRARY = f"csrc{EXTENSION_SUFFIXES[-1]}"

Capability = tuple[int, int]
"""A card's compute capability: (8, 9) is sm_89."""


def library_root() -> Path:
    """The folder of all libraries that were compiled ahead of time."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sdi-gs" / "gsplat"


def library_key() -> str:
    """What a library is good for, architectures left out: another torch or Python needs another."""
    python = f"{sys.implementation.cache_tag}"
    return f"gsplat-{metadata.version('gsplat')}-torch-{torch.__version__}-{python}"


def library_folder(archs: Iterable[str]) -> Path:
    """Where the library for some architectures, such as "8.9", belongs."""
    return library_root() / library_key() / "_".join(archs)


def covers(archs: Iterable[str], capability: Capability) -> bool:
    """Whether code for these architectures runs on a card.

    Machine code runs on later minor versions of its major one; "+PTX" is compiled by the driver for any later card.
    """
    for arch in archs:
        major, minor = (int(part) for part in arch.removesuffix("+PTX").split("."))
        if (major == capability[0] and minor <= capability[1]) or (
            arch.endswith("+PTX") and (major, minor) <= capability
        ):
            return True
    return False


def find_library(capability: Capability) -> Path | None:
    """A library of gsplat's CUDA code for this torch and this Python that runs on a card; None where there is none.

    Looked for in this order: made ahead of time, inside gsplat's package (a wheel with compiled code), and what gsplat
    once compiled by itself, if that was against this very torch.
    """
    for folder in sorted((library_root() / library_key()).glob("*")):
        if (folder / LIBRARY).is_file() and covers(folder.name.split("_"), capability):
            return folder / LIBRARY
    packaged = packaged_library()
    if packaged is not None and _torch_of_wheel() in (None, _torch_tag()):
        return packaged
    return _jit_library(capability)


def packaged_library() -> Path | None:
    """The compiled code inside gsplat's own package, which PyPI's wheel has not."""
    spec = importlib.util.find_spec("gsplat")
    if spec is None or spec.origin is None:
        return None
    return next((file for file in Path(spec.origin).parent.glob("csrc*.so")), None)


def other_torch() -> str | None:
    """The torch that compiled code of this gsplat is here for, where it is not this torch; None where it is this."""
    wheel = _torch_of_wheel()
    if wheel is not None and wheel != _torch_tag():
        return wheel
    ours, prefix = library_key(), f"gsplat-{metadata.version('gsplat')}-torch-"
    names = sorted(folder.parent.name for folder in library_root().glob(f"{prefix}*/*") if (folder / LIBRARY).exists())
    if not names or ours in names:
        return None
    return names[-1].removeprefix(prefix).replace("-", " for ")


def use_library(device: torch.device | None = None) -> bool:
    """Hand the library that fits a card to gsplat; False where there is none, and gsplat will compile.

    Raises:
        ImportError: The library does not load.
    """
    if MODULE in sys.modules:
        return True
    path = find_library(torch.cuda.get_device_capability(device))
    if path is None:
        return False
    # The last part of the module's name is that of the function that initialises it.
    name = MODULE if path.name.startswith("csrc") else path.name.removesuffix(".so")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[MODULE] = module
    return True


def _torch_of_wheel() -> str | None:
    """The tag "pt24cu121" of a wheel from gsplat's own index; None for PyPI's, which has no compiled code."""
    tag = metadata.version("gsplat").partition("+")[2]
    return tag if tag.startswith("pt") else None


def _torch_tag() -> str:
    major, minor = torch.__version__.split(".")[:2]
    return f"pt{major}{minor}cu{(torch.version.cuda or '').replace('.', '')}"


def _jit_library(capability: Capability) -> Path | None:
    """What gsplat compiled on first use, where its build file names this torch and it is no older than it."""
    folder = jit_folder()
    library, script = folder / "gsplat_cuda.so", folder / "build.ninja"
    if not library.is_file() or not script.is_file():
        return None
    torch_folder, text = Path(torch.__file__).parent, script.read_text()
    archs = [f"{digits[:-1]}.{digits[-1]}" for digits in re.findall(r"code=sm_(\d+)", text)]
    archs += [f"{digits[:-1]}.{digits[-1]}+PTX" for digits in re.findall(r"code=compute_(\d+)", text)]
    fresh = library.stat().st_mtime >= (torch_folder / "version.py").stat().st_mtime
    return library if fresh and str(torch_folder / "include") in text and covers(archs, capability) else None


def jit_folder() -> Path:
    """Where torch keeps what gsplat compiles on first use."""
    chosen = os.environ.get("TORCH_EXTENSIONS_DIR")
    if chosen:
        return Path(chosen) / "gsplat_cuda"
    cuda = (torch.version.cuda or "cpu").replace(".", "")
    tag = f"py{sys.version_info.major}{sys.version_info.minor}_{'cu' if torch.version.cuda else ''}{cuda}"
    return Path.home() / ".cache" / "torch_extensions" / tag / "gsplat_cuda"
