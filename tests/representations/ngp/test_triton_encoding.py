"""The hash encoding on Triton: its kernels against the reference, in Triton's interpreter, and when it is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdi_gs.representations.ngp import networks
from sdi_gs.representations.ngp.backends import is_installed
from sdi_gs.representations.ngp.hash_grid import grid_layout
from sdi_gs.representations.ngp.networks import Weights, query_backend
from sdi_gs.settings.ngp import PUBLISHED

CASES = Path(__file__).with_name("triton_cases.py")


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("triton"), reason="needs triton, which torch for CUDA brings")
def test_the_kernels_in_tritons_interpreter() -> None:
    # Triton reads the variable once, when it is imported.
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


class OnCuda:
    """What the choice looks at in a tensor."""

    requires_grad = False
    device = torch.device("cuda")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize(
    ("installed", "dtype", "chosen"),
    [
        ({"triton"}, torch.float32, "triton"),
        ({"triton", "tinycudann"}, torch.float32, "tiny-cuda-nn"),
        (set[str](), torch.float32, "torch"),
        ({"triton"}, torch.float64, "torch"),
    ],
)
def test_it_is_chosen_for_float32_on_cuda_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], dtype: torch.dtype, chosen: str
) -> None:
    monkeypatch.setattr(networks, "is_installed", installed.__contains__)
    tensor = OnCuda(dtype)
    weights = Weights(**dict.fromkeys(Weights.__dataclass_fields__, tensor))  # pyright: ignore[reportArgumentType]
    assert query_backend(tensor, weights, grid_layout(PUBLISHED.grid)) == chosen  # pyright: ignore[reportArgumentType]


def test_on_a_cpu_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "is_installed", lambda _: True)
    tensor = torch.zeros(1, 3)
    weights = Weights(**dict.fromkeys(Weights.__dataclass_fields__, tensor))
    assert query_backend(tensor, weights, grid_layout(PUBLISHED.grid)) == "numba"
