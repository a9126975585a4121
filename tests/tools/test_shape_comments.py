"""The extension that shows tensor shapes on the API page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

griffe = pytest.importorskip("griffe", reason="griffe is not installed (pip install 'sdi-gs[docs]')")

SOURCE = '''
class Render:
    """A render."""

    rgb: "Tensor"  # [B, H, W, 3] in [0, 1]
    told: int = 1
    """Has a docstring."""
    bare: int = 2


def blend(
    image: "Tensor",  # [H, W, 3]
    weight: float,
    mask: "Tensor | None" = None,  # [H, W]
) -> "Tensor":
    """Blend."""
    inner: int = 3  # no argument
    return image


def plain(image: "Tensor") -> "Tensor":
    """Plain."""
    return image
'''


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    from shape_comments import ShapeComments

    extensions = griffe.load_extensions(ShapeComments())
    with griffe.temporary_visited_module(SOURCE, extensions=extensions) as visited:
        yield visited


def test_a_fields_comment_becomes_its_text(module: Any) -> None:
    assert module["Render.rgb"].docstring.value == "[B, H, W, 3] in [0, 1]"
    assert module["Render.told"].docstring.value == "Has a docstring."
    assert module["Render.bare"].docstring is None


def test_a_functions_shapes_follow_its_text(module: Any) -> None:
    assert module["blend"].docstring.value == "Blend.\n\n- `image`: [H, W, 3]\n- `mask`: [H, W]"
    assert module["plain"].docstring.value == "Plain."
