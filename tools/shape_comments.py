"""Tensor shapes on the API page: an extension of griffe, which mkdocstrings reads the sources with (mkdocs.yml).

The house writes shapes as comments beside fields and arguments (``rgb: Tensor,  # [B, H, W, 3]``). Here they become
the text of fields without a docstring, and a last paragraph for functions.
"""

from __future__ import annotations

import re
from typing import Any

import griffe  # pyright: ignore[reportMissingImports]

COMMENT = re.compile(r"^\s*(\w+)\s*:.*?#\s*(\S.*)$")


def comments(lines: list[str]) -> dict[str, str]:
    """Return the comments behind annotated names, by name."""
    found = (COMMENT.match(line) for line in lines)
    return {match[1]: match[2].strip() for match in found if match}


class ShapeComments(griffe.Extension):
    """Copies comments into docstrings."""

    def on_attribute_instance(self, *, attr: Any, **_: Any) -> None:
        """Give a field without a docstring the comment behind it."""
        lines = _lines(attr)
        comment = comments(lines[:1]).get(attr.name)
        if attr.docstring is None and comment:
            attr.docstring = griffe.Docstring(comment, parent=attr)

    def on_function_instance(self, *, func: Any, **_: Any) -> None:
        """Append the shapes of a function's arguments to its docstring."""
        lines = _lines(func)
        end = next((index for index, line in enumerate(lines) if line.rstrip().endswith(":") and ")" in line), 0)
        names = {parameter.name for parameter in func.parameters}
        shapes = {name: text for name, text in comments(lines[:end]).items() if name in names}
        if func.docstring is not None and shapes:
            listed = "\n".join(f"- `{name}`: {text}" for name, text in shapes.items())
            func.docstring.value = f"{func.docstring.value}\n\n{listed}"


def _lines(item: Any) -> list[str]:
    if item.lineno is None or item.endlineno is None:
        return []
    lines = item.lines_collection[item.filepath]
    return lines[item.lineno - 1 : item.endlineno]
