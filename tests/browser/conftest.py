"""One browser with one page for all tests; pictures and texts of failed tests are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headless_page import ViewerPage
    from playwright.sync_api import Browser

KEPT = Path(os.environ.get("BROWSER_FAILURES", "browser-failures"))
"""Folder of the pictures of failed tests."""
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:  # pyright: ignore[reportAttributeAccessIssue]
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from headless_page import headless_chromium

    with headless_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def only_page(browser: Browser) -> Iterator[ViewerPage]:
    from headless_page import ViewerPage

    # Wide enough for viser to dock the panel beside the canvas, which is left with 560.
    with browser.new_context(viewport={"width": 880, "height": 420}) as context:
        yield ViewerPage(context.new_page())


@pytest.fixture(scope="module", autouse=True)
def rest_afterwards(only_page: ViewerPage) -> Iterator[None]:
    """Close the page: an open one keeps drawing, which costs later tests a core."""
    yield
    only_page.page.goto("about:blank")


@pytest.fixture
def viewer_page(only_page: ViewerPage, request: pytest.FixtureRequest) -> Iterator[ViewerPage]:
    """The page as the last test left it; its picture and text are kept if the test fails."""
    yield only_page
    if request.node.stash.get(FAILED, False):
        KEPT.mkdir(exist_ok=True)
        name = re.sub(r"[^\w-]+", "-", request.node.name)
        only_page.page.screenshot(path=KEPT / f"{name}.png")
        (KEPT / f"{name}.txt").write_text(only_page.text())
