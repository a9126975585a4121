"""The public API: what ``import sdi_gs`` offers, and that it loads nothing heavy until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sdi_gs


def type_checked_imports() -> dict[str, set[str]]:
    """Return the names that type checkers see, by module."""
    assert sdi_gs.__file__ is not None
    tree = ast.parse(Path(sdi_gs.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {node.module or "": {alias.name for alias in node.names} for node in imports}


def test_every_name_is_listed_once_and_typed() -> None:
    listed = {module: set(names) for module, names in sdi_gs._MODULES.items()}
    assert listed == type_checked_imports()
    assert sorted(name for names in sdi_gs._MODULES.values() for name in names) == sorted(sdi_gs.__all__)
    assert sorted(set(sdi_gs.__all__)) == sdi_gs.__all__


def test_every_name_is_there_documented_and_called_what_it_is() -> None:
    for name in sdi_gs.__all__:
        value = getattr(sdi_gs, name)
        assert value.__doc__, name
        assert value.__name__ == name
    assert set(sdi_gs.__all__) <= set(dir(sdi_gs))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = sdi_gs.distil  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_heavy_is_loaded_before_a_name_is_used() -> None:
    code = "import sdi_gs, sys; sdi_gs.RunConfig; sdi_gs.preset; print(sorted({'torch', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
