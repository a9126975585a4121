"""The field on Triton: its kernels in Triton's interpreter, compiled for cards, and when they are chosen."""

from __future__ import annotations

import os
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from run_triton_cases import run_triton_cases

from sdi_gs.errors import UserError
from sdi_gs.representations.ngp import backends, compositing, networks
from sdi_gs.representations.ngp.backends import backend_for, configured_backend, has_triton, is_installed
from sdi_gs.representations.ngp.compositing import compositing_backend
from sdi_gs.representations.ngp.hash_grid import grid_layout
from sdi_gs.representations.ngp.networks import Weights, query_backend
from sdi_gs.settings.compute import FieldKernels
from sdi_gs.settings.ngp import PUBLISHED


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("triton"), reason="needs triton, which torch for CUDA brings")
def test_the_kernels_in_tritons_interpreter() -> None:
    run_triton_cases(interpreted=True)


POINTERS = {
    "*i64": ("resolutions", "starts", "counts", "ray_ids", "ray_starts"),
    "*i32": ("hashed",),
    "*u8": ("occupied", "mask"),
    "i32": ("count", "levels", "blocks", "places"),
    "fp32": ("step", "radius", "cells_per_unit", "min_alpha", "min_transmittance"),
}
"""Types of arguments that are no pointers to float32, by name; in the encoding ``offsets`` are int64 too."""
NETWORK = {"WIDTH": 32, "HIDDEN": 64, "WIDE": 32, "UNITS": 64, "POINTS": 16}
RAY = {"CHANNELS": 8, "WIDE": 8, "SAMPLES": 32}
PUBLISHED_KERNELS: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("encoding", "features_forward", {"POINTS": 256}),
    ("encoding", "slopes_forward", {"POINTS": 256}),
    ("encoding", "directions_backward", {"POINTS": 256}),
    ("encoding", "table_backward", {"POINTS": 256, "SLOPES": True}),
    ("networks", "forward", NETWORK | {"COLOUR": True, "SLOPES": True}),
    ("networks", "forward", NETWORK | {"COLOUR": False, "SLOPES": False}),
    ("networks", "density_backward", NETWORK | {"SLOPES": True}),
    ("networks", "albedo_backward", NETWORK),
    ("marching", "count_samples", {"SIDE": 32, "RAYS": 128}),
    ("marching", "write_samples", {"SIDE": 32, "RAYS": 128}),
    ("compositing", "mark_visible", {"SAMPLES": 32}),
    ("compositing", "composite", RAY),
    ("compositing", "composite_backward", RAY),
)
"""Every kernel with the constants of the published field."""


def type_of(module: str, argument: str) -> str:
    if module == "encoding" and argument == "offsets":
        return "*i64"
    return next((kind for kind, names in POINTERS.items() if argument in names), "*fp32")


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("triton"), reason="needs triton, which torch for CUDA brings")
@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="the interpreter compiles nothing")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_for_a_card_and_keeps_its_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: int
) -> None:
    import triton  # pyright: ignore[reportMissingImports]
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
    from triton.compiler import ASTSource, compile  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    cuobjdump = Path(triton.__path__[0], "backends", "nvidia", "bin", "cuobjdump")
    spilled = {}
    for module, name, constants in PUBLISHED_KERNELS:
        kernels: Any = import_module(f"sdi_gs.representations.ngp.kernels.triton_{module}")
        kernel = getattr(kernels, name)
        types = {a: "constexpr" if a in constants else type_of(module, a) for a in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=types, constexprs=constants)
        options = {"num_warps": 1 if module == "compositing" else 4, "enable_fp_fusion": module != "marching"}
        made: Any = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        (tmp_path / "kernel.cubin").write_bytes(made.asm["cubin"])
        shown = subprocess.run(
            [cuobjdump, "--dump-resource-usage", tmp_path / "kernel.cubin"], check=True, capture_output=True, text=True
        ).stdout
        # Bytes of the stack are those of registers that spill into memory.
        spilled[name, *constants] = int(re.findall(r"STACK:(\d+)", shown)[0])
        assert made.metadata.shared < 48 * 2**10
    assert not any(spilled.values()), spilled


def test_the_list_of_compiled_kernels_is_whole() -> None:
    if not is_installed("triton"):
        pytest.skip("needs triton, which torch for CUDA brings")
    written = set()
    for module in ("encoding", "networks", "marching", "compositing"):
        kernels = import_module(f"sdi_gs.representations.ngp.kernels.triton_{module}")
        written |= {(module, name) for name, it in vars(kernels).items() if hasattr(it, "arg_names") and name[0] != "_"}
    assert written == {(module, name) for module, name, _ in PUBLISHED_KERNELS}


class OnCuda:
    """What the choice looks at in a tensor."""

    requires_grad = False
    device = torch.device("cuda")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize(
    ("triton", "others", "dtype", "chosen"),
    [
        (True, (), torch.float32, ("triton", "triton", "triton")),
        (True, ("tinycudann", "nerfacc"), torch.float32, ("tiny-cuda-nn", "triton", "nerfacc")),
        (False, (), torch.float32, ("torch", "torch", "torch")),
        (True, ("tinycudann", "nerfacc"), torch.float64, ("torch", "torch", "torch")),
    ],
)
def test_it_is_chosen_for_float32_on_cuda_where_it_works(
    monkeypatch: pytest.MonkeyPatch,
    triton: bool,
    others: tuple[str, ...],
    dtype: torch.dtype,
    chosen: tuple[str, str, str],
) -> None:
    monkeypatch.setattr(backends, "has_triton", lambda: triton)
    monkeypatch.setattr(compositing, "has_triton", lambda: triton)
    for module in (networks, compositing):
        monkeypatch.setattr(module, "is_installed", others.__contains__)
    tensor: Any = OnCuda(dtype)
    shared: dict[str, Any] = dict.fromkeys(Weights.__dataclass_fields__, tensor)
    weights = Weights(**shared)
    of_points = query_backend(tensor, weights, grid_layout(PUBLISHED.grid))
    assert (of_points, backend_for(tensor), compositing_backend(tensor.device, dtype)) == chosen


def test_on_a_cpu_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_triton", lambda: True)
    tensor = torch.zeros(1, 3)
    weights = Weights(**dict.fromkeys(Weights.__dataclass_fields__, tensor))
    assert query_backend(tensor, weights, grid_layout(PUBLISHED.grid)) == "numba"
    assert backend_for(tensor) == "numba"
    assert compositing_backend(tensor.device, tensor.dtype) == "numba"


@pytest.mark.parametrize(
    ("kernels", "device", "chosen"), [("auto", "cuda", None), ("torch", "cuda", "torch"), ("triton", "cuda", "triton")]
)
def test_settings_name_the_code_of_a_field(
    monkeypatch: pytest.MonkeyPatch, kernels: FieldKernels, device: str, chosen: str | None
) -> None:
    monkeypatch.setattr(backends, "has_triton", lambda: True)
    assert configured_backend(kernels, torch.device(device)) == chosen


def test_triton_where_it_cannot_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="needs a CUDA device, and this run computes on cpu: use auto or torch$"):
        configured_backend("triton", torch.device("cpu"))
    monkeypatch.setattr(backends, "has_triton", lambda: False)
    with pytest.raises(UserError, match="needs the package triton, a C compiler and Python's headers: pip install"):
        configured_backend("triton", torch.device("cuda"))


def test_it_needs_a_compiler_and_pythons_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def works() -> bool:
        has_triton.cache_clear()
        return has_triton()

    monkeypatch.setattr(backends, "is_installed", lambda package: package == "triton")
    monkeypatch.setattr(backends.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(backends.shutil, "which", lambda _: None)
    monkeypatch.setenv("CC", "cc")
    try:
        assert not works()
        (tmp_path / "Python.h").touch()
        assert works()
        monkeypatch.delenv("CC")
        assert not works()
        monkeypatch.setattr(backends.shutil, "which", {"gcc": "/usr/bin/gcc"}.get)
        assert works()
        monkeypatch.setattr(backends, "is_installed", lambda _: False)
        assert not works()
    finally:
        has_triton.cache_clear()
