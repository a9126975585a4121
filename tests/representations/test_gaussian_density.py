"""The density of a cloud against a float64 sum over all its Gaussians, and against rays through single ones."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.mesh import extraction
from sdi_gs.representations import gaussian_density as module
from sdi_gs.representations.gaussian_density import (
    CUT_OFF,
    MAX_OPACITY,
    density_field,
    gaussian_density,
    grid_visits,
    visible_box,
)
from sdi_gs.representations.gaussians import SH_C0, Gaussians


def random_cloud(count: int = 300, seed: int = 0) -> Gaussians:
    """Gaussians of all shapes, some of them far outside of where anybody looks."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    means = 0.4 * normal(count, 3)
    means[:3] *= 1e12
    return Gaussians(
        {
            "means": means,
            "scales": -2.5 + 0.6 * normal(count, 3),
            "quats": 3.0 * normal(count, 4),
            "opacities": 2.0 * normal(count),
            "sh0": normal(count, 1, 3),
        }
    )


def brute_force(
    gaussians: Gaussians,
    points: Tensor,  # [P, 3]
    blur: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Density [P] and colour [P, 3], every Gaussian at every point, float64."""
    params = {name: value.detach().double() for name, value in gaussians.params.items()}
    covariances, _ = _quat_scale_to_covar_preci(params["quats"], params["scales"].exp(), True, False)
    assert covariances is not None
    scale = torch.linalg.det(covariances).pow(1 / 6)
    peaks = -torch.log(1 - torch.sigmoid(params["opacities"]).clamp_max(MAX_OPACITY)) / (scale * (2 * math.pi) ** 0.5)
    wide = covariances + blur**2 * torch.eye(3).double()
    peaks = peaks * (torch.linalg.det(covariances) / torch.linalg.det(wide)).sqrt()
    offsets = points.double()[:, None] - params["means"]
    squared = torch.einsum("pni,nij,pnj->pn", offsets, torch.linalg.inv(wide), offsets)
    densities = torch.where(squared <= CUT_OFF**2, peaks * torch.exp(-0.5 * squared), 0.0)
    rgb = (0.5 + SH_C0 * params["sh0"][:, 0]).clamp(0.0, 1.0)
    total = densities.sum(dim=1)
    return total, densities @ rgb / total.clamp_min(1e-30)[:, None]


def grid(count: int, half: float) -> Tensor:
    line = torch.linspace(-half, half, count)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(-1, 3)


POINTS = {
    "scattered": lambda: torch.randn(5000, 3, generator=torch.Generator().manual_seed(1)),
    "grid": lambda: grid(17, 0.7),
    "plane": lambda: grid(33, 0.7)[: 33 * 33],
    "line": lambda: grid(201, 0.7)[:201],
    "one": lambda: torch.tensor([[0.1, 0.0, -0.2]]),
    "coinciding": lambda: torch.tensor([[0.1, 0.0, -0.2]]).expand(40, 3),
}


@pytest.mark.parametrize("blur", [0.0, 0.05])
@pytest.mark.parametrize("kind", POINTS)
def test_density_and_colour_are_the_sums_over_all_gaussians(kind: str, blur: float) -> None:
    cloud, points = random_cloud(), POINTS[kind]()
    field = gaussian_density(cloud, blur=blur)
    density, albedo = brute_force(cloud, points, blur)
    torch.testing.assert_close(field.density_of(points).double(), density, rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(field.albedo_of(points).double(), albedo, rtol=2e-6, atol=1e-6)
    assert density.max() > 0.0


def test_the_order_of_the_points_does_not_matter() -> None:
    field, points = gaussian_density(random_cloud()), POINTS["scattered"]()
    turned = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))
    assert torch.equal(field.density_of(points)[turned], field.density_of(points[turned]))


def test_no_points_have_no_density() -> None:
    field = gaussian_density(random_cloud())
    assert field.density_of(torch.zeros(0, 3)).shape == (0,)
    assert field.albedo_of(torch.zeros(0, 3)).shape == (0, 3)


def test_a_ray_through_a_round_gaussians_centre_meets_its_opacity() -> None:
    params = {
        "means": torch.tensor([[0.2, -0.1, 0.3]]),
        "scales": torch.full((1, 3), math.log(0.07)),
        "quats": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        "opacities": torch.tensor([1.1]),
        "sh0": torch.zeros(1, 1, 3),
    }
    along = torch.linspace(-0.28, 0.28, 4001)[:, None] * torch.nn.functional.normalize(
        torch.tensor([1.0, -2.0, 0.5]), dim=0
    )
    density = gaussian_density(Gaussians(params)).density_of(params["means"] + along)
    met = 1.0 - math.exp(-float(np.trapezoid(density.double().numpy(), dx=0.56 / 4000)))
    assert met == pytest.approx(torch.sigmoid(torch.tensor(1.1)).item(), rel=1e-4)


def test_blur_keeps_the_mass() -> None:
    cloud, points = random_cloud(20), grid(61, 1.2)
    inside = Gaussians({name: value.detach()[3:] for name, value in cloud.params.items()})
    masses = [gaussian_density(inside, blur=blur).density_of(points).double().sum() for blur in (0.0, 0.05)]
    torch.testing.assert_close(masses[0], masses[1], rtol=5e-3, atol=0.0)


def test_an_opaque_gaussian_has_a_finite_density() -> None:
    cloud = random_cloud(5)
    with torch.no_grad():
        cloud.params["opacities"][:] = 100.0
    assert torch.isfinite(gaussian_density(cloud).density_of(cloud.params["means"])).all()


def counted_visits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The visits of every call of the kernel, as they happen."""
    counts, kernel = [], module._accumulate

    def counting(*arguments: object) -> tuple[int, int]:
        done, visits = kernel(*arguments)
        counts.append(visits)
        return done, visits

    monkeypatch.setattr(module, "_accumulate", counting)
    return counts


def sized_cloud(scale: float, count: int = 300) -> Gaussians:
    cloud = random_cloud(count)
    with torch.no_grad():
        cloud.params["means"][:3] *= 1e-12
        cloud.params["scales"][:] = math.log(scale)
        cloud.params["scales"][::2, 0] += 2.0
    return cloud


@pytest.mark.parametrize("scale", [0.004, 0.05, 0.5, 30.0])
def test_the_visits_of_a_grid_are_foretold(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    resolution, cloud = 24, sized_cloud(scale)
    box = visible_box(cloud)
    field = gaussian_density(cloud, blur=0.5 * box.longest_side / (resolution - 1))
    axes, _ = extraction._grid_axes(box, resolution)
    counts = counted_visits(monkeypatch)
    extraction._values_on_grid(field.density_of, axes, torch.device("cpu"))
    foretold = grid_visits(field, box, resolution)
    assert 0 < sum(counts) <= foretold
    if scale > 0.1:
        assert foretold < 2.0 * sum(counts)


def test_sums_are_made_in_bands_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    field, points = gaussian_density(sized_cloud(0.3)), POINTS["grid"]()
    whole = field.density_of(points)
    counts = counted_visits(monkeypatch)
    monkeypatch.setattr(module, "BAND_VISITS", 20_000)
    assert torch.equal(field.density_of(points), whole)
    assert len(counts) > 10
    # A band ends with the Gaussian that fills it, which visits every point at most.
    assert max(counts) < 20_000 + len(points)


def test_too_many_large_gaussians_for_a_grid_are_refused_with_one_that_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cloud = sized_cloud(0.5)
    monkeypatch.setattr(module, "MOST_VISITS", 300 * 40**3)
    with pytest.raises(UserError, match="cannot make a mesh: 300 Gaussians of such a size on a grid of 128") as raised:
        density_field(cloud, resolution=128)
    taken = re.search(r"take --mesh.resolution (\d+), or fewer", str(raised.value))
    assert taken and 16 <= int(taken[1]) < 128
    density_field(cloud, resolution=int(taken[1]))
    monkeypatch.setattr(module, "MOST_VISITS", 300)
    with pytest.raises(UserError, match=r"more than 3e\+02: take fewer or smaller Gaussians"):
        density_field(cloud, resolution=128)


def test_two_hundred_thousand_large_gaussians_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted_visits(monkeypatch)
    with pytest.raises(UserError, match="200000 Gaussians of such a size"):
        density_field(sized_cloud(0.5, 200_000), resolution=128)
    assert not counts
