"""Find the ``sdi-gs`` commands on a page of the documentation."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(sdi-gs\s+[^`\s]+\s[^`]+)`")
"""A command in the text, unless it is named without arguments."""
PLACEHOLDER = re.compile(r"\.\.\.|[|$<]|\b[A-Z]{2,}\b")
"""What stands for something that the reader fills in."""


def commands(page: str) -> Iterator[list[str]]:
    """Yield the arguments of every command of the program in the page's shell blocks and in its text."""
    lines = [line for block in BLOCK.findall(page) for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(text.split()) for text in INLINE.findall(page) if not PLACEHOLDER.search(text)]
    for line in lines:
        for part in re.split(r"&&|;(?=\s)", line):
            words = shlex.split(part, comments=True)
            # Before it there may be variables, as in CC=gcc-13 sdi-gs doctor.
            at = next((index for index, word in enumerate(words) if Path(word).name == "sdi-gs"), None)
            if at is not None and all("=" in word for word in words[:at]):
                yield words[at + 1 :]
