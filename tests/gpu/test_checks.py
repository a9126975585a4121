"""What `sdi-gs doctor --full` asks of a card, one test per check."""

from __future__ import annotations

import pytest
import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.doctor.check_setup import FULL, CheckSetup
from sdi_gs.doctor.checks import run_checks
from sdi_gs.settings.check_names import CHECK_NAMES, CheckName

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.mark.parametrize("name", CHECK_NAMES)
def test_the_card_passes(name: CheckName) -> None:
    setup = CheckSetup(
        device=torch.device("cuda"),
        size=FULL,
        toybox=preset_named("toybox-ideal").config,
        stable_diffusion=preset_named("sd21-base").config,
    )
    [result] = run_checks(setup, [name])
    assert result.trace is None, result.trace
    assert [row for row in result.rows if row.verdict == "fail"] == []
