"""Where a result comes from: versions, comments in files, memory."""

from __future__ import annotations

import platform
import resource
import sys
from importlib import metadata

from sdi_gs import __version__
from sdi_gs.settings.run import RunConfig


def ply_comments(config: RunConfig, step: int) -> list[str]:
    """What a splat file says of its origin."""
    return [
        f"sdi-gs {__version__}",
        f"prompt {config.prompt}",
        f"prior {config.prior}",
        f"seed {config.seed} steps {step}",
    ]


def peak_rss_mb() -> float:
    """The most memory that this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions() -> dict[str, str]:
    """Versions of Python, of this project and of the packages that decide a result, or "missing"."""
    names = ("torch", "gsplat", "numba", "numpy", "diffusers", "transformers", "viser", "tyro", "plyfile")
    return {"python": platform.python_version(), "sdi-gs": __version__} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # A report of what is wrong here must not end because of it.
        return "missing"
