"""The process that compiles gsplat's CUDA code: ``python -m sdi_gs.gsplat_build.compile_gsplat FOLDER [INCLUDE ...]``.

A process of its own, because torch reads CUDA_HOME, TORCH_CUDA_ARCH_LIST and MAX_JOBS when it is imported, and because
what it prints (ninja's lines) and uses (memory of the compilers) is then told apart. Sources and flags are those of
gsplat 1.5.3 ``cuda/_backend.py``; the last line printed is one JSON object.
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
    """Where gsplat lies; it is not imported."""
    spec = find_spec("gsplat")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def sources(cuda: Path) -> list[Path]:
    """The files that are compiled, in a fixed order."""
    return [*sorted(cuda.glob("csrc/*.cu")), *sorted(cuda.glob("csrc/*.cpp")), cuda / "ext.cpp"]


def main(folder: Path, libraries: Path, includes: list[str]) -> None:
    """Compile into a folder, import the result, and print what it offers and what it took."""
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
