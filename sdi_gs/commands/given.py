"""The settings that stand on a command line, and no others.

tyro parses into a nested TypedDict whose keys are all optional. The result holds the options that were given, with
values of the declared types. The caller lays them over the defaults, once these are known, and validates the whole.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import shlex
import sys
import typing
from typing import Annotated, Any, TypedDict

import tyro

from sdi_gs.console import printable


def given_type(kind: type[Any], *, shown: Any = None) -> type[Any]:
    """Return a TypedDict with the fields of a config dataclass, nested configs included, for tyro to parse into.

    ``shown`` is the config whose values a help page shows as defaults; None if no help page is needed.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    docs = {} if shown is None else field_docs(kind)
    fields: dict[str, Any] = {}
    for name, hint in hints.items():
        value = None if shown is None else getattr(shown, name)
        if dataclasses.is_dataclass(hint):
            fields[name] = given_type(typing.cast(type, hint), shown=value)
        elif shown is None:
            fields[name] = hint
        else:
            help_page = tyro.conf.arg(help=docs.get(name), help_behavior_hint=f"(default: {shown_value(value)})")
            # The field's own arg() comes later and wins.
            kind_of_field, *own = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
            fields[name] = Annotated[kind_of_field, help_page, *own]
    given = TypedDict(kind.__name__, fields, total=False)  # pyright: ignore[reportArgumentType]
    given.__doc__ = kind.__doc__
    return given


def shown_value(value: Any) -> str:
    """Return a setting's value as it would be typed on the command line, control characters escaped."""
    return " ".join(shlex.quote(printable(str(part))) for part in (value if isinstance(value, tuple) else (value,)))


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Return the docstrings below the fields of a dataclass, by the fields' names."""
    body = next(
        node.body
        for node in _module_of(kind.__module__).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    docs = {}
    for line, below in zip(body, body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                docs[line.target.id] = inspect.cleandoc(text.value)
    return docs


@functools.cache
def _module_of(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[name]))
