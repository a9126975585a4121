"""Rules for the source itself; each test lists all offenders."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Callable, Iterable

import pytest
from sources import OUTSIDE, PACKAGE, Source, package_sources, sources

MAX_LINES = 350
"""Of a module; kernels are exempt, because vectors that cross a call leave their registers."""

MAX_FUNCTION_LINES = 60
"""Of a function; kernels are exempt."""

LONG_FUNCTIONS = {
    # gsplat's signature and its documentation, a line for each argument.
    ("sdi_gs/rasterize/__init__.py", "rasterization"),
}

CUDA_PACKAGES = ("gsplat", "nerfacc", "tinycudann")
"""Run on CUDA only, or differently there."""


def offenders(found: Callable[[Source], Iterable[object]], modules: Iterable[Source]) -> list[str]:
    """Return a line for everything that a rule finds in the modules."""
    return [f"{source.path}: {offence}" for source in modules for offence in found(source)]


def test_every_module_has_a_docstring() -> None:
    modules = sources(*PACKAGE, *OUTSIDE, "tests")
    # The first thing in a module is its docstring; hundreds of modules need not be parsed to see that.
    assert [source.path for source in modules if not source.text.startswith(('"""', 'r"""'))] == []


def test_every_module_is_short_enough_to_read() -> None:
    found = [
        f"{source.path}: {source.num_lines} lines"
        for source in sources(*PACKAGE, *OUTSIDE)
        if source.num_lines > MAX_LINES and not source.is_kernel
    ]
    assert not found, "\n".join(found)


def test_every_function_is_short_enough_to_read() -> None:
    found = [
        f"{source.path}: {name} has {count} lines"
        for source in sources(*PACKAGE, *OUTSIDE)
        for name, count in source.functions()
        if count > MAX_FUNCTION_LINES and not source.is_kernel and (source.path, name) not in LONG_FUNCTIONS
    ]
    assert not found, "\n".join(found)


def test_every_exempt_function_exists_and_is_long() -> None:
    long = {
        (source.path, name)
        for source in package_sources()
        for name, count in source.functions()
        if count > MAX_FUNCTION_LINES
    }
    assert long >= LONG_FUNCTIONS


def test_lines_of_a_planted_function_are_counted() -> None:
    source = Source("planted.py", "class A:\n    def f(self):\n        x = 1\n\n        return x\n")
    assert (list(source.functions()), source.num_lines) == ([("f", 4)], 5)


def global_settings(source: Source) -> list[str]:
    """Calls that move to a fixed device or touch a generator that everybody shares."""
    # gsplat's strategies draw from the global generator; a fork of it is put back afterwards.
    forks = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0])
    ]
    forked = {id(inner) for fork in forks for inner in ast.walk(fork)}
    names = [
        ast.unparse(node.func)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and id(node) not in forked
    ]
    banned = ("torch.manual_seed", "np.random.seed", "random.seed", "torch.set_default_device")
    return [name for name in names if name.endswith(".cuda") or name in banned]


def test_no_device_and_no_seed_is_set_globally() -> None:
    assert offenders(global_settings, package_sources()) == []


def test_a_global_seed_is_caught_unless_it_is_put_back() -> None:
    seeded = Source("planted.py", "torch.manual_seed(0)\nx.to(y).cuda()")
    forked = Source("planted.py", "with torch.random.fork_rng():\n    torch.manual_seed(0)")
    assert global_settings(seeded) == ["torch.manual_seed", "x.to(y).cuda"]
    assert global_settings(forked) == []


def undocumented_fields(source: Source) -> list[str]:
    """Frozen config dataclasses without a docstring, and those of their fields that no docstring line follows.

    A field that is a config itself is described by its class.
    """
    missing = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config") and _is_frozen_dataclass(node):
            if not ast.get_docstring(node):
                missing.append(node.name)
            for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
                is_field = isinstance(statement, ast.AnnAssign)
                if is_field and not ast.unparse(statement.annotation).endswith("Config") and not _is_text(after):
                    missing.append(f"{node.name}.{ast.unparse(statement.target)}")
    return missing


def _is_frozen_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass(" in (text := ast.unparse(d)) and "frozen=True" in text for d in node.decorator_list)


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and bool(node.value.value)


def test_every_setting_is_documented() -> None:
    assert offenders(undocumented_fields, sources(*PACKAGE, "tools")) == []


def test_an_undocumented_setting_is_caught() -> None:
    head = "@dataclass(frozen=True, kw_only=True)\nclass AConfig:\n"
    body = "    a: int = 1\n    '''Metres.'''\n    b: int = 2\n    c: BConfig = BConfig()\n"
    assert undocumented_fields(Source("planted.py", head + body)) == ["AConfig", "AConfig.b"]
    assert undocumented_fields(Source("planted.py", head + "    '''Lengths.'''\n" + body)) == ["AConfig.b"]


def test_every_settings_class_of_a_run_is_a_frozen_keyword_only_config() -> None:
    from sdi_gs.settings.run import RunConfig

    waiting: list[type] = [RunConfig]
    seen: set[type] = set()
    while waiting:
        config = waiting.pop()
        seen.add(config)
        hints = typing.get_type_hints(config).values()
        inner = {part for hint in hints for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)}
        waiting += [part for part in inner if isinstance(part, type) and part not in seen]
    assert len(seen) > 3
    for config in seen:
        params = config.__dataclass_params__  # pyright: ignore[reportAttributeAccessIssue]
        assert config.__name__.endswith("Config")
        assert params.frozen
        assert all(field.kw_only for field in dataclasses.fields(config))


def caught_choices(source: Source) -> list[int]:
    """Lines of ``try`` statements that import a CUDA package, or ask or move something to CUDA."""
    caught = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Try) and node.handlers:
            body = "\n".join(ast.unparse(statement) for statement in node.body)
            if "cuda" in body or any(f"import {package}" in body for package in CUDA_PACKAGES):
                caught.append(node.lineno)
    return caught


def test_no_device_is_chosen_by_catching() -> None:
    assert offenders(caught_choices, package_sources()) == []


@pytest.mark.parametrize(
    "body", ["import nerfacc", "x = x.to('cuda')", "torch.cuda.current_device()", "import tinycudann as tcnn"]
)
def test_a_planted_choice_is_caught(body: str) -> None:
    assert caught_choices(Source("planted.py", f"try:\n    {body}\nexcept Exception:\n    pass")) == [1]
    assert caught_choices(Source("planted.py", f"if available:\n    {body}")) == []
