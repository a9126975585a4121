"""The diffuse material and the mix of lit and plain views."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.representations.ngp.shading import Lighting, draw_lighting, shade
from sdi_gs.settings.ngp import ShadingConfig


def test_light_is_ambient_plus_lambert() -> None:
    lighting = Lighting(
        lit=torch.tensor([True, True, False]),
        textured=torch.tensor([True, False, True]),
        lamps=torch.tensor([[0.0, 0.0, 2.0]]).expand(3, 3),
    )
    albedo = torch.tensor([[0.5, 0.2, 0.0]])
    half = 0.5**0.5
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, half, half], [0.0, 0.0, -1.0]])
    views, normal_ids = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    colours = shade(
        ShadingConfig(), lighting, albedo.expand(9, 3), normals[normal_ids], torch.zeros(9, 3), views
    ).unflatten(0, (3, 3))
    light = torch.tensor([1.0, 0.1 + 0.9 * half, 0.1])
    torch.testing.assert_close(colours[0], light[:, None] * albedo)
    torch.testing.assert_close(colours[1], light[:, None].expand(3, 3))
    torch.testing.assert_close(colours[2], albedo.expand(3, 3))


def test_views_are_lit_in_the_published_shares(make_cameras: Callable[..., CameraBatch]) -> None:
    cameras, generator = make_cameras(64, 16), torch.Generator().manual_seed(0)
    config = ShadingConfig(enabled=True)
    lights = [draw_lighting(config, cameras, 0.5, generator=generator) for _ in range(60)]
    drawn = [light for light in lights if light is not None]
    assert len(drawn) == 60
    lit, textured = torch.cat([x.lit for x in drawn]), torch.cat([x.textured for x in drawn])
    assert lit.double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert textured[~lit].all()
    assert textured[lit].double().mean().item() == pytest.approx(0.25, abs=0.05)
    distances = torch.cat([x.lamps for x in drawn]).norm(dim=-1)
    assert 0.8 <= distances.min() < 0.81
    assert 1.49 < distances.max() <= 1.5


def test_early_views_show_albedo(make_cameras: Callable[..., CameraBatch]) -> None:
    cameras, generator = make_cameras(64, 16), torch.Generator().manual_seed(0)
    assert draw_lighting(ShadingConfig(enabled=True), cameras, 0.099, generator=generator) is None
    assert draw_lighting(ShadingConfig(), cameras, 0.5, generator=generator) is None
    assert draw_lighting(ShadingConfig(enabled=True), cameras, 0.1, generator=generator) is not None
