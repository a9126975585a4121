"""A study's page, and what its reader has written on it. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, is_there, refuse_impossible

PAGE = "study.md"
MARKS = ("<!-- reading: kept when this page is written again -->", "<!-- end of reading -->")
"""On the page, around what its reader writes."""


def kept_reading(out: Path) -> str:
    """Return what the page in a folder has between the marks; empty without a page. UserError for one without marks."""
    page = out / PAGE
    if not is_there(page):
        return ""
    with disk_errors(page, "read"):
        text = page.read_bytes().decode("utf-8", "replace")
    _, begun, rest = text.partition(MARKS[0])
    kept, ended, _ = rest.partition(MARKS[1])
    if not (begun and ended):
        raise UserError(
            f"{page} is not written by sdi-gs study, or its marks {MARKS[0]} and {MARKS[1]} are gone: move it away, or "
            "give another --output-dir"
        )
    return kept.strip()


def require_folder(out: Path) -> None:
    """Raise UserError where a page could not be written: into a file, over another hand's page."""
    refuse_impossible(out)
    if is_there(out) and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder as --output-dir")
    kept_reading(out)
