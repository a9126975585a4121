"""The exported page, opened as a file with the network off: its picture against our own, turns, keys, sizes, errors."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from sdi_gs.files.origin import Origin
from sdi_gs.pictures.framing import training_framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.html import write_html
from sdi_gs.splats.splat_cloud import SplatCloud, sh_dc_from_rgb

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SIZE = 320
PATIENCE = 120_000
"""Milliseconds."""
PROMPT = "a robot </script><script>alert(1)</script><img src=x onerror=alert(2)>"
ENDS = {  # where a needle points, and its colour
    (1.0, 0.0, 0.0): (220, 30, 30),
    (-1.0, 0.0, 0.0): (30, 200, 200),
    (0.0, 1.0, 0.0): (40, 180, 40),
    (0.0, -1.0, 0.0): (200, 40, 200),
    (0.0, 0.0, 1.0): (40, 40, 220),
    (0.0, 0.0, -1.0): (210, 200, 30),
}


def cloud_of(rows: dict[str, torch.Tensor], rest: torch.Tensor | None = None) -> SplatCloud:
    count = len(rows["means"])
    return SplatCloud(
        means=rows["means"],
        log_scales=rows["scales"].log(),
        quats=rows["quats"],
        opacity_logit=torch.logit(rows["opacities"]),
        sh_dc=sh_dc_from_rgb(rows["rgb"]),
        sh_rest=torch.zeros(count, 0, 3) if rest is None else rest,
    )


def needles() -> SplatCloud:
    """One needle along each half axis, without a turn: long along the axis it lies on."""
    directions = torch.tensor(list(ENDS))
    return cloud_of(
        {
            "means": 0.55 * directions,
            "scales": 0.025 + 0.1 * directions.abs(),
            "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(6, 1),
            "opacities": torch.full((6,), 0.98),
            "rgb": torch.tensor(list(ENDS.values())) / 255.0,
        }
    )


def tumbled(harmonics: int = 15, count: int = 400) -> SplatCloud:
    """Turned, overlapping, translucent splats whose colours change with the direction and leave the screen's range."""
    generator = torch.Generator().manual_seed(0)

    def even(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    return cloud_of(
        {
            "means": 1.4 * even(count, 3) - 0.7,
            "scales": 0.005 + 0.15 * even(count, 3) ** 3,
            "quats": even(count, 4) - 0.5,
            "opacities": 0.02 + 0.97 * even(count),
            "rgb": 1.6 * even(count, 3) - 0.3,
        },
        0.4 * (even(count, harmonics, 3) - 0.5),
    )


class Opened:
    """A page in a window without a network."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.heard = page, []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: self.heard.append(message.text))
        page.on("pageerror", lambda error: self.heard.append(str(error)))
        page.on("dialog", lambda dialog: self.heard.append(dialog.message))
        page.on("request", lambda request: self.heard.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("canvas[data-azimuth]")
        # The file itself is the one thing that was asked for.
        assert self.heard == [path.as_uri()]
        self.heard.clear()

    def wait_until_drawn(self) -> None:
        from headless_page import DRAWN

        self.page.evaluate(DRAWN)

    @property
    def azimuth(self) -> float:
        self.wait_until_drawn()
        return float(self.page.get_attribute("canvas", "data-azimuth") or "nan")

    def press(self, key: str) -> None:
        self.page.locator("canvas").press(key)

    def turn(self, degrees: int) -> None:
        """Turn to an azimuth with the arrow keys, as fast as the page draws."""
        while round(self.azimuth) != degrees:
            before = self.page.get_attribute("canvas", "data-azimuth")
            self.press("ArrowRight")
            self.page.wait_for_selector(f"canvas:not([data-azimuth='{before}'])")

    def picture(self) -> np.ndarray:
        """The window without its panels and without the frame that marks the focus."""
        self.wait_until_drawn()
        picture = np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))
        return picture[5:-5, 5:-5].astype(float)


@contextmanager
def opened(
    browser: Browser, path: Path, cloud: SplatCloud, *, width: int = SIZE, height: int = SIZE, dark: bool = False
) -> Iterator[Opened]:
    origin = Origin(prompt=PROMPT, prior="toybox-ideal", seed=0, step=400, cameras=CameraConfig())
    write_html(path, cloud, options=ExportOptions(), origin=origin, overwrite=False)
    scheme = "dark" if dark else "light"
    with browser.new_context(
        viewport={"width": width, "height": height}, offline=True, color_scheme=scheme, has_touch=True
    ) as context:
        page = Opened(context.new_page(), path)
        yield page
        assert page.heard == []


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(float(np.mean((found - wanted) ** 2)), 1e-9))


def own_pictures(cloud: SplatCloud, degrees: tuple[int, ...]) -> dict[int, np.ndarray]:
    ring = training_framing(CameraConfig()).ring(24, SIZE, elevation_deg=15.0)
    views = render_views(gaussians_from_splats(cloud), ring).rgb.numpy() * 255
    return {angle: views[angle // 15, 5:-5, 5:-5] for angle in degrees}


def test_the_picture_is_our_own_from_all_sides_with_all_harmonics(browser: Browser, tmp_path: Path) -> None:
    cloud = tumbled()
    own = own_pictures(cloud, (0, 45, 120, 240))
    with opened(browser, tmp_path / "a.html", cloud) as page:
        page.press("h")
        for angle, wanted in own.items():
            page.turn(angle)
            found = page.picture()
            assert psnr(found, wanted) > 42, angle
            assert psnr(found[:, ::-1], wanted) < 25


def test_needles_lie_where_a_pinhole_camera_sees_them(browser: Browser, tmp_path: Path) -> None:
    focal = 0.5 * SIZE / math.tan(math.radians(20.0))
    elevation = math.radians(15.0)
    with opened(browser, tmp_path / "a.html", needles()) as page:
        page.press("h")
        for degrees in (30, 120):
            page.turn(degrees)
            picture, azimuth = page.picture(), math.radians(degrees)
            outward = np.array(
                [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
            )
            right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
            up = np.cross(outward, right)
            for direction, colour in ENDS.items():
                rows, columns = np.nonzero(np.abs(picture - colour).max(axis=2) < 45)
                place = 0.55 * np.array(direction)
                depth = 3.3 - place @ outward
                expected = np.array([-(place @ up), place @ right]) * focal / depth + SIZE / 2 - 5
                assert len(rows) > 20, (degrees, direction)
                assert np.abs([rows.mean(), columns.mean()] - expected).max() < 3.0, (degrees, direction)
                along = np.array([-(np.array(direction) @ up), np.array(direction) @ right])
                if np.linalg.norm(along) > 0.5:
                    # The picture's longest direction is the needle's.
                    spread = np.cov(np.stack([rows, columns]))
                    longest = np.linalg.eigh(spread)[1][:, -1]
                    assert abs(longest @ along) / np.linalg.norm(along) > 0.97, (degrees, direction)


def test_keys_buttons_mouse_and_fingers_move_the_camera(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path / "a.html", needles()) as page:
        canvas, inner = page.page.locator("canvas"), page.page
        inner.keyboard.press("Tab")
        assert inner.evaluate("() => document.activeElement.id") == "view"
        page.press("h")
        first = page.picture()
        page.press("+")
        closer = page.picture()
        ink = [np.count_nonzero(picture.min(axis=2) < 200) for picture in (first, closer)]
        assert ink[1] > 1.15 * ink[0]
        page.press("ArrowUp")
        assert psnr(page.picture(), closer) < 32
        page.press("r")
        assert psnr(page.picture(), first) > 60
        page.press("h")
        inner.mouse.move(160, 130)
        inner.mouse.down()
        inner.mouse.move(260, 130, steps=4)
        inner.mouse.up()
        # The object follows the pointer: the camera goes the other way.
        inner.wait_for_selector("canvas:not([data-azimuth='0.000'])")
        assert 300 < page.azimuth < 345
        inner.get_by_role("button", name="Reset view").click()
        inner.wait_for_selector("canvas[data-azimuth='0.000']")
        button = inner.get_by_role("button", name="Turntable")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        inner.wait_for_selector("canvas:not([data-azimuth='0.000'])")
        canvas.press(" ")
        assert button.get_attribute("aria-pressed") == "false"
        inner.touchscreen.tap(160, 130)


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1200, False), (1200, True)])
def test_the_text_is_whole_and_the_page_fits_at_two_widths_in_two_schemes(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    with opened(browser, tmp_path / "a.html", needles(), width=width, height=700, dark=dark) as page:
        inner = page.page
        assert inner.title() == PROMPT
        assert inner.locator("h1").inner_text() == PROMPT
        facts = inner.locator("#facts").inner_text()
        assert "6 Gaussians" in facts and "seed 0" in facts and "toybox-ideal" in facts
        assert inner.evaluate("() => [document.documentElement.scrollWidth, innerHeight]") == [width, 700]
        for name in ("header", "footer"):
            box = inner.locator(name).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
        page.press("h")
        corner = page.picture()[0, 0]
        assert corner.tolist() == ([20, 22, 26] if dark else [255, 255, 255])
        page.press("h")
        inner.get_by_label("Background").select_option("gray")
        page.press("h")
        assert np.abs(page.picture()[0, 0] - 127.5).max() <= 1
