"""The good inputs of each kind, made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fuzzing.targets import target_named


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return what the cases of a kind are made from."""
    made: dict[str, Any] = {}

    def prepare(name: str) -> Any:
        if name not in made:
            made[name] = target_named(name).prepare(tmp_path_factory.mktemp("good"))
        return made[name]

    return prepare
