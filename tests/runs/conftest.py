"""The run that the tests of runs compare with."""

from __future__ import annotations

import pytest
from small_runs import whole_run

from sdi_gs.runs.folder import RunFolder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of eight steps; nobody writes to it."""
    return whole_run(tmp_path_factory.mktemp("run") / "whole")
