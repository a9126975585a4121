"""Check "field": a device renders the hash-grid field as the reference does, with the same gradients.

On CUDA, torch operations (and nerfacc's compositing, if installed) are compared with the numba kernels; on a CPU, the
numba kernels with torch operations.

Letters: B cameras, H W pixels, P samples of all rays, R rays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.rows import Row, at_most, skipped
from sdi_gs.representations.ngp.compositing import composite
from sdi_gs.representations.ngp.marching import Samples
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.rendering import FieldRender
from sdi_gs.settings.ngp import HashGridConfig, NgpConfig

PIXEL_LIMIT = 2e-4
"""Limit for colour and opacity. A sample may be drawn on one side only if rounding decides: opacity near the empty
threshold of 1e-4, or position near a cell's border."""
DEPTH_LIMIT = 2e-3
"""Limit for depth times the pixel's opacity, in scene units; depths reach 5. Without the opacity, a pixel with a single
sample of opacity 1e-4 on one side and none on the other would differ by its whole depth."""
GRADIENT_LIMIT = 2e-2
"""Limit for the relative L2 error of gradients: normals jump at the grid's cell borders, and so do their gradients."""
COMPOSITING_LIMIT = 1e-4
"""Limit for weights and sums over rays, nerfacc against torch; both are float32."""

# All levels from the start, and features large enough for a bumpy, colourful field.
FIELD = NgpConfig(
    grid=HashGridConfig(num_levels=6, initial_levels=6, log2_table_size=14), hidden_width=16, samples_per_ray=128
)
_ROUGHNESS = 0.1

Build = Callable[[NgpConfig, torch.device], Ngp]


def check_field(setup: CheckSetup, *, tested: Build | None = None) -> Iterator[Row]:
    """Yield a row per quantity of one render and its gradients; ``tested`` builds the field under test."""
    reference = rough_field(FIELD, setup.reference)
    if setup.device.type == "cpu":
        reference.field.backend = "torch"
    field = (tested or rough_field)(FIELD, setup.device)
    cameras = _cameras(setup.size.image_size)
    ours, theirs = _render(field, cameras), _render(reference, cameras)
    for name, limit in (("rgb", PIXEL_LIMIT), ("alpha", PIXEL_LIMIT)):
        apart = _on_host(getattr(ours, name)) - _on_host(getattr(theirs, name))
        yield at_most(f"{name}: worst pixel", float(apart.abs().max()), limit)
    assert ours.depth is not None and theirs.depth is not None
    opacity = torch.maximum(_on_host(ours.alpha), _on_host(theirs.alpha))
    apart = (_on_host(ours.depth) - _on_host(theirs.depth)) * opacity
    yield at_most("depth by opacity: worst pixel", float(apart.abs().max()), DEPTH_LIMIT, unit="units")
    theirs_by_name = reference.parameters()
    for name, value in field.parameters().items():
        exact, given = theirs_by_name[name].grad, value.grad
        assert exact is not None and given is not None
        error = (_on_host(given) - _on_host(exact)).norm() / _on_host(exact).norm().clamp_min(1e-12)
        yield at_most(f"gradient of {name}", float(error), GRADIENT_LIMIT, unit="relative L2")
    yield from _nerfacc_rows(setup.device)


def rough_field(config: NgpConfig, device: torch.device) -> Ngp:
    """Return the same bumpy field on any device; random values are drawn on the CPU, where a seed is portable."""
    generator = torch.Generator().manual_seed(0)
    drawn = Ngp(config, generator=generator, device=torch.device("cpu"))
    table = drawn.field.params["table"].data
    table += _ROUGHNESS * torch.randn(table.shape, generator=generator)
    if device.type == "cpu":
        return drawn
    field = Ngp(config, generator=torch.Generator(device).manual_seed(0), device=device)
    field.load_state(drawn.state())
    return field


def _cameras(size: int) -> CameraBatch:
    """Return two cameras at different azimuths and elevations."""
    return orbit_cameras(
        torch.tensor([20.0, 120.0]),
        torch.tensor([0.0, 20.0]),
        torch.full((2,), 3.3),
        torch.full((2,), 40.0),
        width=size,
        height=size,
    )


def _render(field: Ngp, cameras: CameraBatch) -> FieldRender:
    """Render over white and leave the gradients in the field's parameters."""
    white = torch.ones(len(cameras), 3, device=field.device)
    render = field.render(cameras.to(field.device), white, with_normals=True)
    assert render.normals is not None
    (render.rgb.square().mean() + render.normals.square().mean()).backward()
    return render


def _on_host(value: Tensor) -> Tensor:
    return value.detach().cpu().double()


def _nerfacc_rows(device: torch.device) -> Iterator[Row]:
    """Compare nerfacc's weights with torch's on the same samples, and the gradients of the density."""
    what = "nerfacc's compositing"
    if device.type != "cuda":
        yield skipped(what, "nerfacc computes on CUDA only")
        return
    if find_spec("nerfacc") is None:
        yield skipped(what, "nerfacc is not installed, and is not needed: torch operations do its work")
        return
    generator = torch.Generator().manual_seed(0)
    # An empty ray, a ray of one sample, and an opaque one.
    counts = torch.tensor([5, 0, 80, 1], device=device)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    ids = torch.repeat_interleave(torch.arange(4, device=device), counts)
    distances = (torch.arange(len(ids), device=device) - starts[ids] + 0.5) * 0.05
    points = torch.zeros(len(ids), 3, device=device)
    samples = Samples(distances=distances, points=points, ray_ids=ids, ray_starts=starts, step=0.05)
    drawn = (3.0 * torch.rand(len(ids), generator=generator)).to(device)
    values = torch.rand((len(ids), 3), generator=generator).to(device)
    results = []
    for backend in ("nerfacc", "torch"):
        density = drawn.clone().requires_grad_()
        made = composite(density, values, samples, backend=backend)
        (gradient,) = torch.autograd.grad(made.sums.square().sum() + made.opacity.sum(), density)
        results.append({"weights": made.weights, "opacity": made.opacity, "sums": made.sums, "gradient": gradient})
    for name, exact in results[1].items():
        apart = float((results[0][name] - exact).detach().abs().max())
        yield at_most(f"{what}: {name}", apart, COMPOSITING_LIMIT)
