"""The kernels on CPUs without AVX-512: the same tests in a process that compiles for such a one, and code for ARM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdi_gs.rasterize.kernels import simd

HERE = Path(__file__).parent


def run_as(cpu: str, features: str, cache: Path, arguments: list[str]) -> str:
    """Output of a Python process whose kernels are compiled for another CPU."""
    environment = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(cache)}
    run = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpu", "features"),
    [
        pytest.param("haswell", "+avx2,+fma", marks=pytest.mark.skipif(simd.LANES == 8, reason="this CPU is one")),
        ("x86-64", "+sse2"),
    ],
)
def test_narrow_vectors_pass_the_same_tests(cpu: str, features: str, tmp_path: Path) -> None:
    accuracy = f"{HERE / 'test_accuracy.py'}::test_pictures_and_gradients_match_float64"
    tests = [
        str(HERE / "test_simd.py"),
        str(HERE / "test_binning.py"),
        *(f"{accuracy}[{name}-True]" for name in ("ordinary", "opaque enough to stop early", "needles")),
    ]
    out = run_as(cpu, features, tmp_path, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests])
    assert " passed" in out and "skipped" not in out


# numba's reference counting, compiled for x86, is of no interest here and the only part that other CPUs lack.
ARM = r"""
import re
import torch
from llvmlite import binding
from sdi_gs.rasterize import rasterization
from sdi_gs.rasterize.kernels import compositing, compositing_backward, projection, projection_backward

means = torch.rand(50, 3).requires_grad_()
K = torch.tensor([[[20.0, 0.0, 8.0], [0.0, 20.0, 8.0], [0.0, 0.0, 1.0]]])
shift = torch.tensor([0.0, 0.0, 2.0])
image, _, _ = rasterization(
    means + shift, torch.rand(50, 4), torch.rand(50, 3) * 0.1, torch.rand(50), torch.rand(50, 3), torch.eye(4)[None],
    K, 16, 16,
)
image.sum().backward()
binding.initialize_all_targets()
binding.initialize_all_asmprinters()
arm = binding.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(cpu="cortex-a72", opt=3)
kernels = (
    compositing.composite, compositing_backward.composite_backward,
    projection.project, projection_backward.project_backward,
)
for kernel in kernels:
    (code,) = kernel.inspect_llvm().values()
    code = re.sub(r"^target (triple|datalayout) = .*$", "", code, flags=re.M)
    code = re.sub(r"=\s*(tail )?call i8 @llvm\.x86\.atomic\S*\(.*\)", "= add i8 0, 0", code)
    module = binding.parse_assembly(code)
    module.triple, module.data_layout = "aarch64-unknown-linux-gnu", str(arm.target_data)
    assembly = arm.emit_assembly(module)
    vectors = len(re.findall(r"\bfml[as]\s+v\d+\.4s", assembly))
    calls = len(re.findall(r"\b(?:floor|ceil|rint|fmin|fmax|sqrt|fma)f?\b(?!\w)", assembly))
    print(kernel.__name__, vectors, calls)
"""


@pytest.mark.slow
def test_arm_gets_vector_code_without_calls(tmp_path: Path) -> None:
    counts = [line.split() for line in run_as("x86-64", "+sse2", tmp_path, ["-c", ARM]).splitlines()]
    assert [name for name, _, _ in counts] == ["composite", "composite_backward", "project", "project_backward"]
    for name, vectors, calls in counts:
        assert int(vectors) > 20 and int(calls) == 0, name
