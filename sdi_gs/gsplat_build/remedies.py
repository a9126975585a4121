"""Problems of a toolchain with their fixes, and a forecast of the first training on a card.

Pure functions of the facts. Driver versions are NVIDIA's (CUDA release notes, table of minimum versions, Linux).
"""

from __future__ import annotations

import math
import re

from sdi_gs.gsplat_build.problem import Problem
from sdi_gs.gsplat_build.toolchain import OLDEST_CAPABILITY, Card, Toolchain, major

MINIMUM_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""Minimum driver by major version of the CUDA runtime."""
LAST_TORCH = {11: "2.7", 12: "2.10"}
"""Last torch, on PyPI or PyTorch's index, built for that major version of CUDA."""

GIB_PER_JOB = 2.2
"""Memory to compile one file; the largest of 29 took 2.1 (docs/reports/gpu.md)."""
CPU_MINUTES = 26.0
"""CPU time for one architecture: the slowest of three measured (docs/reports/gpu.md)."""
CPU_MINUTES_PER_FURTHER_ARCH = 6.0
"""Measured: three architectures took 11.3 minutes more than one (docs/reports/gpu-builds.json)."""

PYPI_COMPILER_SINCE = 13
"""First major version of CUDA with nvcc in NVIDIA's Python packages."""
EXTRA = "pip install 'sdi-gs[cuda]'"
BUILD = "sdi-gs doctor --build"


def toolchain_problems(facts: Toolchain) -> list[Problem]:
    """Return the problems, causes first: without a driver, compilers are not checked."""
    if facts.torch_cuda is None:
        return _cpu_build(facts)
    of_driver = _driver(facts)
    if of_driver:
        return of_driver
    of_cards = _cards(facts)
    if not facts.usable_cards or facts.library:
        return of_cards
    return [*of_cards, *build_problems(facts), *_other_torch(facts)]


def card_problems(facts: Toolchain) -> list[Problem]:
    """Return why no card can be used; empty if one can."""
    if facts.torch_cuda is None:
        return _cpu_build(facts)
    return [] if facts.usable_cards and not _driver(facts) else (_driver(facts) or _cards(facts))


def build_problems(facts: Toolchain) -> list[Problem]:
    """Return what prevents compiling, with or without a card."""
    return [*_toolkit(facts), *_host_tools(facts), *_memory(facts)]


def forecast(facts: Toolchain) -> str:
    """Return in one line what the first training on a card will do, and why."""
    if facts.torch_cuda is None:
        return f"not used: torch {facts.torch} is a CPU build"
    if not facts.usable_cards:
        return "not used: no NVIDIA card answers" if not facts.cards else "not used: see the problems below"
    if facts.library is not None:
        return f"compiled: {facts.library}"
    why = f"no compiled code fits torch {facts.torch} on Python {facts.python} and sm_{_sm(facts.usable_cards[0])}"
    if build_problems(facts):
        return f"cannot be compiled yet: {why}, and see the problems below"
    jobs, kit = jobs_for(facts), facts.toolkit
    assert kit is not None
    minutes = math.ceil(expected_minutes(facts, archs=len({card.capability for card in facts.usable_cards})))
    return (
        f"will be compiled on first use, about {minutes} min with {jobs} at once (nvcc {kit.release} from "
        f"{kit.source}), because {why}; ahead of time: {BUILD}"
    )


def jobs_for(facts: Toolchain) -> int:
    """Return the user's MAX_JOBS, else the number of jobs that memory and cores allow."""
    return facts.max_jobs or max(1, min(facts.cores, int(facts.free_memory_gib / GIB_PER_JOB)))


def expected_minutes(facts: Toolchain, *, archs: int) -> float:
    """Estimate the wall time of a build from measured CPU time."""
    total = CPU_MINUTES + CPU_MINUTES_PER_FURTHER_ARCH * (archs - 1)
    return total / min(jobs_for(facts), facts.cores)


def explain_failure(output: str, facts: Toolchain) -> Problem:
    """Return problem and fix of a failed build, from the compilers' output."""
    fewer = max(1, min(jobs_for(facts) - 1, int(facts.free_memory_gib / GIB_PER_JOB)))
    causes = [
        (
            r"Killed|signal 9|[Oo]ut of memory|bad_alloc|virtual memory exhausted|Cannot allocate memory",
            "the compiler ran out of memory",
            f"MAX_JOBS={fewer} {BUILD} (what is compiled already is kept), or free memory: one file needs up to "
            f"{GIB_PER_JOB} GiB",
        ),
        (r"No space left on device", "the disk is full", "free some GB, or set XDG_CACHE_HOME to a roomier disk"),
        (
            r"unsupported GNU version|maximum required version by CUDA",
            f"nvcc does not accept gcc {facts.host_compiler}",
            "install an older gcc beside it and say CC=gcc-13 CXX=g++-13 " + BUILD,
        ),
        (
            r"Unsupported gpu architecture|Unknown CUDA arch",
            "this nvcc or this torch does not know that architecture",
            "name another with --arch, such as 8.9, or install a newer torch",
        ),
        (r"Python\.h: No such file", "Python's headers are missing", "apt install python3-dev, or your system's like"),
        (r"mismatches the version", "nvcc and torch are of different CUDA versions", _toolkit_fix(facts)),
        (
            r"cuda_runtime\.h: No such file|cannot find -lcudart",
            "the CUDA toolkit is not complete",
            _toolkit_fix(facts),
        ),
    ]
    for pattern, what, fix in causes:
        if re.search(pattern, output):
            return Problem(what=what, fix=fix)
    first = next((line.strip() for line in output.splitlines() if re.search(r"\berror\b", line)), "no reason was given")
    return Problem(what=f"the compiler says: {first}", fix=f"try the versions that docs/gpu.md lists, {EXTRA}")


def _cpu_build(facts: Toolchain) -> list[Problem]:
    if not facts.cards and facts.driver is None:
        return []
    tag = "cu130" if (major(facts.driver_cuda) or 0) >= 13 else "cu128"
    card = facts.cards[0].name if facts.cards else f"an NVIDIA driver ({facts.driver})"
    return [
        Problem(
            what=f"{card} is here, but torch {facts.torch} is a CPU build",
            fix=f"pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{tag}",
        )
    ]


def _driver(facts: Toolchain) -> list[Problem]:
    runtime = major(facts.torch_cuda) or 0
    needed = MINIMUM_DRIVER.get(runtime, "the newest")
    if facts.driver is None:
        if not facts.card_on_bus:
            return []
        return [
            Problem(
                what="an NVIDIA card is here, but no driver answers",
                fix=f"install NVIDIA's driver, {needed} or newer for torch's CUDA {facts.torch_cuda}; in a container, "
                "start it with --gpus all",
            )
        ]
    known = major(facts.driver_cuda)
    if known is None or known >= runtime:
        return []
    older = LAST_TORCH.get(known)
    instead = f", or pip install 'torch=={older}.*' (CUDA {known})" if older else ""
    return [
        Problem(
            what=f"driver {facts.driver} knows CUDA up to {facts.driver_cuda}, older than torch's {facts.torch_cuda}",
            fix=f"update the driver to {needed} or newer{instead}",
        )
    ]


def _cards(facts: Toolchain) -> list[Problem]:
    problems = []
    for card in facts.cards:
        if card.capability < OLDEST_CAPABILITY:
            problems.append(
                Problem(
                    what=f"{card.name} (sm_{_sm(card)}) is too old for gsplat: sm_70 is the oldest", fix="--device cpu"
                )
            )
        elif not card.is_known_to(facts.torch_archs):
            problems.append(
                Problem(
                    what=f"torch {facts.torch} has no code for {card.name} (sm_{_sm(card)}), only for "
                    f"{', '.join(facts.torch_archs)}",
                    fix=_torch_fix(facts, card),
                )
            )
    return problems


def _torch_fix(facts: Toolchain, card: Card) -> str:
    oldest = min((int(re.sub(r"\D", "", arch)) for arch in facts.torch_archs if arch.startswith("sm_")), default=0)
    if int(_sm(card)) < oldest:
        wheels = "--index-url https://download.pytorch.org/whl/cu126"
        return f"pip install 'torch=={LAST_TORCH[12]}.*' {wheels}, or --device cpu"
    return "pip install --upgrade torch"


def _toolkit(facts: Toolchain) -> list[Problem]:
    kit = facts.toolkit
    if kit is None and not facts.toolkits:
        return [Problem(what="gsplat must be compiled, and there is no CUDA compiler", fix=_toolkit_fix(facts))]
    if kit is None:
        found = ", ".join(f"{other.release} in {other.home}" for other in facts.toolkits)
        return [
            Problem(
                what=f"gsplat must be compiled, and nvcc ({found}) and torch (CUDA {facts.torch_cuda}) disagree",
                fix=_toolkit_fix(facts),
            )
        ]
    gcc = major(facts.host_compiler)
    if gcc is not None and kit.newest_gcc is not None and gcc > kit.newest_gcc:
        old = kit.newest_gcc
        return [
            Problem(
                what=f"nvcc {kit.release} takes gcc up to {old}, and {facts.host_compiler} is here",
                fix=f"apt install g++-{old}, then CC=gcc-{old} CXX=g++-{old} {BUILD}",
            )
        ]
    return []


def _toolkit_fix(facts: Toolchain) -> str:
    if (major(facts.torch_cuda) or 0) >= PYPI_COMPILER_SINCE:
        return f"{EXTRA}, which brings NVIDIA's compiler for CUDA {facts.torch_cuda}"
    return (
        f"install the CUDA toolkit {facts.torch_cuda} and set CUDA_HOME to it, or take a torch for CUDA 13, whose "
        f"compiler comes from PyPI: pip install --upgrade torch 'sdi-gs[cuda]'"
    )


def _host_tools(facts: Toolchain) -> list[Problem]:
    lacking = [
        (facts.host_compiler is None, "there is no C++ compiler for gsplat", "apt install g++, or your system's like"),
        (not facts.ninja, "there is no ninja to run gsplat's build", "pip install ninja"),
        (not facts.python_headers, "Python's headers are missing", "apt install python3-dev, or your system's like"),
    ]
    return [Problem(what=what, fix=fix) for is_so, what, fix in lacking if is_so]


def _memory(facts: Toolchain) -> list[Problem]:
    fits = int(facts.free_memory_gib / GIB_PER_JOB)
    if facts.max_jobs is not None and facts.max_jobs > max(fits, 1):
        return [
            Problem(
                what=f"MAX_JOBS={facts.max_jobs} needs up to {facts.max_jobs * GIB_PER_JOB:.0f} GiB to compile gsplat, "
                f"and {facts.free_memory_gib:.1f} are free",
                fix=f"MAX_JOBS={max(fits, 1)}",
            )
        ]
    if fits < 1:
        return [
            Problem(
                what=f"compiling gsplat takes {GIB_PER_JOB} GiB of memory, and {facts.free_memory_gib:.1f} are free",
                fix="close programs or add swap, then MAX_JOBS=1 " + BUILD,
            )
        ]
    return []


def _other_torch(facts: Toolchain) -> list[Problem]:
    if facts.other_torch is None:
        return []
    return [
        Problem(what=f"gsplat is compiled for another torch ({facts.other_torch}), not for {facts.torch}", fix=BUILD)
    ]


def _sm(card: Card) -> str:
    return f"{card.capability[0]}{card.capability[1]}"
