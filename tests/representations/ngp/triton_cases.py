"""Triton's kernels: in its interpreter on the CPU (``test_triton.py``), or compiled on a card (``test_gpu.py``).

Both run this file in a process of its own, since Triton reads ``TRITON_INTERPRET`` when it is imported. The oracle is
torch's way in float64.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, camera_rays, orbit_cameras
from sdi_gs.representations.ngp.compositing import CompositingBackend, composite, visible
from sdi_gs.representations.ngp.hash_grid import GridLayout, grid_layout
from sdi_gs.representations.ngp.kernels.triton_compositing import SAMPLES
from sdi_gs.representations.ngp.kernels.triton_encoding import POINTS
from sdi_gs.representations.ngp.kernels.triton_networks import MOST_UNITS
from sdi_gs.representations.ngp.marching import Samples, march
from sdi_gs.representations.ngp.networks import QueryBackend, QueryResult, Weights, query
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.ngp import HashGridConfig, NgpConfig

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
GRID = HashGridConfig(num_levels=4, log2_table_size=12, initial_levels=2)
"""Its first level is dense, and the others are hashed."""


def layout() -> GridLayout:
    found = grid_layout(GRID)
    assert set(found.hashed) == {False, True}
    return found


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


def points_of(count: int) -> Tensor:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    # The cube's first and last corner, and one on a face.
    ends = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.5, 0.0]])
    return torch.cat([ends, points])[:count].to(DEVICE)


def weights_of(hidden: int, dtype: torch.dtype) -> Weights:
    width = 2 * GRID.num_levels
    shapes = {"table": (layout().num_entries, 2), "density_hidden": (width, hidden), "density_out": (hidden,)}
    shapes |= {"albedo_hidden": (width, hidden), "albedo_out": (hidden, 3)}
    made = {name: drawn(*shape, seed=place) for place, (name, shape) in enumerate(shapes.items())}
    return Weights(**{name: value.to(dtype).requires_grad_() for name, value in made.items()})


def seen_and_gradients(
    backend: QueryBackend, dtype: torch.dtype, count: int, num_levels: int, hidden: int, *, colour: bool, slopes: bool
) -> list[Tensor | None]:
    """Return the values at points, and the gradients of a random function of them."""
    weights = weights_of(hidden, dtype)
    seen: QueryResult = query(
        points_of(count).to(dtype),
        weights,
        layout(),
        num_levels=num_levels,
        with_colour=colour,
        with_slopes=slopes,
        backend=backend,
    )
    loss = torch.zeros((), dtype=dtype, device=DEVICE)
    for seed, value in enumerate((seen.raw, seen.logits, seen.slopes)):
        if value is not None:
            loss = loss + (drawn(*value.shape, seed=20 + seed).to(dtype) * value).sum()
    gradients = torch.autograd.grad(loss, weights.tensors(), allow_unused=True)
    return [seen.raw, seen.logits, seen.slopes, *gradients]


def assert_close(own: Sequence[Tensor | None], truth: Sequence[Tensor | None], error: float) -> None:
    for ours, reference in zip(own, truth, strict=True):
        assert (ours is None) == (reference is None)
        if ours is not None and reference is not None:
            assert ours.dtype == torch.float32 and ours.shape == reference.shape
            assert (ours - reference).norm() <= error * reference.norm()


@pytest.mark.parametrize(
    ("count", "num_levels", "hidden", "colour", "slopes"),
    [
        (POINTS + 9, 4, 8, True, True),
        (POINTS + 9, 2, 8, True, True),
        (20, 4, MOST_UNITS + 8, True, True),
        (20, 4, 20, False, True),
        (20, 4, 20, True, False),
        (20, 3, 20, False, False),
        (1, 4, 8, True, True),
    ],
)
def test_values_and_gradients_at_points_are_the_references(
    count: int, num_levels: int, hidden: int, colour: bool, slopes: bool
) -> None:
    sides: tuple[tuple[QueryBackend, torch.dtype], ...] = (("triton", torch.float32), ("torch", torch.float64))
    own, truth = (
        seen_and_gradients(backend, dtype, count, num_levels, hidden, colour=colour, slopes=slopes)
        for backend, dtype in sides
    )
    # A coordinate of up to 130 cells in float32 is off by 8e-6 of a cell.
    assert_close(own, truth, 2e-5)


def test_gradients_of_weights_are_summed_alike_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdi_gs.representations.ngp import triton_query

    made = []
    for most in (1024, 1024, 2):
        monkeypatch.setattr(triton_query, "MOST_PROGRAMS", most)
        made.append(seen_and_gradients("triton", torch.float32, 90, 4, 8, colour=True, slopes=True)[4:])
    for first, second, of_two in zip(*made, strict=True):
        assert first is not None and second is not None and of_two is not None
        assert torch.equal(first, second)
        torch.testing.assert_close(of_two, first, rtol=1e-4, atol=1e-4)


def test_at_no_points_there_is_nothing() -> None:
    raw, logits, slopes, *gradients = seen_and_gradients("triton", torch.float32, 0, 4, 8, colour=True, slopes=True)
    assert [value.shape for value in (raw, logits, slopes) if value is not None] == [(0,), (0, 3), (0, 3)]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def make_samples(counts: Sequence[int], dtype: torch.dtype) -> Samples:
    starts = torch.tensor([0, *counts]).cumsum(0).to(DEVICE)
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(DEVICE)
    nowhere = torch.zeros(len(ids), 3, dtype=dtype, device=DEVICE)
    return Samples(distances=nowhere[:, 0], points=nowhere, ray_ids=ids, ray_starts=starts, step=0.1)


COUNTS = [7, 0, 1, 2 * SAMPLES, SAMPLES + 1, 3 * SAMPLES - 1]


@pytest.mark.parametrize("channels", [0, 1, 5, 8])
@pytest.mark.parametrize("thickness", [5.0, 60.0])
def test_blending_and_its_gradients_are_the_references(channels: int, thickness: float) -> None:
    def blended(backend: CompositingBackend, dtype: torch.dtype) -> list[Tensor]:
        samples = make_samples(COUNTS, dtype)
        density = (thickness * drawn(len(samples), seed=1).abs()).float().to(dtype).requires_grad_()
        values = drawn(len(samples), channels, seed=2).float().to(dtype).requires_grad_()
        made = composite(density, values, samples, backend=backend)
        outputs = [made.weights, made.opacity, made.sums]
        loss = sum((drawn(*o.shape, seed=3).to(dtype) * o.square()).sum() for o in outputs)
        assert isinstance(loss, Tensor)
        return [*outputs, *torch.autograd.grad(loss, (density, values))]

    assert_close(blended("triton", torch.float32), blended("torch", torch.float64), 1e-5)


def test_thin_samples_keep_their_digits_and_the_front_its_gradient_before_a_wall() -> None:
    samples = make_samples([4], torch.float32)
    density = torch.tensor([1e-3, 1e-3, 1e7, 1.0], device=DEVICE, requires_grad=True)
    weights = composite(density, torch.zeros(4, 0, device=DEVICE), samples, backend="triton").weights
    assert weights.tolist() == pytest.approx([9.9995e-5, 9.9985e-5, 0.9998, 0.0], rel=1e-5)
    # That the second one's weight falls with the first one's density is all there is in its gradient.
    (gradient,) = torch.autograd.grad(weights[1], density)
    assert gradient.tolist() == pytest.approx([-0.1 * 9.9985e-5, 0.1 * 0.9998, 0.0, 0.0], rel=1e-5)


def test_the_same_samples_are_visible() -> None:
    samples = make_samples(COUNTS, torch.float64)
    density = 5.0 * drawn(len(samples), seed=1).abs().square()
    density[:3] = torch.tensor([0.0, 9e-4, 1.1e-3])
    own = visible(density.float(), make_samples(COUNTS, torch.float32), 1e-4, backend="triton")
    assert own.dtype == torch.bool and 0.1 < own.double().mean() < 0.9
    assert torch.equal(own, visible(density, samples, 1e-4, backend="torch"))


def rays_and_cells(side: int) -> tuple[CameraBatch, Tensor]:
    cameras = orbit_cameras(
        *(torch.tensor(values) for values in ([20.0, 130.0], [0.0, 35.0], [3.3, 1.2], [40.0, 60.0])), width=9, height=9
    )
    occupied = torch.rand((side,) * 3, generator=torch.Generator().manual_seed(0)) < 0.3
    return cameras.to(DEVICE), occupied.to(DEVICE)


def test_samples_along_rays_are_those_of_torch_to_the_bit() -> None:
    cameras, occupied = rays_and_cells(16)
    rays = camera_rays(cameras)
    offsets = torch.rand(len(rays), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    own, truth = (
        march(rays, occupied, 1.0, step=0.05, offsets=offsets, backend=backend) for backend in ("triton", "torch")
    )
    assert len(own) > 1000
    for name in ("distances", "points", "ray_ids", "ray_starts"):
        assert torch.equal(getattr(own, name), getattr(truth, name)), name


def test_empty_cells_and_no_rays_leave_no_samples() -> None:
    cameras, occupied = rays_and_cells(16)
    rays = camera_rays(cameras)
    for chosen in (rays, rays.part(0, 0)):
        offsets = torch.full((len(chosen),), 0.5, device=DEVICE)
        samples = march(chosen, torch.zeros_like(occupied), 1.0, step=0.05, offsets=offsets, backend="triton")
        assert len(samples) == 0 and samples.ray_starts.tolist() == [0] * (len(chosen) + 1)


def test_a_training_render_and_its_gradients_are_those_of_torch() -> None:
    found = []
    for backend in ("triton", "torch"):
        generator = torch.Generator(DEVICE).manual_seed(0)
        config = NgpConfig(grid=GRID, hidden_width=8, samples_per_ray=16)
        ngp = Ngp(config, generator=generator, device=DEVICE)
        ngp.field.params["table"].data += 0.1 * drawn(layout().num_entries, 2, seed=3).float()
        ngp.field.backend = backend
        cameras = orbit_cameras(*torch.tensor([[20.0], [10.0], [3.3], [40.0]]), width=16, height=16)
        white = torch.ones(1, 3, device=DEVICE)
        render = ngp.render_for_training(cameras.to(DEVICE), white, progress=0.5, generator=generator)
        assert render.normals is not None
        (render.rgb.square().mean() + render.normals.square().mean() + render.z_variance.mean()).backward()
        gradients = [value.grad for value in ngp.parameters().values()]
        found.append([render.rgb, render.alpha, render.normals, *gradients])
    own, truth = found
    assert_close(own, truth, 1e-5)
