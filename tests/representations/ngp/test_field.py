"""The field: its bump, its levels over a run, its normals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.ngp import PUBLISHED, HashGridConfig, Initialisation, NgpConfig

from_origin = torch.tensor([[0.0, 0.0, 0.1], [0.3, 0.0, 0.0], [0.0, -0.5, 0.0], [0.6, 0.6, 0.6]])


def test_an_empty_table_leaves_the_bump_and_grey(make_ngp: Callable[..., Ngp]) -> None:
    ngp = make_ngp()
    ngp.field.params["table"].data.zero_()
    expected = F.softplus(10.0 * (1.0 - from_origin.norm(dim=-1) / 0.5))
    torch.testing.assert_close(ngp.density_of(from_origin), expected)
    torch.testing.assert_close(ngp.albedo_of(from_origin), torch.full((4, 3), 0.5))
    torch.testing.assert_close(ngp.normals_of(from_origin), F.normalize(from_origin, dim=-1))


def test_there_is_nothing_outside_the_cube(make_ngp: Callable[..., Ngp]) -> None:
    points = torch.tensor([[1.01, 0.0, 0.0], [0.0, 0.0, -1.5], [0.99, 0.0, 0.0]])
    assert (make_ngp(roughness=1.0).density_of(points) > 0.0).tolist() == [False, False, True]


def test_normals_follow_finite_differences_of_density(make_ngp: Callable[..., Ngp]) -> None:
    ngp = make_ngp(roughness=0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    points = 1.2 * torch.rand((300, 3), generator=generator, dtype=torch.float64) - 0.6
    delta = 1e-7
    differences = [
        ngp.density_of(points + step) - ngp.density_of(points - step) for step in delta * torch.eye(3).double()
    ]
    gradient = torch.stack(differences, dim=-1) / (2.0 * delta)
    cosines = (ngp.normals_of(points) * -F.normalize(gradient, dim=-1)).sum(dim=-1)
    # A difference across the face of a cell or a ReLU's corner sees two slopes.
    assert (cosines > 1.0 - 1e-6).double().mean() > 0.99
    assert cosines.min() > -1.0
    # They are not the bump's alone.
    assert (ngp.normals_of(points) * F.normalize(points, dim=-1)).sum(dim=-1).mean() < 0.98


def test_float32_kernels_and_float64_torch_agree_on_the_field(make_ngp: Callable[..., Ngp]) -> None:
    points = 1.8 * torch.rand((2000, 3), generator=torch.Generator().manual_seed(4)) - 0.9
    ours = make_ngp(roughness=0.3).field.values_at(points, with_normals=True)
    truth = make_ngp(roughness=0.3, dtype=torch.float64).field.values_at(points.double(), with_normals=True)
    torch.testing.assert_close(ours.density.double(), truth.density, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.albedo.double(), truth.albedo, rtol=1e-3, atol=1e-4)
    assert ours.normals is not None
    assert truth.normals is not None
    # Rounding moves a few points across the face of a cell, where normals jump.
    assert ((ours.normals - truth.normals).norm(dim=-1) < 1e-3).double().mean() > 0.99


@pytest.mark.parametrize(
    ("step", "levels"),
    [(0, 8), (2000, 8), (2499, 8), (2500, 9), (3999, 11), (4000, 12), (5999, 15), (6000, 16), (10_000, 16)],
)
def test_levels_join_as_in_the_published_run(step: int, levels: int) -> None:
    config = replace(PUBLISHED, grid=replace(PUBLISHED.grid, log2_table_size=8))
    ngp = Ngp(config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert ngp.field.levels_at(step / 10_000) == levels


def test_all_levels_at_once_need_no_schedule() -> None:
    grid = HashGridConfig(num_levels=3, initial_levels=3, bands_start=0.0, bands_end=0.0, log2_table_size=8)
    ngp = Ngp(NgpConfig(grid=grid), generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert [ngp.field.levels_at(progress) for progress in (0.0, 0.5, 1.0)] == [3, 3, 3]


def test_fields_of_one_seed_are_equal(make_ngp: Callable[..., Ngp]) -> None:
    one, other = make_ngp().parameters(), make_ngp().parameters()
    assert set(one) == {f"field.{n}" for n in ("table", "density_hidden", "density_out", "albedo_hidden", "albedo_out")}
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["field.table"].abs().max() <= 1e-4


@pytest.mark.parametrize(("initialisation", "squared"), [("he", 6.0), ("published", 1.0)])
def test_first_weights_fill_the_range_of_their_initialisation(initialisation: Initialisation, squared: float) -> None:
    grid = HashGridConfig(num_levels=8, initial_levels=8, log2_table_size=8)
    config = NgpConfig(grid=grid, hidden_width=64, background="environment", initialisation=initialisation)
    ngp = Ngp(config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert ngp.environment is not None
    for weights in (
        ngp.field.params["density_hidden"],
        ngp.field.params["albedo_out"],
        ngp.environment.params["second"],
    ):
        bound = (squared / weights.shape[0]) ** 0.5
        assert 0.95 * bound < weights.abs().max() <= bound
        assert weights.std().item() == pytest.approx(bound / 3.0**0.5, rel=0.12)


def test_the_published_initialisation_is_that_of_a_torch_layer() -> None:
    config = replace(PUBLISHED, grid=replace(PUBLISHED.grid, log2_table_size=8))
    ngp = Ngp(config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    weights = ngp.field.params["albedo_hidden"]
    torch.manual_seed(0)
    layer = torch.nn.Linear(*weights.shape, bias=False)
    assert weights.std().item() == pytest.approx(layer.weight.std().item(), rel=0.03)


@pytest.mark.parametrize(("degree", "bases"), [(0, 1), (2, 9), (3, 16)])
def test_the_environment_has_the_bases_of_its_degree(degree: int, bases: int) -> None:
    config = NgpConfig(
        grid=HashGridConfig(num_levels=2, initial_levels=2, log2_table_size=8),
        background="environment",
        environment_degree=degree,
    )
    ngp = Ngp(config, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert ngp.environment is not None
    assert ngp.environment.params["first"].shape == (bases, 16)
    colours = ngp.environment.colours(F.normalize(from_origin, dim=-1))
    assert (colours[0] - colours[1]).abs().max().item() == 0.0 if degree == 0 else (colours[0] != colours[1]).any()
