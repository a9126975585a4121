"""Cameras rasterised a few at a time: the same pictures, the same gradients, the same word to densification."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.contracts import RenderOutput
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.representations.view_groups import render_in_groups
from sdi_gs.settings.gaussians import GaussiansConfig

VIEWS = 5


def cloud() -> Gaussians:
    config = GaussiansConfig(num_initial=200, initial_opacity=0.4, initial_colour_spread=0.2)
    draws = torch.Generator().manual_seed(0)
    gaussians = gaussian_ball(config, generator=draws, device=torch.device("cpu"))
    # Round ones would have no gradient in their rotation.
    gaussians.params["scales"].data += 0.3 * torch.randn(200, 3, generator=draws)
    return gaussians


def cameras() -> CameraBatch:
    # Near enough for some Gaussians to be out of some pictures.
    return orbit_cameras(
        torch.arange(VIEWS) * 360.0 / VIEWS,
        torch.full((VIEWS,), 20.0),
        torch.full((VIEWS,), 0.9),
        torch.full((VIEWS,), 40.0),
        width=40,
        height=24,
    )


def rendered(at_once: int) -> tuple[RenderOutput, dict[str, Tensor]]:
    """A render whose loss mixes all views, and the gradients of the parameters."""
    gaussians = cloud()
    background = torch.rand(VIEWS, 3, generator=torch.Generator().manual_seed(1))
    render = render_in_groups(gaussians, cameras(), background, at_once)
    render.meta["means2d"].retain_grad()
    # Divided by something of all views, as a mean over what is hit would be.
    loss = (render.rgb.square().mean() + render.alpha.mean()) / render.alpha.square().sum()
    loss.backward()
    return render, {name: value.grad for name, value in gaussians.params.items() if value.grad is not None}


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_groups_of_views_give_what_all_at_once_give(at_once: int) -> None:
    (whole, gradients), (grouped, others) = rendered(0), rendered(at_once)
    assert torch.equal(whole.rgb, grouped.rgb)
    assert torch.equal(whole.alpha, grouped.alpha)
    assert set(gradients) == set(others)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("at_once", [1, 2])
def test_densification_is_told_the_same(at_once: int) -> None:
    (whole, _), (grouped, _) = rendered(0), rendered(at_once)
    assert torch.equal(whole.meta["radii"], grouped.meta["radii"])
    assert (whole.meta["radii"] == 0).any()
    for key in ("width", "height", "n_cameras", "gaussian_ids"):
        assert whole.meta[key] == grouped.meta[key], key
    expected, found = whole.meta["means2d"].grad, grouped.meta["means2d"].grad
    assert torch.equal(expected, found)
    assert all(float(view.abs().max()) > 0.0 for view in found)


def test_without_gradients_there_is_nothing_to_gather() -> None:
    with torch.no_grad():
        render = render_in_groups(cloud(), cameras(), torch.ones(VIEWS, 3), 2)
    assert not render.rgb.requires_grad
    assert render.meta["means2d"].grad is None


def test_depths_are_those_of_all_views_at_once() -> None:
    whole, grouped = (
        render_in_groups(cloud(), cameras(), torch.ones(VIEWS, 3), at_once, with_depth=True) for at_once in (0, 2)
    )
    assert whole.depth is not None
    assert grouped.depth is not None
    assert torch.equal(whole.depth, grouped.depth)
    assert render_in_groups(cloud(), cameras(), torch.ones(VIEWS, 3), 2).depth is None
