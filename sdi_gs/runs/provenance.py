"""The origin of a result: versions of packages, the origin that files name, memory used."""

from __future__ import annotations

import platform
import resource
import sys
from importlib import metadata

from sdi_gs import __version__
from sdi_gs.files.origin import Origin
from sdi_gs.settings.run import RunConfig


def origin_of(config: RunConfig, step: int) -> Origin:
    """Return what an exported file says about the run that it comes from, after ``step`` steps."""
    return Origin(prompt=config.prompt, prior=config.prior, seed=config.seed, step=step, cameras=config.cameras)


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions() -> dict[str, str]:
    """Return the versions of Python, of this project and of the packages that decide a result, or "missing"."""
    names = ("torch", "gsplat", "numba", "numpy", "diffusers", "transformers", "viser", "tyro", "plyfile")
    found = {"python": platform.python_version(), "sdi-gs": __version__} | {name: _version(name) for name in names}
    engine = _version("openvino")
    return found if engine == "missing" else found | {"openvino": engine}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # The doctor's report lists it as well, and must not end here.
        return "missing"
