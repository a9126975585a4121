"""What this machine has, what would be used on it, and what is missing with its fix.

Only questions that cost nothing are asked: no CUDA code of gsplat is touched, nothing is compiled or downloaded.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdi_gs import __version__
from sdi_gs.gsplat_build.problem import Problem
from sdi_gs.gsplat_build.remedies import forecast, toolchain_problems
from sdi_gs.gsplat_build.toolchain import Toolchain, examine_toolchain

DISTRIBUTION = "sdi-gs"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package that the project builds on."""

    name: str
    version: str | None
    """None where it is not installed."""
    tested: str
    """The range of versions that the tests have seen; empty where the project itself is not installed."""
    ok: bool
    """Installed, and within the range."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where the computing happens."""

    kind: str
    """cuda or cpu."""
    name: str
    """The card, or the processor's architecture."""
    memory_gib: float | None
    """Of the card; None for a CPU."""
    torch_cuda: str | None
    """The CUDA version that torch was built for; None for a CPU build."""
    cores: int
    """Cores that this process may use."""
    torch_threads: int
    """Threads that torch and the rasteriser use."""


@dataclass(frozen=True, kw_only=True)
class KernelCache:
    """Where compiled CPU kernels are kept."""

    path: str | None
    """None where numba found no folder that it may write to."""
    writable: bool
    compiled: bool
    """Whether the kernels have been compiled before."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All that ``sdi-gs doctor`` tells."""

    version: str
    python: str
    packages: list[Package]
    device: Device
    rasterizer: str
    """numba or gsplat."""
    rasterizer_reason: str
    prior: str
    preset: str
    choice_reason: str
    kernel_cache: KernelCache
    toolchain: Toolchain
    gsplat: str
    """What happens to gsplat's CUDA code before the first training on a card."""
    tier: list[str]
    """The card's memory tier and what a step of Stable Diffusion is predicted to need; empty without a card."""
    ffmpeg: str | None
    """Path of the program that writes films."""
    problems: list[Problem]

    def as_json(self) -> dict[str, Any]:
        """The same as nested dicts and lists."""
        return json.loads(json.dumps(asdict(self)))


def diagnose(*, presets_by_device: dict[str, tuple[str, str]]) -> Diagnosis:
    """Look around; ``presets_by_device`` maps "cpu" and "cuda" to the prior and the preset used there by default."""
    from sdi_gs.rasterize import backend_for

    packages, device, cache, ffmpeg = _packages(), _device(), kernel_cache(), _ffmpeg()
    toolchain = examine_toolchain()
    prior, preset = presets_by_device[device.kind]
    found = "a CUDA device was found" if device.kind == "cuda" else "no CUDA device was found"
    backend = backend_for(device.kind)
    reason = "gsplat's kernels need CUDA tensors" if backend == "gsplat" else "CPU tensors go to the numba kernels"
    return Diagnosis(
        version=__version__,
        python=platform.python_version(),
        packages=packages,
        device=device,
        rasterizer=backend,
        rasterizer_reason=f"{found}; {reason}",
        prior=prior,
        preset=preset,
        choice_reason=found,
        kernel_cache=cache,
        toolchain=toolchain,
        gsplat=forecast(toolchain),
        tier=_tier(device),
        ffmpeg=ffmpeg,
        problems=[*_package_problems(packages), *toolchain_problems(toolchain), *_tool_problems(cache, ffmpeg)],
    )


def kernel_cache() -> KernelCache:
    """Where numba keeps the rasteriser's kernels, and whether they are there."""
    from sdi_gs.rasterize.kernels import compositing
    from sdi_gs.rasterize.kernels.jit import is_compiled

    kernel: Any = compositing.composite_backward
    if kernel.stats.cache_path is None:
        return KernelCache(path=None, writable=False, compiled=False)
    folder = Path(kernel.stats.cache_path)
    return KernelCache(
        path=str(folder),
        writable=os.access(_nearest_existing(folder), os.W_OK),
        compiled=is_compiled(kernel),
    )


def report_lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis for people, one fact per line."""
    device, cache = diagnosis.device, diagnosis.kernel_cache
    memory = f", {device.memory_gib:.0f} GiB" if device.memory_gib is not None else ""
    build = f"for CUDA {device.torch_cuda}" if device.torch_cuda else "for CPUs"
    facts = diagnosis.toolchain
    cards = ", ".join(f"{card.name} (sm_{card.capability[0]}{card.capability[1]})" for card in facts.cards)
    driver = f"{facts.driver}, up to CUDA {facts.driver_cuda or '?'}" if facts.driver else "none"
    lines = [
        f"sdi-gs      {diagnosis.version} on Python {diagnosis.python}",
        f"device      {device.kind} ({device.name}{memory}); torch is built {build}",
        f"driver      {driver}; cards: {cards or 'none'}",
        f"threads     {device.torch_threads} on {device.cores} cores",
        f"rasteriser  {diagnosis.rasterizer}: {diagnosis.rasterizer_reason}",
        f"default     prior {diagnosis.prior}, preset {diagnosis.preset}: {diagnosis.choice_reason}",
        f"kernels     {'compiled' if cache.compiled else 'compiled on first use'}, kept in {cache.path or 'nothing'}",
        f"gsplat      {diagnosis.gsplat}",
        *diagnosis.tier,
        f"ffmpeg      {diagnosis.ffmpeg or 'missing'}",
        "packages",
    ]
    for package in diagnosis.packages:
        mark = "" if package.ok else "  <-- not tested" if package.version else "  <-- missing"
        lines.append(f"  {package.name:18} {package.version or '-':14} tested {package.tested}{mark}")
    if not diagnosis.problems:
        return [*lines, "nothing is missing"]
    return [*lines, *(f"problem: {problem.what}\n    fix: {problem.fix}" for problem in diagnosis.problems)]


def _tier(device: Device) -> list[str]:
    if device.kind != "cuda":
        return []
    import torch

    from sdi_gs.runs.predicted_memory import tier_lines

    return tier_lines(torch.cuda.mem_get_info()[0], device.name)


def _packages() -> list[Package]:
    """The project's own requirements, extras left out, with what is installed of them."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        return []
    packages = []
    for requirement in required:
        if requirement.marker is not None and "extra" in str(requirement.marker):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        ok = version is not None and requirement.specifier.contains(version, prereleases=True)
        packages.append(Package(name=requirement.name, version=version, tested=str(requirement.specifier), ok=ok))
    return packages


def _device() -> Device:
    import torch

    cuda = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(0) if cuda else None
    return Device(
        kind="cuda" if cuda else "cpu",
        name=properties.name if properties is not None else platform.processor() or platform.machine(),
        memory_gib=properties.total_memory / 2**30 if properties is not None else None,
        torch_cuda=torch.version.cuda,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch_threads=torch.get_num_threads(),
    )


def _ffmpeg() -> str | None:
    if find_spec("imageio_ffmpeg") is None:
        return None
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return get_ffmpeg_exe()
    except RuntimeError:
        return None


def _package_problems(packages: list[Package]) -> list[Problem]:
    if not packages:
        return [Problem(what=f"{DISTRIBUTION} is not installed, only on the path", fix="pip install -e .")]
    problems = []
    for package in packages:
        if not package.ok:
            state = f"{package.version} is outside {package.tested}" if package.version else "is not installed"
            problems.append(
                Problem(what=f"{package.name} {state}", fix=f"pip install '{package.name}{package.tested}'")
            )
    return problems


def _tool_problems(cache: KernelCache, ffmpeg: str | None) -> list[Problem]:
    problems = []
    if not cache.writable:
        problems.append(
            Problem(
                what="numba may write nowhere, so CPU kernels are compiled anew in every process",
                fix="set NUMBA_CACHE_DIR to a folder of yours",
            )
        )
    if ffmpeg is None:
        problems.append(
            Problem(what="there is no ffmpeg, so no films", fix="pip install imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE")
        )
    return problems


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
