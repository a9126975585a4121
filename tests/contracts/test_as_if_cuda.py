"""The device that is not there fails like a real one, and what makes the host wait is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from as_if_cuda import CUDA, as_if_cuda
from torch import Tensor

WAITS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "truth": lambda x: bool((x > 0.0).any()),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0.0),
    "mask": lambda x: x[x > 0.0],
    "equal": lambda x: torch.equal(x, x),
    "copy": lambda x: torch.ones(3).to(CUDA),
    "list": lambda x: torch.tensor([1.0, 2.0], device=CUDA),
    "copy_": lambda x: x.copy_(torch.ones(3)),
}
PROMPT: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: 2.0 * x.square().sum(),
    "unawaited copy": lambda x: torch.ones(3).to(CUDA, non_blocking=True),
    "filled there": lambda x: torch.full((3,), 2.0, device=CUDA),
    "masked": lambda x: torch.where(x > 0.0, x, 0.0),
    "masked fill": lambda x: x.masked_fill(x > 0.0, 1.0),
    "numbered": lambda x: x[torch.arange(2, device=CUDA)],
    "host": lambda x: torch.ones(3).sum().item(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_seen(name: str) -> None:
    with as_if_cuda() as trace:
        x = torch.rand(3, device=CUDA)
        trace.waits.clear()
        WAITS[name](x)
    assert len(trace.waits) == 1, trace.waits


@pytest.mark.parametrize("name", PROMPT)
def test_what_waits_for_nothing_is_not_counted(name: str) -> None:
    with as_if_cuda() as trace:
        x = torch.rand(3, device=CUDA)
        trace.waits.clear()
        PROMPT[name](x)
    assert trace.waits == []


def test_devices_do_not_mix() -> None:
    with as_if_cuda():
        x = torch.rand(3, device=CUDA)
        with pytest.raises(RuntimeError, match="same device"):
            torch.add(x, torch.ones(3))


def test_a_generator_fills_tensors_of_its_own_device_only() -> None:
    with as_if_cuda():
        host, device = torch.Generator().manual_seed(0), torch.Generator(CUDA).manual_seed(0)
        assert torch.rand(2, generator=device, device=CUDA).device == CUDA
        assert torch.rand(2, generator=host).tolist() != []
        with pytest.raises(RuntimeError, match="expected a generator on cuda, got one on cpu"):
            torch.rand(2, generator=host, device=CUDA)
        with pytest.raises(RuntimeError, match="expected a generator on cpu, got one on cuda"):
            torch.rand(2, generator=device)


def test_gradients_flow_on_the_device() -> None:
    with as_if_cuda() as trace:
        x = torch.rand(3, 2, device=CUDA).requires_grad_()
        (first,) = torch.autograd.grad(x[:, :1].pow(3).sum(), x, create_graph=True)
        (first.square().sum() + torch.relu(x - 0.5).sum()).backward()
        assert x.grad is not None and x.grad.device == CUDA and x.grad.shape == (3, 2)
    assert trace.waits == []


def test_a_network_made_there_may_be_told_to_go_there() -> None:
    with as_if_cuda() as trace:
        with torch.device(CUDA):
            network = torch.nn.Linear(3, 2)
        assert network.to(CUDA) is network
        assert network(torch.ones(4, 3, device=CUDA)).device == CUDA
    assert trace.waits == []
