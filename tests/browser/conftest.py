"""One browser for all tests, a fresh page for each, and what it showed kept where a test failed."""

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
"""Where pictures of failed tests go."""
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


@pytest.fixture
def viewer_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[ViewerPage]:
    """A page that is nowhere yet; its picture and text are kept where the test fails."""
    from headless_page import ViewerPage

    context = browser.new_context(viewport={"width": 720, "height": 480}, accept_downloads=True)
    page = ViewerPage(context.new_page())
    try:
        yield page
    finally:
        if request.node.stash.get(FAILED, False):
            KEPT.mkdir(exist_ok=True)
            name = re.sub(r"[^\w-]+", "-", request.node.name)
            page.page.screenshot(path=KEPT / f"{name}.png")
            (KEPT / f"{name}.txt").write_text(page.text())
        context.close()
