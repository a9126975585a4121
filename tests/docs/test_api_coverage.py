"""Every public name of ``sdi_gs`` has a docstring and an entry on docs/api.md, and nothing else has one."""

from __future__ import annotations

import inspect
import re

import pytest
from sources import ROOT

import sdi_gs

ENTRY = re.compile(r"^::: sdi_gs\.(\w+)$", re.MULTILINE)
DOCUMENTED = ENTRY.findall((ROOT / "docs/api.md").read_text())


def test_the_api_page_lists_every_public_name_once() -> None:
    public = [name for name in sdi_gs.__all__ if not name.startswith("__")]
    assert sorted(DOCUMENTED) == sorted(public)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_public_name_has_a_docstring(name: str) -> None:
    value = getattr(sdi_gs, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        # Not an inherited one, and not the signature that a dataclass makes up.
        text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
        assert text
        assert not text.startswith(f"{value.__name__}(")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_public_methods_of_a_class_have_docstrings(name: str) -> None:
    value = getattr(sdi_gs, name)
    if inspect.isclass(value):
        methods = {
            key: item for key, item in vars(value).items() if not key.startswith("_") and inspect.isfunction(item)
        }
        assert [key for key, item in methods.items() if not item.__doc__] == []
