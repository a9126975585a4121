"""The process that compiles gsplat's CUDA code: ``python -m sdi_gs.gsplat_build.compile_gsplat FOLDER [INCLUDE ...]``.

It is a separate process because torch reads CUDA_HOME, TORCH_CUDA_ARCH_LIST and MAX_JOBS at import, and to separate
ninja's output and the compilers' memory. Sources and flags are those of gsplat 1.5.3 ``cuda/_backend.py``. The last
printed line is one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.util import find_spec
from pathlib import Path

NAME = "csrc"


def gsplat_folder() -> Path:
    """Return gsplat's folder without importing it."""
    spec = find_spec("gsplat")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def sources(cuda: Path) -> list[Path]:
    """Return the files to compile, in a fixed order."""
    return [*sorted(cuda.glob("csrc/*.cu")), *sorted(cuda.glob("csrc/*.cpp")), cuda / "ext.cpp"]


def main(folder: Path, libraries: Path, includes: list[str]) -> None:
    """Compile into a folder, import the result, and print its names and costs."""
    from torch.utils.cpp_extension import load

    cuda = gsplat_folder() / "cuda"
    started = time.perf_counter()
    module = load(
        NAME,
        [str(file) for file in sources(cuda)],
        extra_cflags=["-O3", "-Wno-attributes"],
        extra_cuda_cflags=["-O3", "-use_fast_math"],
        extra_ldflags=[f"-L{libraries}"],
        extra_include_paths=[str(cuda / "include"), str(cuda / "csrc/third_party/glm"), *includes],
        build_directory=str(folder),
        verbose=True,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {
        "symbols": sorted(name for name in dir(module) if not name.startswith("__")),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib_of_a_compiler": round(used.ru_maxrss / 1024),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
