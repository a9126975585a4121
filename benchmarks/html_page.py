"""The exported page in a headless Chromium without a network: bytes, and PSNR of its pictures against our own renders.

    python benchmarks/html_page.py RUN [--picture docs/html-page.png]

The page turns by its arrow keys, 15 degrees a press. ``--picture`` writes it as people see it, at two widths. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
from pathlib import Path

import numpy as np
from headless_page import headless_chromium
from PIL import Image
from playwright.sync_api import Browser, Page

from sdi_gs.pictures.views import render_views
from sdi_gs.runs.export import export
from sdi_gs.runs.loading import SavedScene, load
from sdi_gs.runs.splats_to_export import framing_of_scene

SIDE, STEPS, EDGE = 512, (0, 3, 9, 15), 5
"""Pixels of the window, presses of a key from the front, and the frame that marks the focus."""
WINDOWS = ((400, 700), (1000, 700))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    scene = load(options.run)
    with tempfile.TemporaryDirectory() as folder, headless_chromium() as browser:
        path = Path(folder) / "object.html"
        export(scene, path)
        result = {"run": str(options.run), "bytes": path.stat().st_size, "psnr": likeness(browser, path, scene)}
        if options.picture is not None:
            Image.fromarray(windows(browser, path)).save(options.picture, optimize=True)
    print(json.dumps(result))


def likeness(browser: Browser, path: Path, scene: SavedScene) -> dict[int, float]:
    """Return the PSNR, dB, by azimuth in degrees."""
    ring = framing_of_scene(scene).ring(24, SIDE, elevation_deg=15.0)
    found = {}
    with browser.new_context(viewport={"width": SIDE, "height": SIDE}, offline=True) as context:
        page = opened(context.new_page(), path)
        page.locator("canvas").press("h")
        turned = 0
        for steps in STEPS:
            for _ in range(turned, steps):
                page.locator("canvas").press("ArrowRight")
            turned = steps
            page.wait_for_selector(f"canvas[data-azimuth='{15 * steps}.000']")
            own = render_views(scene.representation, ring.rows(slice(steps, steps + 1))).rgb[0].numpy() * 255.0
            error = (screenshot(page).astype(float) - own)[EDGE:-EDGE, EDGE:-EDGE]
            found[15 * steps] = round(10.0 * math.log10(255.0**2 / max(float(np.mean(error**2)), 1e-9)), 1)
    return found


def windows(browser: Browser, path: Path) -> np.ndarray:
    """Return the page in a narrow window in light and a wide one in dark colours, side by side."""
    pictures = []
    for (width, height), dark in zip(WINDOWS, (False, True), strict=True):
        with browser.new_context(
            viewport={"width": width, "height": height}, offline=True, color_scheme="dark" if dark else "light"
        ) as context:
            pictures.append(screenshot(opened(context.new_page(), path)))
    return np.concatenate(pictures, axis=1)


def opened(page: Page, path: Path) -> Page:
    """Open a page that has drawn its object."""
    page.goto(path.as_uri())
    page.wait_for_selector("canvas[data-azimuth]")
    return page


def screenshot(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


if __name__ == "__main__":
    main()
