"""Small fields and cameras that the tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.ngp import HashGridConfig, NgpConfig

SMALL = NgpConfig(
    grid=HashGridConfig(num_levels=4, initial_levels=4, log2_table_size=12), hidden_width=8, samples_per_ray=64
)


@pytest.fixture
def make_ngp() -> Callable[..., Ngp]:
    return _make_ngp


def _make_ngp(config: NgpConfig = SMALL, *, roughness: float = 0.0, dtype: torch.dtype = torch.float32) -> Ngp:
    """Return an initial field; features of some size make it bumpy and colourful."""
    generator = torch.Generator().manual_seed(0)
    ngp = Ngp(config, generator=generator, device=torch.device("cpu"))
    params = ngp.field.params
    for name in list(params):
        params[name] = nn.Parameter(params[name].detach().to(dtype))
    noise = torch.randn(params["table"].shape, generator=generator)
    params["table"].data += (roughness * noise).to(dtype)
    return ngp


@pytest.fixture
def make_cameras() -> Callable[..., CameraBatch]:
    return _make_cameras


def _make_cameras(count: int = 2, size: int = 24) -> CameraBatch:
    return orbit_cameras(
        torch.arange(count) * 100.0 + 20.0,
        torch.arange(count) * 20.0,
        torch.full((count,), 3.3),
        torch.full((count,), 40.0),
        width=size,
        height=size,
    )
