"""A headless Chromium on the viewer's page: for its tests, and for the pictures in docs/viewer.md.

Letters: H W pixels.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, sync_playwright

T = TypeVar("T")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Its names in distributions, Debian's first."""
FLAGS = (
    "--no-sandbox",  # Containers run as root, which Chromium's sandbox refuses.
    # WebGL without a GPU.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # Disable background network and processor use.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
)
ADDRESS = re.compile(r"^viewer: (http://\S+)", re.MULTILINE)
"""The program's line with the address of its page."""
PATIENCE = 120.0
"""Seconds that the browser may take for anything: on a busy machine it draws by software in the time that is left."""
CALM = 700
"""Milliseconds without a change after which a picture counts as still; longer than a camera takes to come to rest."""
_SENT = "() => new Promise((sent) => setTimeout(sent, 60))"
"""Ends after viser's page may send again: of all that is entered within 50 ms it sends the first and the last."""
DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
"""Ends after all that was to be drawn before."""
_ONLY_THE_CANVAS = "body * { visibility: hidden !important } canvas { visibility: visible !important }"


def chromium_path() -> str | None:
    """Return the path of an installed browser; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """Start a browser and close it at the end; raises RuntimeError if none is installed."""
    path = chromium_path()
    if path is None:
        raise RuntimeError(f"none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), timeout=1000 * PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


class ViewerPage:
    """The page of one server, operated by its visible labels, as a person would."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(1000 * PATIENCE)
        self.faults: list[str] = []
        """What went wrong on the page since it was last emptied: exceptions, and errors in the console."""
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda line: self.faults.append(line.text) if line.type == "error" else None)

    def open(self, address: str) -> None:
        """Open the page and wait for the connection."""
        self.page.goto(address)
        self.canvas.wait_for()
        self.page.get_by_text("Connecting...", exact=True).wait_for(state="hidden")

    def visit(self, address: str) -> None:
        """Open the page unless it is open already: loading takes seconds."""
        if self.page.url.rstrip("/") != address.rstrip("/"):
            self.open(address)

    def text(self) -> str:
        """Return all visible text of the page."""
        return self.page.locator("body").inner_text()

    def field(self, label: str) -> Locator:
        """Return the input after a label; viser does not associate all of them."""
        quoted = f'"{label}"'
        after = "following::*[self::input or self::textarea][not(@type='hidden')][1]"
        return self.page.locator(f"xpath=//label[normalize-space()={quoted}]/{after}").first

    def button(self, name: str) -> Locator:
        """Return the button with this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def press(self, name: str) -> None:
        """Press a button."""
        self.button(name).click()
        self.page.evaluate(_SENT)

    def write(self, label: str, text: str) -> None:
        """Fill in a field and leave it."""
        field = self.field(label)
        field.fill(text)
        field.press("Tab")
        self.page.evaluate(_SENT)

    def choose(self, label: str, option: str) -> None:
        """Select another entry of a drop-down list."""
        self.field(label).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.page.evaluate(_SENT)

    def unfold(self, folder: str) -> None:
        """Open or close a folder of the panel."""
        self.page.get_by_text(folder, exact=True).click()

    def scene(self) -> np.ndarray:
        """Return the canvas, uint8 [H, W, 3], without the panels over it."""
        x, y, width, height = self.box(self.canvas)
        clip = FloatRect(x=x, y=y, width=width, height=height)
        return _pixels(self.page.screenshot(style=_ONLY_THE_CANVAS, clip=clip))

    @property
    def canvas(self) -> Locator:
        """The canvas of the scene; plots have others."""
        return self.page.locator("canvas").first

    def box(self, part: Locator) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a part of the page, pixels, once it is shown."""
        # A panel that is put elsewhere is gone for a moment.
        found = self.until(part.bounding_box, "this part of the page is shown")
        return found["x"], found["y"], found["width"], found["height"]

    def until(self, condition: Callable[[], T | None | Literal[False]], what: str, *, timeout: float = PATIENCE) -> T:
        """Wait until a condition returns something true and return it; raises AssertionError with ``what`` if not."""
        deadline = time.monotonic() + timeout
        while True:
            # Looked at before the condition, which is asked once more after a long standstill.
            is_late = time.monotonic() > deadline
            found = condition()
            if found is not None and found is not False:
                return found
            if is_late:
                raise AssertionError(f"not within {timeout:g} s: {what}")
            self.page.wait_for_timeout(50)

    def still_scene(self, *, timeout: float = PATIENCE) -> np.ndarray:
        """Return ``scene()`` once two agree that lie ``CALM`` and a drawn frame apart: a render is coarse at first."""
        last = self.scene()

        def same_again() -> np.ndarray | None:
            nonlocal last
            self.page.wait_for_timeout(CALM)
            self.page.evaluate(DRAWN)
            last, before = self.scene(), last
            return last if np.abs(last.astype(int) - before).max() <= 1 else None

        return self.until(same_again, "the picture comes to rest", timeout=timeout)

    def download(self, button: str, path: Path) -> None:
        """Press a button and save its download."""
        with self.page.expect_download() as coming:
            self.press(button)
        coming.value.save_as(path)


class Server:
    """A ``sdi-gs`` command that serves a page, in another process."""

    def __init__(self, arguments: Sequence[str], *, folder: Path, seconds: float = 600.0) -> None:
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sdi_gs", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        try:
            self.address = self._address(seconds)
        except BaseException:
            self.close()
            raise

    @property
    def said(self) -> str:
        """Return the program's output so far."""
        return "".join(self._said)

    def end(self, signal_number: int, *, timeout: float = 600.0) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def close(self) -> None:
        """Kill the program if it runs, and clean up."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.append(line)

    def _address(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = ADDRESS.search(self.said)
            if found:
                return found[1]
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"the program ended with {self.process.returncode} before it served a page: {self.said}"
                )
            time.sleep(0.05)
        raise RuntimeError(f"no address within {seconds:g} s: {self.said}")


def _pixels(png: bytes) -> np.ndarray:
    """Decode a picture to uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
