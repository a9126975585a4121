"""Test lanes: count the slow tests left out, skip tests that this machine cannot run, and limit threads per process.

``pytest`` runs the quick lane, ``pytest -m ""`` all tests; ``-n 2`` splits either between two processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import pytest

# Otherwise `python -m` and `python -c` would import the sdi_gs/ of the working folder instead of the one that these
# tests import, which in CI is the installed wheel.
os.environ["PYTHONSAFEPATH"] = "1"
# torch's and numba's threads share the cores: threads that wait by spinning would take them from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tests keep no pictures in the user's folder.
os.environ["SDI_GS_CACHE"] = ""
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:
    # The processes of a parallel run share the cores, one thread each. torch reads the variable when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LEFT_OUT = pytest.StashKey[int]()
"""Number of slow tests that the markers leave out."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = 0


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


def pytest_runtest_setup() -> None:
    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    if torch is not None:
        # gsplat's strategies draw from the global generator; its state must not depend on the tests before.
        torch.default_generator.manual_seed(0)
    if numba is not None and IS_WORKER:
        numba.set_num_threads(1)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.config.stash[LEFT_OUT] += item.get_closest_marker("slow") is not None


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["slow_left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Every worker collects all tests, so the counts are equal, not to be added.
    config: pytest.Config = node.config
    config.stash[LEFT_OUT] = max(config.stash[LEFT_OUT], getattr(node, "workeroutput", {}).get("slow_left_out", 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash[LEFT_OUT]
    if count:
        terminalreporter.write_line(f'slow tests left out: {count} (pytest -m "" runs all tests)')


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Return a function that sets torch's number of threads for one test; the numba kernels use the same number."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Compute with one thread: small tensors are slower on several."""
    set_threads(1)


def _no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def _no_browser() -> str | None:
    if not find_spec("playwright"):
        return "playwright is not installed (pip install 'sdi-gs[test]')"
    from headless_page import chromium_path

    return None if chromium_path() else "no Chromium (apt-get install --no-install-recommends chromium)"
