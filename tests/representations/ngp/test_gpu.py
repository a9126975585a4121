"""The same field on CUDA: torch operations, Triton's kernels, and nerfacc and tiny-cuda-nn where they are installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from run_triton_cases import run_triton_cases

from sdi_gs.cameras import CameraBatch
from sdi_gs.representations.ngp.backends import has_triton
from sdi_gs.representations.ngp.compositing import composite, compositing_backend
from sdi_gs.representations.ngp.hash_grid import grid_layout
from sdi_gs.representations.ngp.marching import Samples
from sdi_gs.representations.ngp.networks import Weights, query, query_backend
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.scene import ngp_losses
from sdi_gs.settings.ngp import PUBLISHED

pytestmark = pytest.mark.gpu


def test_a_render_and_its_gradients_are_those_of_the_cpu(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    cameras, white = make_cameras(2, 48), torch.ones(2, 3)
    ours = make_ngp(roughness=0.1)
    other = Ngp(ours.config, generator=torch.Generator("cuda").manual_seed(0), device=torch.device("cuda"))
    other.load_state(ours.state())
    images, tables = [], []
    for ngp, device in ((ours, "cpu"), (other, "cuda")):
        render = ngp.render(cameras.to(device), white.to(device), with_normals=True)
        assert render.normals is not None
        (render.rgb.square().mean() + render.normals.square().mean()).backward()
        gradient = ngp.field.params["table"].grad
        assert gradient is not None
        images.append(render.rgb.detach().cpu())
        tables.append(gradient.cpu())
    torch.testing.assert_close(images[0], images[1], rtol=0.0, atol=2e-4)
    assert (tables[0] - tables[1]).norm() < 2e-2 * tables[0].norm()


def test_a_training_step_runs_on_the_device(
    make_ngp: Callable[..., Ngp], make_cameras: Callable[..., CameraBatch]
) -> None:
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    ngp = Ngp(make_ngp().config, generator=generator, device=device)
    cameras = make_cameras(2, 48).to(device)
    ngp.before_step(0.0, generator, num_steps=20)
    render = ngp.render_for_training(cameras, torch.ones(2, 3, device=device), progress=0.0, generator=generator)
    torch.stack(list(ngp_losses(ngp.config.losses, render, cameras, 0.0).values())).sum().backward()
    assert all(value.grad is not None for name, value in ngp.parameters().items() if "albedo" not in name)


@pytest.mark.skipif(not has_triton(), reason="needs triton, a C compiler and Python's headers")
def test_every_kernel_of_triton_is_compiled_and_computes_what_torch_does() -> None:
    run_triton_cases(interpreted=False)


def test_nerfacc_blends_like_torch() -> None:
    pytest.importorskip("nerfacc")
    device = torch.device("cuda")
    assert compositing_backend(device, torch.float32) == "nerfacc"
    generator = torch.Generator(device).manual_seed(0)
    counts = torch.tensor([5, 0, 80, 1], device=device)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    ids = torch.repeat_interleave(torch.arange(4, device=device), counts)
    distances = (torch.arange(len(ids), device=device) - starts[ids] + 0.5) * 0.05
    samples = Samples(
        distances=distances, points=torch.zeros(len(ids), 3, device=device), ray_ids=ids, ray_starts=starts, step=0.05
    )
    results = []
    for backend in ("nerfacc", "torch"):
        density = (3.0 * torch.rand(len(ids), generator=generator.manual_seed(1), device=device)).requires_grad_()
        values = torch.rand((len(ids), 3), generator=generator, device=device)
        made = composite(density, values, samples, backend=backend)
        (gradient,) = torch.autograd.grad(made.sums.square().sum() + made.opacity.sum(), density)
        results.append((made.weights, made.opacity, made.sums, gradient))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_slopes", [False, True])
@pytest.mark.parametrize("num_levels", [8, 16])
def test_tiny_cuda_nn_sees_what_torch_sees(num_levels: int, with_slopes: bool) -> None:
    pytest.importorskip("tinycudann")
    device, layout = torch.device("cuda"), grid_layout(PUBLISHED.grid)
    generator = torch.Generator(device).manual_seed(0)
    width, hidden = 2 * layout.num_levels, PUBLISHED.hidden_width
    shapes = {
        "table": (layout.num_entries, 2),
        "density_hidden": (width, hidden),
        "density_out": (hidden,),
        "albedo_hidden": (width, hidden),
        "albedo_out": (hidden, 3),
    }
    weights = Weights(
        **{
            name: torch.randn(shape, generator=generator, device=device).requires_grad_()
            for name, shape in shapes.items()
        }
    )
    points = torch.rand((50_001, 3), generator=generator, device=device)
    # With float32 exponentials in its scales tiny-cuda-nn may put a point beside a cell's face on its other side.
    shares = torch.stack([(points * scale + 0.5) % 1.0 for scale in layout.scales])
    points = points[((shares > 0.01) & (shares < 0.99)).all(dim=-1).all(dim=0)]
    assert query_backend(points, weights, layout) == "tiny-cuda-nn"
    results = []
    for backend in ("tiny-cuda-nn", "torch"):
        seen = query(
            points,
            weights,
            layout,
            num_levels=num_levels,
            with_colour=True,
            with_slopes=with_slopes,
            backend=backend,
        )
        outputs = [part for part in (seen.raw, seen.logits, seen.slopes) if part is not None]
        loss = torch.stack([part.square().mean() for part in outputs]).sum()
        results.append([*outputs, *torch.autograd.grad(loss, weights.tensors(), materialize_grads=True)])
    for ours, reference in zip(*results, strict=True):
        assert (ours - reference).norm() <= 1e-2 * reference.norm()
