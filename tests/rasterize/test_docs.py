"""The example of docs/rasterizer.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[2] / "docs" / "rasterizer.md"


def test_the_example_fits_its_image() -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(PAGE.read_text().split("```python\n")[1].split("```")[0], names)
    assert float(names["loss"].detach()) < 0.02
