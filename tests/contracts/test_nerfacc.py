"""The call of nerfacc: its signature, and what is handed over."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.representations.ngp.backends import imported
from sdi_gs.representations.ngp.compositing import composite
from sdi_gs.representations.ngp.marching import Samples

COUNTS = (5, 0, 80, 1)


def make_samples() -> Samples:
    counts = torch.tensor(COUNTS)
    starts = torch.tensor([0, *COUNTS]).cumsum(0)
    ids = torch.repeat_interleave(torch.arange(len(COUNTS)), counts)
    distances = (torch.arange(len(ids)) - starts[ids] + 0.5) * 0.05
    return Samples(
        distances=distances, points=torch.zeros(len(ids), 3), ray_ids=ids, ray_starts=starts, step=0.05
    )  # fmt: skip


def weights_by_ray(
    t_starts: Tensor,  # [P]
    t_ends: Tensor,  # [P]
    sigmas: Tensor,  # [P]
    packed_info: Tensor,  # [R, 2] first sample and number of samples
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, transmittances and alphas [P], ray by ray, as nerfacc documents them."""
    weights, transmittances, alphas = [], [], []
    for begin, count in packed_info.tolist():
        depths = (sigmas * (t_ends - t_starts))[begin : begin + count]
        before = torch.exp(-(depths.cumsum(0) - depths))
        transmittances.append(before)
        alphas.append(1.0 - torch.exp(-depths))
        weights.append(before * alphas[-1])
    return torch.cat(weights), torch.cat(transmittances), torch.cat(alphas)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """A stand-in under nerfacc's name that keeps what it was called with."""
    kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def render_weight_from_density(*args: Any, **kwargs: Any) -> Any:
        kept.append((args, kwargs))
        return weights_by_ray(*args, **kwargs)

    stand_in = SimpleNamespace(render_weight_from_density=render_weight_from_density)
    monkeypatch.setitem(sys.modules, "nerfacc", stand_in)  # pyright: ignore[reportArgumentType]
    return kept


def test_the_call_binds_to_the_recorded_signature_with_documented_tensors(
    calls: list[Any], recorded: Callable[[str, str], inspect.Signature]
) -> None:
    samples = make_samples()
    density = torch.rand(len(samples), generator=torch.Generator().manual_seed(0)).requires_grad_()
    composite(density, torch.rand(len(samples), 3), samples, backend="nerfacc")
    ((args, kwargs),) = calls
    given = recorded("nerfacc", "render_weight_from_density").bind(*args, **kwargs).arguments
    assert set(given) == {"t_starts", "t_ends", "sigmas", "packed_info"}
    for name in ("t_starts", "t_ends", "sigmas"):
        assert given[name].shape == (86,) and given[name].dtype == torch.float32, name
    assert given["packed_info"].dtype == torch.int64
    assert given["packed_info"].tolist() == [[0, 5], [5, 0], [5, 80], [85, 1]]
    assert all(value.is_contiguous() and value.device == density.device for value in given.values())


def test_what_comes_back_blends_like_torch(calls: list[Any]) -> None:
    samples = make_samples()
    results = []
    for backend in ("nerfacc", "torch"):
        generator = torch.Generator().manual_seed(1)
        density = (3.0 * torch.rand(len(samples), generator=generator)).requires_grad_()
        made = composite(density, torch.rand((len(samples), 3), generator=generator), samples, backend=backend)
        (gradient,) = torch.autograd.grad(made.sums.square().sum() + made.opacity.sum(), density)
        results.append((made.weights, made.opacity, made.sums, gradient))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


def test_escapes_in_its_docstrings_are_nothing_to_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As nerfacc 0.5.3 has them, where no compiled code lies beside it.
    (tmp_path / "escaping.py").write_text('"""Weights \\delta."""\nHERE = True\n', encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(SyntaxError, match="invalid escape sequence"):
        import_module("escaping")
    assert imported("escaping").HERE
    assert imported("escaping") is sys.modules.pop("escaping")
