"""The levers' values: what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sdi_gs.settings.compute import ComputeConfig


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"views_at_once": -1}, r"views_at_once must be 0 \(all\) or 1 to 64, got -1"),
        ({"rays_at_once": 64}, r"rays_at_once must be 0 \(all\) or 256 to 16777216, got 64"),
        ({"branches_at_once": 65}, "branches_at_once must be"),
        ({"vae": "tiles"}, "vae must be one of whole, checkpoint, got 'tiles'"),
        ({"precision": "half"}, "precision must be one of auto, float16, bfloat16, float32"),
        ({"attention": "flash"}, "attention must be one of sdpa, plain"),
        ({"compile_unet": True, "cache_cross_attention": True}, "do not go together"),
    ],
)
def test_what_means_nothing_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ComputeConfig(**values)


def test_by_default_everything_is_done_at_once() -> None:
    assert ComputeConfig(views_at_once=0, branches_at_once=0, vae="whole") == ComputeConfig()
