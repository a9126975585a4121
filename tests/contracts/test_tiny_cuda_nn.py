"""The adapter to tiny-cuda-nn, run on the CPU against a stand-in that behaves as its bindings document."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from as_if_cuda import CUDA, as_if_cuda
from torch import Tensor

from sdi_gs.cameras import orbit_cameras
from sdi_gs.representations.ngp import backends, networks, tiny_cuda_nn
from sdi_gs.representations.ngp.hash_grid import GridLayout, grid_layout
from sdi_gs.representations.ngp.networks import QueryBackend, Weights, query, query_backend
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.scene import ngp_losses
from sdi_gs.settings.ngp import PUBLISHED, HashGridConfig, NgpConfig

GRID = HashGridConfig(num_levels=4, initial_levels=2, log2_table_size=12)
HIDDEN = 12


def make_weights(layout: GridLayout, dtype: torch.dtype, device: torch.device | None = None) -> Weights:
    generator = torch.Generator().manual_seed(0)
    width = 2 * layout.num_levels

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype).requires_grad_()

    return Weights(
        table=normal(layout.num_entries, 2),
        density_hidden=normal(width, HIDDEN),
        density_out=normal(HIDDEN),
        albedo_hidden=normal(width, HIDDEN),
        albedo_out=normal(HIDDEN, 3),
    )


def make_points(layout: GridLayout, count: int) -> Tensor:  # [count, 3]
    """Points that float32 puts into the same cells as float64."""
    points = torch.rand((4 * count, 3), generator=torch.Generator().manual_seed(1))
    shares = torch.stack([(points * scale + 0.5) % 1.0 for scale in layout.scales])
    return points[((shares > 1e-3) & (shares < 1.0 - 1e-3)).all(dim=-1).all(dim=0)][:count]


def outputs_and_gradients(
    backend: QueryBackend, dtype: torch.dtype, count: int, *, num_levels: int, with_slopes: bool
) -> list[Tensor]:
    """raw, logits, slopes where wanted, and the gradients of a random quadratic form of them by all weights."""
    layout = grid_layout(GRID)
    weights = make_weights(layout, dtype)
    seen = query(
        make_points(layout, count).to(dtype),
        weights,
        layout,
        num_levels=num_levels,
        with_colour=True,
        with_slopes=with_slopes,
        backend=backend,
    )
    outputs = [part for part in (seen.raw, seen.logits, seen.slopes) if part is not None]
    generator = torch.Generator().manual_seed(2)
    # Transposed, so that the gradients arrive with strides that no pointer would guess.
    forms = [(part.T.square() * torch.randn(part.T.shape, generator=generator)).sum() for part in outputs]
    gradients = torch.autograd.grad(torch.stack(forms).sum(), weights.tensors(), materialize_grads=True)
    return [part.detach().double() for part in (*outputs, *gradients)]


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors of dimension other than 2")
@pytest.mark.parametrize("with_slopes", [False, True])
# A batch that is padded, and one that fits the granularity of 256.
@pytest.mark.parametrize("count", [37, 512])
@pytest.mark.parametrize("num_levels", [2, 4])
def test_results_and_gradients_are_those_of_the_torch_path(
    num_levels: int, count: int, with_slopes: bool, tinycudann: ModuleType
) -> None:
    wanted = {"num_levels": num_levels, "with_slopes": with_slopes}
    ours = outputs_and_gradients("tiny-cuda-nn", torch.float32, count, **wanted)
    truth = outputs_and_gradients("torch", torch.float64, count, **wanted)
    assert len(ours) == len(truth) == 2 + with_slopes + 5
    for part, true in zip(ours, truth, strict=True):
        assert (part - true).norm() <= 2e-5 * true.norm()


def test_levels_not_in_use_show_nothing_and_learn_nothing(tinycudann: ModuleType) -> None:
    layout = grid_layout(GRID)
    table = torch.ones((layout.num_entries, 2), requires_grad=True)
    encoded = tiny_cuda_nn.encode(make_points(layout, 40), table, layout, num_levels=2)
    assert encoded.features.shape == (40, 8)
    torch.testing.assert_close(encoded.features.detach()[:, :4], torch.ones(40, 4))
    assert (encoded.features[:, 4:] == 0.0).all()
    encoded.features.sum().backward()
    assert table.grad is not None
    used = layout.offsets[2]
    assert (table.grad[:used] > 0.0).any()
    assert (table.grad[used:] == 0.0).all()


def test_normals_can_be_had_without_gradients(tinycudann: ModuleType) -> None:
    layout = grid_layout(GRID)
    weights, points = make_weights(layout, torch.float32), make_points(layout, 50)
    wanted: dict[str, Any] = {"num_levels": 4, "with_colour": False, "with_slopes": True}
    with torch.no_grad():
        ours = query(points, weights, layout, backend="tiny-cuda-nn", **wanted)
        truth = query(points, weights, layout, backend="torch", **wanted)
    assert ours.slopes is not None and not ours.slopes.requires_grad
    assert not ours.raw.requires_grad
    torch.testing.assert_close(ours.slopes, truth.slopes, rtol=1e-4, atol=1e-3)


# Views one by one are rendered once more in the backward pass.
@pytest.mark.parametrize("views_at_once", [0, 1])
def test_a_training_step_of_the_field_is_that_of_the_torch_path(
    views_at_once: int, tinycudann: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = orbit_cameras(
        torch.tensor([20.0, 120.0]), torch.tensor([0.0, 20.0]), torch.full((2,), 3.3), torch.full((2,), 40.0),
        width=24, height=24,
    )  # fmt: skip
    results = []
    for backend in ("tiny-cuda-nn", "torch"):
        monkeypatch.setattr(networks, "query_backend", lambda *_, backend=backend: backend)
        generator = torch.Generator().manual_seed(0)
        config = NgpConfig(grid=GRID, hidden_width=8, samples_per_ray=64, blob_scale=4.0)
        ngp = Ngp(config, generator=generator, device=torch.device("cpu"))
        ngp.field.params["table"].data += 0.1 * torch.randn(ngp.field.params["table"].shape, generator=generator)
        ngp.before_step(0.3, generator, num_steps=1000)
        render = ngp.render_for_training(
            cameras, torch.ones(2, 3), progress=0.3, generator=generator, views_at_once=views_at_once
        )
        terms = ngp_losses(ngp.config.losses, render, cameras, 0.3)
        (render.rgb.square().mean() + torch.stack(list(terms.values())).sum()).backward()
        assert ngp.field.num_levels == 2, "bands are part of what is compared"
        gradients = {name: value.grad for name, value in ngp.parameters().items() if value.grad is not None}
        results.append({"rgb": render.rgb.detach(), **gradients})
    ours, truth = results
    assert ours.keys() == truth.keys() >= {"field.table", "field.density_hidden"}
    for name, value in truth.items():
        assert (ours[name] - value).norm() <= 1e-3 * value.norm(), name
    assert len(tinycudann.made) == 1, "one module per number of levels"


def test_calls_bind_to_the_recorded_signatures(
    tinycudann: ModuleType, recorded: Callable[[str, str], inspect.Signature]
) -> None:
    layout = grid_layout(GRID)
    with torch.no_grad():
        tiny_cuda_nn.encode(make_points(layout, 5), torch.ones(layout.num_entries, 2), layout, num_levels=3)
    for name in ("__init__", "forward"):
        ours = inspect.signature(getattr(tinycudann.Encoding, name)).parameters.values()
        theirs = recorded("tinycudann", f"Encoding.{name}").parameters.values()
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
    (made,) = tinycudann.made
    assert made["encoding_config"] == {
        "otype": "HashGrid",
        "n_levels": 3,
        "n_features_per_level": 2,
        "log2_hashmap_size": 12,
        "base_resolution": 16,
        "per_level_scale": GRID.growth,
        "interpolation": "Linear",
    }
    ((points, table),) = tinycudann.seen
    assert points.dtype == table.dtype == torch.float32 and points.shape == (5, 3)
    assert points.is_contiguous() and table.is_contiguous() and table.shape == (2 * layout.offsets[3],)


@pytest.mark.parametrize(
    ("grid", "same"),
    [
        (PUBLISHED.grid, True),
        (HashGridConfig(), True),
        # Powers of two are exact in float32, and so is a single size for all levels.
        (HashGridConfig(growth=2.0), True),
        (HashGridConfig(growth=1.0), True),
        # 16 * 1.25 - 1 is 19: rounding decides between 20 and 21 vertices of a dense level.
        (HashGridConfig(growth=1.25, log2_table_size=19), False),
        # The same on a hashed level counts no vertices.
        (HashGridConfig(growth=1.25, log2_table_size=8), True),
    ],
)
def test_grids_on_whose_size_float32_might_differ_stay_with_torch(grid: HashGridConfig, same: bool) -> None:
    assert tiny_cuda_nn.same_grid(grid_layout(grid)) is same


def test_it_is_chosen_for_float32_on_cuda_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = grid_layout(GRID)
    chosen = {}

    def install(*packages: str) -> None:
        monkeypatch.setattr(networks, "is_installed", packages.__contains__)

    monkeypatch.setattr(backends, "has_triton", lambda: False)
    with as_if_cuda():
        weights, doubles = (make_weights(layout, dtype, CUDA) for dtype in (torch.float32, torch.float64))
        points = torch.rand(3, 3, device=CUDA)
        for there in (True, False):
            install(*["tinycudann"] * there)
            chosen[there] = query_backend(points, weights, layout)
        install("tinycudann")
        others = [
            query_backend(points.double(), doubles, layout),
            query_backend(points[:0], weights, layout),
            query_backend(points.clone().requires_grad_(), weights, layout),
            query_backend(points, weights, grid_layout(HashGridConfig(growth=1.25, log2_table_size=19))),
        ]
    assert chosen == {True: "tiny-cuda-nn", False: "torch"}
    assert others == ["torch"] * 4
