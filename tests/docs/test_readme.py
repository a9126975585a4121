"""README is short, shows the product first, and calls toybox an instrument."""

from __future__ import annotations

import re

from sources import ROOT

README = (ROOT / "README.md").read_text()


def test_readme_fits_on_two_screens() -> None:
    assert len(README.splitlines()) <= 80


def test_readme_shows_a_picture_and_then_two_commands() -> None:
    picture, block = README.index("!["), README.index("```bash")
    assert picture < block
    first_block = README[block:].split("```")[1]
    assert len(first_block.strip().splitlines()) == 3, "the fence's language and two commands"


def test_pages_that_show_toybox_numbers_call_it_an_instrument() -> None:
    scores = re.compile(r"\d\.\d dB\b|\bIoU 0\.\d")
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    silent = [page for page in pages if scores.search(text := page.read_text()) and "instrument" not in text]
    assert not silent, "\n".join(str(page.relative_to(ROOT)) for page in silent)
