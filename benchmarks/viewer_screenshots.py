"""The pictures of docs/viewer.md, taken of a run that really trains.

    python benchmarks/viewer_screenshots.py [--out docs] [--prompt "a red mushroom"] [--middle 80]

The run is stopped once the pictures are taken. Needs Chromium and playwright, as the browser tests do.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from headless_page import Server, ViewerPage, headless_chromium
from PIL import Image
from playwright.sync_api import ViewportSize

from sdi_gs.viewer import labels
from sdi_gs.viewer.steering import LABELS

SIZE = (1200, 800)
"""Size of the browser's window in pixels."""
PATIENCE = 1800.0
"""Timeout until the run reaches a step, in seconds."""


def step_of(page: ViewerPage) -> int:
    """Return the step on the page; 0 before the first."""
    found = re.search(r"step ([\d,]+) of", page.text())
    return int(found[1].replace(",", "")) if found else 0


def save(page: ViewerPage, path: Path) -> None:
    """Save the whole page as a PNG."""
    page.page.screenshot(path=path)
    with Image.open(path) as picture:
        opaque = picture.convert("RGB")
    opaque.save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--prompt", default="a red mushroom")
    parser.add_argument("--preset", default="toybox-ideal")
    parser.add_argument("--middle", type=int, default=80, help="step of the second picture")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, headless_chromium() as browser:
        folder = Path(scratch)
        command = ["train", "--prompt", options.prompt, "--preset", options.preset, "--output-dir", str(folder / "run")]
        server = Server([*command, "--viewer", "--viewer-port", "0"], folder=folder)
        try:
            page = ViewerPage(browser.new_page(viewport=ViewportSize(width=SIZE[0], height=SIZE[1])))
            page.open(server.address)
            # The browser's own notice that it draws without a GPU.
            page.page.locator("#webgl-software-rendering button").click()
            page.until(lambda: step_of(page) >= 2, "the second step", timeout=PATIENCE)
            save(page, options.out / "viewer-start.png")
            page.until(lambda: step_of(page) >= options.middle, f"step {options.middle}", timeout=PATIENCE)
            save(page, options.out / "viewer-middle.png")
            page.press(labels.PAUSE)
            page.until(lambda: "paused" in page.text(), "the run pauses")
            page.choose(labels.PICTURE, "render")
            page.choose(labels.MODE, "denoised target")
            page.until(lambda: page.scene().std() > 3, "the denoised target is shown")
            page.field(LABELS["learning_rate_scale"]).scroll_into_view_if_needed()
            page.still_scene()
            save(page, options.out / "viewer-steering.png")
            page.press(labels.STOP_AND_SAVE)
            server.process.wait(PATIENCE)
        finally:
            server.close()


if __name__ == "__main__":
    main()
