"""What the checks are tried on: a CPU beside itself, at the smallest size that still shows a difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.doctor.rig import CPU, DRY_RUN, Rig
from sdi_gs.doctor.rows import Row

TINY = replace(DRY_RUN, gaussians=60, image_size=24, growth_steps=60, growth_image_size=24, throughput=((100, 16),))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Operations this small only get slower when they are shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rig() -> Rig:
    return Rig(
        device=CPU,
        size=TINY,
        toybox=preset_named("smoke").config,
        stable_diffusion=replace(preset_named("sd21-base").config, views_per_step=2),
    )


@pytest.fixture
def failures() -> Callable[[Iterable[Row]], list[str]]:
    """The quantities that failed."""
    return lambda rows: [row.what for row in rows if row.verdict == "fail"]
