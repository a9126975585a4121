"""The field's kernels on a CPU without AVX-512."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdi_gs.rasterize.kernels import simd

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(simd.LANES == 8, reason="the other tests run with 8 lanes already")
def test_eight_lanes_pass_the_same_tests(tmp_path: Path) -> None:
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma", "NUMBA_CACHE_DIR": str(tmp_path)}
    tests = [HERE / "test_hash_grid.py", f"{HERE / 'test_networks.py'}::test_kernels_and_gradients_match_float64"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)],
        env=os.environ | narrow,
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
