"""A whole step of the Stable Diffusion preset on a CUDA device that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gsplat
import pytest
import torch
from as_if_cuda import CUDA, Trace, as_if_cuda
from full_size import RasterizerByShape, full_size_prior
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from triton_stand_in import triton_without_kernels

from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import StepReport
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.settings.ngp import PUBLISHED
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

pytestmark = pytest.mark.slow

CONFIG = replace(preset_named("sd21-base").config, prompt="a ripe strawberry")


def gaussians_of(trainer: Trainer) -> Gaussians:
    assert isinstance(trainer.scene.representation, Gaussians)
    return trainer.scene.representation


class Run:
    """A trainer on the device, what its networks were shown, and what its step did."""

    def __init__(self, config: RunConfig, prior: Any, trace: Trace) -> None:
        self.shown: dict[str, list[Tensor]] = {"unet": [], "vae": [], "text_encoder": []}
        hooks = [self._watch(name, getattr(prior, name)) for name in ("unet", "text_encoder")]
        hooks.append(self._watch("vae", prior.vae.encoder))
        self.trainer = Trainer(config, prior, device=CUDA)
        trace.waits.clear()
        self.report: StepReport = self.trainer.train_step()
        self.waits = list(trace.waits)
        self.largest_on_host = trace.largest_on_host
        for hook in hooks:
            hook.remove()

    def _watch(self, name: str, network: torch.nn.Module) -> Any:
        def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.shown[name] += [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]

        return network.register_forward_pre_hook(keep, with_kwargs=True)


@pytest.fixture(scope="module")
def device() -> Iterator[tuple[Any, Trace]]:
    with as_if_cuda() as trace:
        yield full_size_prior(), trace


@pytest.fixture(scope="module")
def rasterizer() -> Iterator[RasterizerByShape]:
    by_shape = RasterizerByShape()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gsplat, "rasterization", by_shape)
        yield by_shape


@pytest.fixture(scope="module")
def run(device: tuple[Any, Trace], rasterizer: RasterizerByShape) -> Run:
    return Run(CONFIG, *device)


@pytest.fixture(scope="module")
def field_run(device: tuple[Any, Trace]) -> Run:
    """One view and one call of the prior as in SDS; levels differ only in their sizes, so that three stand for 16."""
    grid = replace(PUBLISHED.grid, num_levels=3, initial_levels=2)
    config = replace(CONFIG, representation="ngp", views_per_step=1, ngp=replace(PUBLISHED, grid=grid))
    # Triton's kernels need a driver.
    config = replace(config, compute=replace(config.compute, field_kernels="torch"))
    return Run(replace(config, guidance=replace(CONFIG.guidance, noise="random")), *device)


@pytest.fixture(scope="module")
def triton_run(device: tuple[Any, Trace]) -> Iterator[Run]:
    """The step of ``field_run`` by Triton's kernels, which need a driver: their launches do nothing."""
    grid = replace(PUBLISHED.grid, num_levels=3, initial_levels=2)
    config = replace(CONFIG, representation="ngp", views_per_step=1, ngp=replace(PUBLISHED, grid=grid))
    with triton_without_kernels():
        yield Run(replace(config, guidance=replace(config.guidance, noise="random")), *device)


def test_the_step_goes_through(run: Run) -> None:
    assert run.report.step == 1
    assert run.report.num_points == CONFIG.gaussians.num_initial
    assert run.report.predictor_calls > 1


def test_the_networks_have_their_true_size_and_nothing_is_allocated(run: Run, device: tuple[Any, Trace]) -> None:
    prior, _ = device
    for name, count in (("unet", 865_910_724), ("vae", 83_653_863), ("text_encoder", 340_387_840)):
        weights = list(getattr(prior, name).parameters())
        assert sum(weight.numel() for weight in weights) == count
        assert all(isinstance(weight, FakeTensor) and weight.device == CUDA for weight in weights)
    # Cameras, timesteps and tokens.
    assert run.largest_on_host <= 1000 * 77


def test_the_unet_runs_in_half_precision_and_the_vae_in_single(run: Run) -> None:
    images, branches = CONFIG.views_per_step, 4 if CONFIG.guidance.perp_neg else 2
    (pixels,) = run.shown["vae"]
    assert (pixels.dtype, pixels.device, pixels.shape) == (torch.float32, CUDA, (images, 3, 512, 512))
    latents, timesteps, embeddings = run.shown["unet"][:3]
    assert (latents.dtype, latents.shape) == (torch.float16, (branches * images, 4, 64, 64))
    assert timesteps.dtype == torch.int64 and timesteps.shape == (branches * images,)
    assert (embeddings.dtype, embeddings.shape) == (torch.float16, (branches * images, 77, 1024))
    assert {value.device for value in run.shown["unet"]} == {CUDA}


def test_what_is_optimised_and_carried_is_on_the_device_in_single_precision(run: Run) -> None:
    state = gaussians_of(run.trainer).params
    assert {(value.dtype, value.device) for value in state.values()} == {(torch.float32, CUDA)}
    assert run.trainer.last_views is not None
    assert run.trainer.last_views.target.device == run.trainer.last_views.rgb.device == CUDA


def test_gsplat_is_handed_contiguous_tensors_of_one_device(run: Run, rasterizer: RasterizerByShape) -> None:
    (given,) = rasterizer.calls
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    count, views = CONFIG.gaussians.num_initial, CONFIG.views_per_step
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "means": (count, 3),
        "quats": (count, 4),
        "scales": (count, 3),
        "opacities": (count,),
        "colors": (count, 3),
        "viewmats": (views, 4, 4),
        "Ks": (views, 3, 3),
    }
    assert {(value.dtype, value.device, value.is_contiguous()) for value in tensors.values()} == {
        (torch.float32, CUDA, True)
    }


def test_a_step_of_a_field_of_the_published_kind_goes_through_too(field_run: Run) -> None:
    field = field_run.trainer.scene.representation
    assert isinstance(field, Ngp)
    parameters = field.parameters()
    assert field_run.report.step == 1
    assert {(value.dtype, value.device) for value in parameters.values()} == {(torch.float32, CUDA)}
    assert {"field.table", "environment.out"} <= parameters.keys()


def test_the_host_waits_for_the_device_once_in_a_step_to_read_its_numbers(run: Run) -> None:
    assert [wait.place.partition(":")[0] for wait in run.waits] == ["sdi_gs/training/finite.py"], run.waits


@pytest.mark.parametrize(
    ("name", "marching"),
    [
        ("field_run", ("aten.nonzero.default", "marching.py:_march_torch")),
        ("triton_run", ("aten._local_scalar_dense.default", "marching.py:num_marched")),
    ],
)
def test_a_field_waits_beside_that_for_the_number_of_its_samples_alone(
    request: pytest.FixtureRequest, name: str, marching: tuple[str, str]
) -> None:
    read, counted = [], set()
    for wait in request.getfixturevalue(name).waits:
        # The layout of a number of levels is copied once in a run.
        if wait.place.endswith(":_layout_on"):
            continue
        if wait.place.startswith("sdi_gs/training/finite.py"):
            read.append(wait)
        else:
            counted.add((wait.operation, wait.place.rpartition("/")[2]))
    assert len(read) == 1, read
    # Samples are kept where the cells and then the field are not empty, and memory for them is the host's to give.
    assert counted == {marching, ("aten.nonzero.default", "marching.py:keep")}
