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
        ({"field_kernels": "cuda"}, "field_kernels must be one of auto, triton, torch, got 'cuda'"),
        ({"attention": "flash"}, "attention must be one of sdpa, plain"),
        ({"vae_views_at_once": -1}, "vae_views_at_once must be"),
        ({"vae_precision": "fp8"}, "vae_precision must be one of auto, float16, bfloat16, float32"),
        ({"compile_unet": True, "cache_cross_attention": True}, "compile_unet and cache_cross_attention do not go"),
        ({"cuda_graphs": True, "cache_cross_attention": True}, "cuda_graphs and cache_cross_attention do not go"),
        ({"cuda_graphs": True, "compile_unet": True}, "cuda_graphs and compile_unet do not go together"),
        ({"compile_mode": "reduce-overhead"}, "for a compiled U-Net: add compile_unet"),
    ],
)
def test_what_means_nothing_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ComputeConfig(**values)


@pytest.mark.parametrize(("views", "of_vae", "together"), [(0, 0, 0), (0, 1, 1), (2, 0, 2), (2, 4, 2), (4, 1, 1)])
def test_the_vae_takes_no_more_views_than_the_step(views: int, of_vae: int, together: int) -> None:
    assert ComputeConfig(views_at_once=views, vae_views_at_once=of_vae).encoded_at_once == together


def test_by_default_everything_is_done_at_once() -> None:
    assert ComputeConfig(views_at_once=0, branches_at_once=0, vae="whole") == ComputeConfig()
