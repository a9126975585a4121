"""How many samples a field's rays have, beside what a field of that size really traces."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from memory_counting.counted_triton import triton_counted
from memory_counting.field_samples import OBJECT_RADIUS, SIDE, SamplesPerRay, samples_of_rays, shares_met
from memory_counting.meter import StepMeter

from sdi_gs.cameras import camera_rays, sample_cameras
from sdi_gs.configs.presets import preset_named
from sdi_gs.representations.ngp.marching import march
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.ngp import PUBLISHED, NgpConfig
from sdi_gs.settings.run import RunConfig

pytestmark = pytest.mark.slow


def config(ngp: NgpConfig | None = None, **compute: Any) -> RunConfig:
    base = preset_named("sd21-base").config
    field = ngp or NgpConfig()
    return replace(base, representation="ngp", ngp=field, views_per_step=1, compute=ComputeConfig(**compute))


def test_the_mean_is_what_other_cameras_meet() -> None:
    settings, generator = config(), torch.Generator().manual_seed(9)
    found = samples_of_rays(settings, image_size=SIDE)
    mean, (largest,) = found.mean, found.fullest
    ngp = Ngp(settings.ngp, generator=generator, device=torch.device("cpu"))
    ngp.field.num_levels = settings.ngp.grid.num_levels
    cameras = sample_cameras(settings.cameras, 16, width=48, height=48, generator=generator)
    render = ngp.render_for_training(cameras, torch.ones(16, 3), progress=1.0, generator=generator)
    drawn = len(render.sample_weights) / (16 * 48 * 48)
    assert mean.drawn == pytest.approx(drawn, rel=0.1)
    assert mean.tested < largest.tested
    assert mean.drawn < largest.drawn


def test_a_mean_step_marches_through_an_object_and_not_through_the_cube() -> None:
    # A field whose start is smaller than the ball, so that the ball's cells are all there are.
    settings = config(replace(PUBLISHED, blob_radius=0.2))
    found = samples_of_rays(settings, image_size=SIDE)
    mean, (largest,) = found.mean, found.fullest
    # Chords of a ball are two thirds of its diameter, on the mean over its disc.
    of_a_ball = 2.0 / 3.0 * 2.0 * OBJECT_RADIUS * settings.ngp.radius / settings.ngp.step_length
    assert mean.drawn < mean.tested < 1.1 * of_a_ball
    assert mean.tested < 0.6 * largest.tested


def test_small_groups_may_have_more_than_the_mean_and_hold_less_in_all() -> None:
    whole, parted = (samples_of_rays(config(rays_at_once=rays), image_size=128) for rays in (0, 2048))
    assert whole.mean == parted.mean
    (all_at_once,), groups = whole.fullest, parted.fullest
    assert len(groups) == 8
    drawn = [group.drawn for group in groups]
    assert drawn == sorted(drawn, reverse=True)
    assert all_at_once.drawn < drawn[0] < 8 * all_at_once.drawn
    # All groups but one are those of the step that draws most when its rays are traced together.
    others = sum(drawn[1:]) / len(drawn)
    assert others < all_at_once.drawn <= others + drawn[0] / len(drawn) + 1e-9
    # With the most for every group the step would hold more than it draws.
    assert drawn[0] > 1.5 * all_at_once.drawn


def test_finer_steps_test_more() -> None:
    few, many = (samples_of_rays(config(ngp), image_size=SIDE).mean.tested for ngp in (NgpConfig(), PUBLISHED))
    assert many > 3 * few


@pytest.mark.parametrize("by_triton", [False, True])
def test_a_meter_finds_as_many_samples_as_it_is_told(by_triton: bool) -> None:
    settings = config()
    told = SamplesPerRay(tested=50.0, drawn=10.0, sector_share=0.5)
    cameras = sample_cameras(settings.cameras, 1, width=SIDE, height=SIDE, generator=torch.Generator().manual_seed(0))
    occupied = torch.ones(32, 32, 32, dtype=torch.bool, device="meta")
    meter = StepMeter(assumptions=shares_met(settings.ngp, told))
    with meter, triton_counted(meter) if by_triton else nullcontext():
        rays = camera_rays(cameras.to(torch.device("meta")))
        offsets = torch.zeros(len(rays), device="meta")
        samples = march(rays, occupied, settings.ngp.radius, step=settings.ngp.step_length, offsets=offsets)
        kept = samples.keep(samples.distances > 0.0)
    assert len(samples) == pytest.approx(50 * SIDE**2, rel=1e-3)
    assert len(kept) == pytest.approx(10 * SIDE**2, rel=1e-3)


def test_samples_after_one_another_share_the_corners_of_a_coarse_grid() -> None:
    def share(levels: int) -> float:
        grid = replace(PUBLISHED.grid, num_levels=levels, initial_levels=1)
        return samples_of_rays(config(replace(PUBLISHED, grid=grid)), image_size=SIDE).mean.sector_share

    # A cell of the coarsest level is 18 steps wide, and neighbours in x lie in one sector.
    assert 1.0 / 32.0 < share(1) < 4.0 / 18.0
    assert share(1) < share(8) < share(16) < 1.0


def test_a_field_by_triton_moves_less_than_by_torch() -> None:
    config_of_field = config(rays_at_once=2**14)
    samples = SamplesPerRay(tested=50.0, drawn=10.0, sector_share=1.0)
    moved = []
    for by_triton in (False, True):
        meter = StepMeter(assumptions=shares_met(config_of_field.ngp, samples))
        with meter, triton_counted(meter) if by_triton else nullcontext():
            device = torch.device("meta")
            generator = torch.Generator().manual_seed(0)
            ngp = Ngp(config_of_field.ngp, generator=generator, device=device)
            cameras = sample_cameras(config_of_field.cameras, 1, width=SIDE, height=SIDE, generator=generator)
            render = ngp.render_for_training(
                cameras.to(device), torch.ones(1, 3, device=device), progress=1.0, generator=generator
            )
            render.rgb.sum().backward()
        moved.append((sum(operation.traffic for operation in meter.operations), len(meter.operations)))
    (torch_bytes, torch_launches), (triton_bytes, triton_launches) = moved
    assert triton_bytes < 0.5 * torch_bytes
    assert triton_launches < 0.5 * torch_launches
