"""The optimiser of runs against torch's own."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.representations.adam import RunAdam
from sdi_gs.representations.gaussians import gaussian_optimizers
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.scene import ngp_optimizers
from sdi_gs.representations.saved_state import require_adam
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.ngp import NgpConfig

WITHOUT_COMPILER = """
import sys, torch
from sdi_gs.errors import UserError
from sdi_gs.representations.adam import RunAdam
from sdi_gs.representations.saved_state import require_adam
value = torch.ones(3, requires_grad=True)
adam = RunAdam([value], lr=0.1)
value.square().sum().backward()
adam.step()
adam.zero_grad()
adam.load_state_dict(adam.state_dict())
assert "torch._dynamo" not in sys.modules
"""


def test_steps_and_state_have_the_bits_of_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, 3, generator=generator)
    params = [start.clone().requires_grad_() for _ in range(2)]
    ours, theirs = (
        kind([value], lr=0.01, betas=(0.8, 0.99), eps=1e-15)
        for kind, value in zip((RunAdam, torch.optim.Adam), params, strict=True)
    )
    for step in range(6):
        gradient = torch.randn(start.shape, generator=generator)
        for adam, value in zip((ours, theirs), params, strict=True):
            value.grad = gradient.clone()
            adam.step()
            adam.zero_grad(set_to_none=True)
            assert value.grad is None
        assert torch.equal(*params)
        if step == 3:
            other = RunAdam([params[0]], lr=0.5)
            other.load_state_dict(ours.state_dict())
            ours = other
    states = [adam.state_dict() for adam in (ours, theirs)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for name, value in states[1]["state"][0].items():
        assert torch.equal(states[0]["state"][0][name], value), name


def test_a_closure_is_called_with_gradients_on() -> None:
    value = torch.ones(2, requires_grad=True)
    adam = RunAdam([value], lr=0.1)

    def loss() -> torch.Tensor:
        adam.zero_grad()
        total = value.square().sum()
        total.backward()
        return total

    assert adam.step(loss).item() == pytest.approx(2.0)
    torch.testing.assert_close(value.detach(), torch.full((2,), 0.9))


def test_no_compiler_is_imported_for_it() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], check=True)


@pytest.mark.parametrize("number", [2**70, 1e16, -1.0, float("nan"), True])
def test_a_saved_option_that_is_no_sensible_number_is_refused(number: float) -> None:
    adam = RunAdam([torch.ones(3, requires_grad=True)], lr=0.1)
    saved = adam.state_dict()
    require_adam(saved, adam, "optimizer")
    saved["param_groups"][0]["weight_decay"] = number
    with pytest.raises(UserError, match="param_groups has another weight_decay"):
        require_adam(saved, adam, "optimizer")


@pytest.mark.parametrize("fused", [True, False])
def test_fused_adam_is_that_of_every_parameter(fused: bool) -> None:
    names = ("means", "quats", "scales", "opacities", "sh0")
    gaussians: Any = SimpleNamespace(params={name: torch.ones(2, 3, requires_grad=True) for name in names})
    field = Ngp(NgpConfig(background="environment"), generator=torch.Generator(), device=torch.device("cpu"))
    of_gaussians = gaussian_optimizers(gaussians, GaussiansConfig(), fused=fused)
    of_field = ngp_optimizers(field, fused=fused)
    assert set(of_gaussians) == set(names) and set(of_field) == {"field", "environment"}
    groups = [group for adam in (*of_gaussians.values(), *of_field.values()) for group in adam.param_groups]
    # None leaves the choice to torch, which takes foreach on CUDA.
    assert {group["fused"] for group in groups} == {True if fused else None}
    of_all = sum(len(group["params"]) for group in groups)
    assert of_all == len(names) + len(field.parameters())
