"""Every relative link in README, CONTRIBUTING and docs/ leads to a file, and every anchor to a heading."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from sources import OUTSIDE, PACKAGE, ROOT, sources

TOP_LEVEL = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in TOP_LEVEL if (ROOT / name).is_file())])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
API_ANCHOR = re.compile(r"^::: (\S+)", re.MULTILINE)


def prose(page: str) -> str:
    """Return the page without fenced blocks."""
    return FENCE.sub("", page)


def links(page: str) -> list[str]:
    """Return the targets of a page's links that are neither addresses nor inside code."""
    found = LINK.findall(CODE.sub("`code`", prose(page)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def slug(heading: str) -> str:
    """Return the anchor that Python-Markdown's `toc` makes of a heading: ASCII, lower case, dashes."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def anchors(page: str) -> set[str]:
    """Return the anchors of a page: its headings' and those of the API entries."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {slug(heading) for heading in headings} | set(API_ANCHOR.findall(page))


def broken_links(file: Path, root: Path) -> list[str]:
    """Return one line for each link of a page whose file, or whose heading, does not exist."""
    broken = []
    for target in links(file.read_text()):
        name, _, anchor = target.partition("#")
        other = (file.parent / name).resolve() if name else file
        where = f"{file.relative_to(root)}: {target}"
        if not other.exists():
            broken.append(f"{where} (no such file)")
        elif anchor and anchor not in anchors(other.read_text()):
            broken.append(f"{where} (no such heading)")
    return broken


def test_all_relative_links_resolve() -> None:
    broken = [line for page in PAGES for line in broken_links(page, ROOT)]
    assert not broken, "\n".join(broken)


def test_every_picture_of_the_docs_is_shown_on_a_page() -> None:
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page.read_text())}
    unused = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "docs").rglob("*.png")) if file not in shown]
    assert not unused, "\n".join(unused)


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](other.md) [b](other.md#a-heading-with-code) [c](#here)\n## Here\n", []),
        ("[a](missing.md)", ["page.md: missing.md (no such file)"]),
        ("![picture](missing.png)", ["page.md: missing.png (no such file)"]),
        ("[a](other.md#elsewhere)", ["page.md: other.md#elsewhere (no such heading)"]),
        ("[a](#there)\n## Here", ["page.md: #there (no such heading)"]),
        ("`[a](missing.md)` [b](https://example.org/x)\n```\n[c](missing.md)\n```\n", []),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, broken: list[str]) -> None:
    (tmp_path / "other.md").write_text("# A heading, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(text)
    assert broken_links(page, tmp_path) == broken


REPOSITORY_PATH = re.compile(r"(?<![\w/.-])((?:sdi_gs|viewer|configs|tests|benchmarks|tools|examples|docs)/[\w./-]*\w)")


def missing_paths(text: str, root: Path) -> list[str]:
    """Return the files and folders of the repository that a text names and that do not exist."""
    return [path for path in REPOSITORY_PATH.findall(text) if not (root / path).exists()]


def test_the_files_that_pages_name_exist() -> None:
    missing = [f"{page.relative_to(ROOT)}: {path}" for page in PAGES for path in missing_paths(page.read_text(), ROOT)]
    assert not missing, "\n".join(missing)


def test_the_pages_that_the_code_names_exist() -> None:
    named = [
        (source, name)
        for source in sources(*PACKAGE, *OUTSIDE)
        for name in re.findall(r"\bdocs/[\w/.-]*\w", source.text)
    ]
    missing = [f"{source.path}: {name}" for source, name in named if not (ROOT / name).exists()]
    assert named
    assert not missing, "\n".join(missing)


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/here.md").touch()
    assert missing_paths("`docs/here.md`, docs/gone.md and https://example.org/docs/else.md", tmp_path) == [
        "docs/gone.md"
    ]
