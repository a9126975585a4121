"""The project's modules as text and syntax trees, for tests of the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ("sdi_gs", "viewer", "configs")
"""The folders of the package; ``sdi_gs/viewer`` and ``sdi_gs/configs`` are links to the other two."""
OUTSIDE = ("tools", "benchmarks", "examples")
"""Folders of code that is not part of the wheel."""


@dataclass(frozen=True)
class Source:
    """One module."""

    path: str
    """From the repository's root."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The module's syntax tree."""
        return ast.parse(self.text)

    @property
    def num_lines(self) -> int:
        """Lines of the file."""
        return len(self.text.splitlines())

    @property
    def room(self) -> str:
        """The entry at the top of ``sdi_gs/`` that the module is, or belongs to."""
        names = Path(self.path).with_suffix("").parts
        return names[1] if names[0] == "sdi_gs" else names[0]

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        names = Path(self.path).parts[:-1]
        return ".".join(names if names[0] == "sdi_gs" else ("sdi_gs", *names))

    @property
    def is_kernel(self) -> bool:
        """Whether the module contains compiled kernels."""
        return "kernels" in Path(self.path).parts

    def functions(self) -> Iterator[tuple[str, int]]:
        """Yield name and number of lines of every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Return the modules of some of the top-level folders, by path; a folder that does not exist has none."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(Source(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")) for file in files)


def package_sources() -> tuple[Source, ...]:
    """Return the modules of the package."""
    return sources(*PACKAGE)
