"""The launches of a step on a card, counted at the published size."""

from __future__ import annotations

from typing import get_args

import pytest
from memory_counting.meter import Part
from operators import GRAPH_LAUNCHES, on_card

from sdi_gs.configs.presets import preset


@pytest.mark.slow
def test_on_tier_24_at_most_a_fifth_of_a_steps_launches_are_outside_graphs() -> None:
    found = on_card(preset("sd21-base", prompt="a corgi"), "24")
    assert set(found["launches"]) <= {*get_args(Part), "graphs"}
    # 690 launches of the U-Net in a call; it is called 8.4 times in a mean step.
    assert found["launches"]["unet"] == pytest.approx(690 * found["calls"], rel=0.05)
    assert found["launches"]["graphs"] == pytest.approx(GRAPH_LAUNCHES * found["calls"], rel=1e-3)
    assert found["outside_graphs"] <= 0.2
