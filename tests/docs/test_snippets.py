"""The Python blocks of README and of the guides run as they are written.

Blocks of one page share a namespace and run in order, in a folder of their own and with warnings as errors. A block
with a title is written to a file of that name first, as a reader would do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sources import ROOT

BLOCK = re.compile(r'^```python(?: title="(?P<title>[\w./-]+)")?\n(?P<code>.*?)^```$', re.DOTALL | re.MULTILINE)
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    # The model card's block needs a checkout as the working folder.
    if "reports" not in page.parts and BLOCK.search(page.read_text())
]


def snippets(page: str) -> tuple[dict[str, str], str]:
    """Return a page's titled blocks by file name, and its other blocks as one program."""
    files, program = {}, []
    for block in BLOCK.finditer(page):
        if block["title"]:
            files[block["title"]] = block["code"]
        else:
            program.append(block["code"])
    return files, "\n".join(program)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    files, program = snippets(page.read_text())
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "page.py").write_text(program)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_titled_blocks_become_files_and_the_others_one_program() -> None:
    page = '```python title="a.py"\nx = 1\n```\ntext\n```python\nimport a\n```\n```bash\nls\n```\n```python\na.x\n```\n'
    assert snippets(page) == ({"a.py": "x = 1\n"}, "import a\n\na.x\n")
