"""Child processes run what is installed, and tests that need what this machine lacks skip themselves."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

# Without it `python -m` and `python -c` prefer the sdi_gs/ of the working folder to the one that these tests import,
# which in CI is the installed wheel.
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = {"gpu": _no_gpu, "browser": _no_browser}
    for mark, reason_of in lacks.items():
        marked = [item for item in items if item.get_closest_marker(mark)]
        reason = reason_of() if marked else None
        if reason:
            if mark == "browser" and os.environ.get("CI") == "true":
                raise pytest.UsageError(f"{reason}: the browser tests must run in CI, not skip")
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def _no_browser() -> str | None:
    if not find_spec("playwright"):
        return "playwright is not installed (pip install 'sdi-gs[test]')"
    from headless_page import chromium_path

    return None if chromium_path() else "no Chromium (apt-get install --no-install-recommends chromium)"
