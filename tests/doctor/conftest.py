"""Made-up machines, and a setup of the checks: a CPU compared with itself, at the smallest size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from machines import machine, program  # noqa: F401

from sdi_gs.configs.presets import preset_named
from sdi_gs.doctor.check_setup import CPU, DRY_RUN, CheckSetup
from sdi_gs.doctor.rows import Row

TINY = replace(DRY_RUN, gaussians=60, image_size=24, growth_steps=60, growth_image_size=24, throughput=((100, 16),))


@pytest.fixture(autouse=True)
def one_thread_in_every_test(one_thread: None) -> None:
    """Every test here computes on small tensors."""


@pytest.fixture
def setup() -> CheckSetup:
    return CheckSetup(
        device=CPU,
        size=TINY,
        toybox=preset_named("smoke").config,
        stable_diffusion=replace(preset_named("sd21-base").config, views_per_step=2),
    )


@pytest.fixture
def failures() -> Callable[[Iterable[Row]], list[str]]:
    """Return the quantities that failed."""
    return lambda rows: [row.what for row in rows if row.verdict == "fail"]
