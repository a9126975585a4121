"""Diagnosis of a machine: what is installed, what a run would use, and problems with their fixes.

Costs nothing: gsplat's CUDA code is not loaded, and nothing is compiled or downloaded.
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
    """A required package."""

    name: str
    version: str | None
    """None if it is not installed."""
    tested: str
    """The tested range of versions; empty if the project itself is not installed."""
    ok: bool
    """Whether it is installed and within the range."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The device that a run would use."""

    kind: str
    """cuda or cpu."""
    name: str
    """Name of the card, or the processor's architecture."""
    memory_gib: float | None
    """Memory of the card; None for a CPU."""
    torch_cuda: str | None
    """CUDA version of torch's build; None for a CPU build."""
    cores: int
    """Cores available to this process."""
    torch_threads: int
    """Threads of torch and the rasteriser."""


@dataclass(frozen=True, kw_only=True)
class KernelCache:
    """The cache of compiled CPU kernels."""

    path: str | None
    """None if numba found no writable folder."""
    writable: bool
    compiled: bool
    """Whether the kernels are compiled already."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that ``sdi-gs doctor`` reports."""

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
    """What the first training on a card will do with gsplat's CUDA code."""
    tier: list[str]
    """The card's memory tier and the predicted needs of a Stable Diffusion step; empty without a card."""
    ffmpeg: str | None
    """Path of ffmpeg."""
    problems: list[Problem]

    def as_json(self) -> dict[str, Any]:
        """Return nested dicts and lists."""
        return json.loads(json.dumps(asdict(self)))


def diagnose(*, presets_by_device: dict[str, tuple[str, str]]) -> Diagnosis:
    """Examine the machine; ``presets_by_device`` maps "cpu" and "cuda" to their default prior and preset."""
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
    """Return numba's cache folder of the rasteriser's kernels, and whether they are compiled."""
    from sdi_gs.files.kernel_cache import is_compiled
    from sdi_gs.rasterize.kernels import compositing_backward

    kernel: Any = compositing_backward.composite_backward
    if kernel.stats.cache_path is None:
        return KernelCache(path=None, writable=False, compiled=False)
    folder = Path(kernel.stats.cache_path)
    return KernelCache(
        path=str(folder),
        writable=os.access(_nearest_existing(folder), os.W_OK),
        compiled=is_compiled(kernel),
    )


def report_lines(diagnosis: Diagnosis) -> list[str]:
    """Format the diagnosis as text, one fact per line."""
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
    """Return the project's requirements without extras, with the installed versions."""
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
