"""The page of a batch in a browser, from the disk and without a network: filter, sort, pages, strange prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest
from batches import STRANGE, batch_of, fail, finish, leave_pictures, start

from sdi_gs.batch.page import write_page
from sdi_gs.batch.ranking import ranking_named
from sdi_gs.pictures.turntable import save_turntable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (1200, 400)
PATIENCE = 120_000
"""Milliseconds."""


class Heard:
    """A page, and everything that it complained of or asked the network for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)
        self.problems: list[str] = []
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.problems.append(request.url)

    def prompts(self) -> list[str]:
        """Return the headings of the cards in their order."""
        return self.page.locator(".card h2").all_inner_texts()

    def where(self) -> str:
        """Return which of the rows are shown."""
        return self.page.locator(".where").first.inner_text()


@pytest.fixture
def heard(browser: Browser) -> Iterator[Heard]:
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        heard = Heard(context.new_page())
        yield heard
        assert heard.problems == []


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A batch of five rows, one of each kind, with the page for it."""
    state = batch_of("a blue robot", "a red mug", STRANGE, "a green tree", "a ball")
    finish(state, 0, seconds=31.5, judge_class=0.5)
    finish(state, 3, seconds=9.0, judge_class=0.75)
    for index in (0, 3):
        leave_pictures(tmp_path, state, index)
    start(state, 1, step=40)
    fail(state, 2, f"no such word: {STRANGE}")
    write_page(tmp_path, state)
    return tmp_path


def test_runs_are_filtered_and_sorted_and_the_choice_is_kept_in_the_address(heard: Heard, out: Path) -> None:
    page = heard.page
    page.goto((out / "index.html").as_uri())
    assert heard.prompts() == ["a blue robot", "a red mug", STRANGE, "a green tree", "a ball"]
    assert heard.where() == "1–5 of 5"
    page.get_by_role("button", name="finished 2").click()
    assert heard.prompts() == ["a blue robot", "a green tree"]
    page.get_by_label("Sort by").select_option("judge class")
    page.get_by_role("button", name="Ascending").click()
    assert heard.prompts() == ["a green tree", "a blue robot"]
    page.reload()
    assert heard.prompts() == ["a green tree", "a blue robot"]
    page.get_by_role("button", name="finished 2").click()
    # Rows without the score stand last whichever way it goes.
    assert heard.prompts()[:2] == ["a green tree", "a blue robot"]
    page.keyboard.press("/")
    page.keyboard.type("RED m")
    page.wait_for_function("document.querySelectorAll('.card').length === 1")
    assert heard.prompts() == ["a red mug"]
    assert "step 40 of 100" in page.locator(".card").inner_text()
    page.get_by_role("searchbox").fill("nothing like it")
    page.get_by_text("No run is like that.").wait_for()


def test_a_film_takes_the_place_of_the_picture_and_gives_it_back(heard: Heard, tmp_path: Path) -> None:
    state = batch_of("a blue robot")
    finish(state, 0)
    sheet = leave_pictures(tmp_path, state, 0) / "contact_sheet.png"
    shades = np.arange(0, 240, 10, dtype=np.uint8)
    save_turntable(sheet.with_name("turntable.mp4"), [np.tile(shades[:, None, None, None], (1, 64, 64, 3))])
    page = heard.page
    page.goto(write_page(tmp_path, state).as_uri())
    page.get_by_role("button", name="Turn a blue robot").click()
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    assert page.locator("video").evaluate("film => film.videoWidth") == 64
    # Beside the film and never on it: as on the picture, it would cover a side.
    film, button = page.locator(".media").bounding_box(), page.get_by_role("button", name="Sides of a").bounding_box()
    assert film is not None
    assert button is not None
    assert button["y"] >= film["y"] + film["height"]
    page.keyboard.press("Enter")
    assert page.locator(".card img").get_attribute("src") == f"runs/{state.rows[0].row.key}/contact_sheet.png"
    assert page.locator("video").count() == 0


def test_only_a_choice_among_seeds_is_marked_and_without_one_nothing_can_be_ticked(
    heard: Heard, tmp_path: Path
) -> None:
    state = batch_of("a blue robot", seeds=2)
    finish(state, 0, judge_class=0.5)
    finish(state, 1, judge_class=0.75)
    page, box = heard.page, "only the best of each prompt's seeds, by judge"
    page.goto(write_page(tmp_path, state, keep=1, ranking=ranking_named("judge")).as_uri() + "#best=0")
    assert page.locator(".card.best").count() == page.locator(".badge").count() == 1
    assert "judge class\n0.750" in page.locator(".card.best").inner_text()
    assert page.get_by_label(box).is_visible()
    (tmp_path / "alone").mkdir()
    alone = batch_of("a red mug")
    finish(alone, 0, judge_class=0.5)
    page.goto(write_page(tmp_path / "alone", alone, keep=1, ranking=ranking_named("judge")).as_uri())
    assert page.locator(".card").count() == 1
    assert page.locator(".card.best, .badge").count() == 0
    assert page.locator("input[type=checkbox]:visible").count() == 0


def test_what_strangers_write_is_text(heard: Heard, out: Path) -> None:
    page = heard.page
    page.goto((out / "index.html").as_uri() + "#q=" + quote("<img src=x onerror='window.harmed=3'>"))
    page.get_by_role("searchbox").fill("script")
    page.wait_for_function("document.querySelectorAll('.card').length === 1")
    assert page.locator(".reason").inner_text() == f"no such word: {STRANGE}"
    assert page.evaluate("window.harmed === undefined")
    assert page.locator(".card img, .card b").count() == 0


def test_the_list_sorts_by_its_headings_with_the_keyboard(heard: Heard, out: Path) -> None:
    page = heard.page
    page.goto((out / "index.html").as_uri())
    page.get_by_role("radio", name="list").check()
    page.locator("th[data-column='seconds'] button").focus()
    page.keyboard.press("Enter")
    assert page.locator("th[data-column='seconds']").get_attribute("aria-sort") == "ascending"
    assert page.locator("td.prompt").all_inner_texts()[:2] == ["a green tree", "a blue robot"]
    page.keyboard.press("Enter")
    assert page.locator("td.prompt").all_inner_texts()[:2] == ["a blue robot", "a green tree"]
    links = page.locator("tbody a", has_text="splats.ply")
    target = page.evaluate("link => link.href", links.first.element_handle())
    assert target.startswith(out.as_uri())
    assert target.endswith("splats.ply")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window_and_texts_are_legible(
    browser: Browser, out: Path, width: int, scheme: Any
) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        for view in ("pictures", "list"):
            page.goto((out / "index.html").as_uri() + f"#view={view}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(LOWEST_CONTRAST) >= 4.5


LOWEST_CONTRAST = """() => {
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c !== "transparent") return c; } return "rgb(255, 255, 255)"; };
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.offsetParent && !e.disabled &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return Math.min(...texts.map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }));
}"""
"""The lowest contrast of a text with what is behind it, as WCAG counts it."""


def test_ten_thousand_rows_are_paged_and_their_pictures_loaded_when_they_come_into_sight(
    heard: Heard, tmp_path: Path
) -> None:
    state = batch_of(*(f"a blue robot number {number}" for number in range(5000)), seeds=2)
    for index in range(0, 10_000, 2):
        finish(state, index, seconds=index % 97 + 1.0, judge_class=index % 101 / 101)
    for index in range(0, 96, 2):
        leave_pictures(tmp_path, state, index)
    page = heard.page
    page.goto(write_page(tmp_path, state, keep=1, ranking=ranking_named("judge")).as_uri() + "#best=0")
    assert heard.where() == "1–48 of 10000"
    assert page.locator(".card").count() == 48
    pictures = page.locator(".card img")
    assert pictures.count() == 24
    loaded = "pictures => pictures.filter((picture) => picture.complete && picture.naturalWidth).length"
    page.wait_for_function(f"({loaded})([...document.querySelectorAll('.card img')]) > 0")
    assert page.evaluate("document.querySelector('.card img').loading") == "lazy"
    page.keyboard.press("ArrowRight")
    assert heard.where() == "49–96 of 10000"
    page.get_by_label("Sort by").select_option("seconds")
    assert heard.where() == "1–48 of 10000"
    page.get_by_label("only the best of each prompt's seeds, by judge").check()
    # The 5000 finished rows, each the only one of its prompt, and the 5000 that are still to come.
    assert heard.where() == "1–48 of 10000"
    page.get_by_role("searchbox").fill("number 4999")
    page.wait_for_function("document.querySelectorAll('.card').length === 2")
