"""What the settings accept."""

from __future__ import annotations

from typing import Any

import pytest

from sdi_gs.settings.ngp import PUBLISHED, HashGridConfig, NgpConfig, NgpLossConfig, ShadingConfig


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        (HashGridConfig, {"base_resolution": 15}, "base_resolution must be 16 to 512, got 15"),
        (HashGridConfig, {"num_levels": 0}, "num_levels"),
        (HashGridConfig, {"num_levels": 4, "initial_levels": 5}, "initial_levels"),
        (HashGridConfig, {"bands_start": 0.7}, "bands_start"),
        (HashGridConfig, {"growth": 0.9}, "growth"),
        (HashGridConfig, {"growth": 4.0}, "65536"),
        (HashGridConfig, {"log2_table_size": 30}, "log2_table_size"),
        (ShadingConfig, {"albedo_probability": 1.5}, "albedo_probability"),
        (ShadingConfig, {"diffuse": float("nan")}, "diffuse"),
        (ShadingConfig, {"lamp_distance": (2.0, 1.0)}, "lamp_distance"),
        (NgpLossConfig, {"orientation": -1.0}, "orientation"),
        (NgpLossConfig, {"convexity_final": float("inf")}, "convexity_final"),
        (NgpLossConfig, {"sparsity_end": 2.0}, "sparsity_end"),
        (NgpConfig, {"radius": 0.0}, "radius"),
        (NgpConfig, {"blob_scale": float("nan")}, "blob_scale"),
        (NgpConfig, {"hidden_width": 6}, "hidden_width"),
        (NgpConfig, {"samples_per_ray": 8}, "samples_per_ray"),
        (NgpConfig, {"occupancy_resolution": 8}, "occupancy_resolution must be 16 to 256, got 8"),
        (NgpConfig, {"occupancy_every": 0}, "occupancy_every"),
        (NgpConfig, {"occupancy_decay": 1.0}, "occupancy_decay"),
        (NgpConfig, {"empty_alpha": 0.5}, "empty_alpha"),
    ],
)
def test_nonsense_is_refused_by_name(kind: type[Any], wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        kind(**wrong)
    assert "\n" not in str(caught.value)


def test_the_published_preset_has_the_published_sizes() -> None:
    grid = PUBLISHED.grid
    assert (grid.num_levels, grid.initial_levels, grid.base_resolution, 2**grid.log2_table_size) == (16, 8, 16, 524_288)
    assert grid.base_resolution * grid.growth**15 == pytest.approx(4096.0)
    # A cube of half side 2, crossed in 512 steps.
    assert PUBLISHED.step_length == pytest.approx(1.7320508 * 2.0 * 2.0 / 512)
