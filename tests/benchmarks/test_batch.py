"""The simulated batch: few rows, the same code."""

from __future__ import annotations

from batch_scale import simulated


def test_a_simulated_batch_ends_every_row_once_and_keeps_its_workers_busy() -> None:
    figures = simulated(600, 16)
    assert figures["finished"] + figures["failed"] == 600
    assert figures["failed"] > 0
    assert figures["restarts"] > 0
    assert figures["idle_share"] <= 0.02
    assert figures["driver_ms_per_row"] < 20.0
