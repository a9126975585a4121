"""Calls of gsplat: its signatures as installed, and what is handed over at the boundary.

Letters: C cameras, N Gaussians.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gsplat
import pytest
import torch
from gsplat import DefaultStrategy, MCMCStrategy
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci
from gsplat.strategy import ops
from torch import Tensor

from sdi_gs import rasterize
from sdi_gs.cameras import orbit_cameras
from sdi_gs.rasterize import numba_backend, rasterization
from sdi_gs.rasterize.scenes import ball_scene
from sdi_gs.representations import densify, relocation, strategies
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.initial_gaussians import gaussian_ball
from sdi_gs.representations.strategies import BoundedStrategy, GuardedMCMC
from sdi_gs.settings.densify import DensifyConfig, Strategy
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.run import RunConfig

COUNT, VIEWS = 60, 2


class Recorder:
    """Binds a call to a real signature, keeps its arguments, and lets another function answer."""

    def __init__(self, real: Callable[..., Any], answer: Callable[..., Any]) -> None:
        self.signature = inspect.signature(real)
        self.answer = answer
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(dict(self.signature.bind(*args, **kwargs).arguments))
        return self.answer(*args, **kwargs)


def by_our_kernels(**given: Any) -> Any:
    """The CPU twin, given what gsplat is given; gsplat 1.5.3 stops at these two together."""
    assert not (given["packed"] and given["backgrounds"] is not None)
    return numba_backend.rasterize(rasterize._request_of(given))


@pytest.fixture
def rasterizer(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """gsplat's place taken by the CPU twin, chosen as a card's tensors choose it."""
    recorder = Recorder(gsplat.rasterization, by_our_kernels)
    monkeypatch.setattr(rasterize, "backend_for", lambda device: "gsplat")
    monkeypatch.setattr(gsplat, "rasterization", recorder)
    return recorder


def make_cloud(harmonics: int = 1) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    config = GaussiansConfig(num_initial=COUNT)
    cloud = gaussian_ball(config, generator=generator, device=torch.device("cpu"))
    params = {name: value.detach() for name, value in cloud.params.items()}
    if harmonics > 1:
        params["shN"] = 0.1 * torch.randn((COUNT, harmonics - 1, 3), generator=generator)
    return Gaussians(params)


def look_at(cloud: Gaussians, *, with_depth: bool = False) -> Any:
    cameras = orbit_cameras(
        torch.arange(VIEWS) * 90.0, torch.zeros(VIEWS), torch.full((VIEWS,), 3.3), torch.full((VIEWS,), 40.0),
        width=32, height=24,
    )  # fmt: skip
    return cloud.render(cameras, torch.ones(VIEWS, 3), with_depth=with_depth)


def parameters_of(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_our_rasterization_has_the_signature_of_the_installed_one() -> None:
    assert parameters_of(rasterization) == parameters_of(gsplat.rasterization)


@pytest.mark.parametrize("with_depth", [False, True])
@pytest.mark.parametrize("harmonics", [1, 4])
def test_a_render_hands_over_contiguous_tensors_of_documented_shape(
    harmonics: int, with_depth: bool, rasterizer: Recorder
) -> None:
    cloud = make_cloud(harmonics)
    look_at(cloud, with_depth=with_depth)
    (given,) = rasterizer.calls
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "means": (COUNT, 3),
        "quats": (COUNT, 4),
        "scales": (COUNT, 3),
        "opacities": (COUNT,),
        "colors": (COUNT, 3) if harmonics == 1 else (COUNT, harmonics, 3),
        "viewmats": (VIEWS, 4, 4),
        "Ks": (VIEWS, 3, 3),
    }
    for name, value in tensors.items():
        assert value.dtype == torch.float32 and value.is_contiguous() and value.device == cloud.device, name
    assert (given["width"], given["height"], given["packed"]) == (32, 24, False)
    assert given["sh_degree"] == (None if harmonics == 1 else 1)
    assert given["render_mode"] == ("RGB+ED" if with_depth else "RGB")


def test_what_gsplat_answers_is_what_is_shown(rasterizer: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = make_cloud()
    ours = look_at(cloud)
    monkeypatch.undo()
    assert torch.equal(ours.rgb, look_at(cloud).rgb)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("render_mode", ["RGB", "RGB+D", "RGB+ED", "D", "ED"])
def test_backgrounds_lie_behind_packed_renders_too(
    render_mode: Any, packed: bool, rasterizer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = ball_scene(40, width=24, height=16)
    given = {**scene.leaves(), **scene.cameras(), "render_mode": render_mode, "packed": packed}
    given["backgrounds"] = torch.rand(len(scene.viewmats), 3, generator=torch.Generator().manual_seed(0))
    ours, our_alphas, _ = rasterize.rasterization(**given)
    assert len(rasterizer.calls) == 1
    monkeypatch.undo()
    theirs, alphas, _ = rasterize.rasterization(**given)
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6)
    assert torch.equal(our_alphas, alphas)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BoundedStrategy._update_state, DefaultStrategy._update_state),
        (BoundedStrategy._grow_gs, DefaultStrategy._grow_gs),
        (BoundedStrategy._prune_gs, DefaultStrategy._prune_gs),
        (GuardedMCMC._relocate_gs, MCMCStrategy._relocate_gs),
        (GuardedMCMC._add_new_gs, MCMCStrategy._add_new_gs),
        (relocation._compute_relocation, ops.compute_relocation),
    ],
    ids=lambda function: function.__qualname__,
)
def test_what_we_put_in_place_of_gsplats_own_takes_the_same_arguments(
    ours: Callable[..., Any], theirs: Callable[..., Any]
) -> None:
    assert parameters_of(ours) == parameters_of(theirs)


def test_our_covariances_take_what_gsplat_passes() -> None:
    # gsplat's CUDA function has an argument more, whose default is its torch twin's only behaviour.
    names = [name for name, _, _ in parameters_of(relocation._covariances)]
    assert names == [name for name, _, _ in parameters_of(_quat_scale_to_covar_preci)]
    assert set(names) <= {name for name, _, _ in parameters_of(ops.quat_scale_to_covar_preci)}


@pytest.mark.parametrize(
    ("strategy", "called"), [("share", {"remove"}), ("threshold", {"remove"}), ("mcmc", {"relocate"})]
)
def test_strategies_are_driven_by_calls_that_bind(
    strategy: Strategy, called: set[str], rasterizer: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of steps with refinement: every call of gsplat's strategies and operators binds to its signature."""
    recorders = {name: Recorder(getattr(ops, name), getattr(ops, name)) for name in ("remove", "relocate", "reset_opa")}
    for module in (strategies, densify):
        for name, recorder in recorders.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, recorder)
    settings = DensifyConfig(
        strategy=strategy, start=0.0, stop=1.0, every=2, min_gaussians=10, max_gaussians=200, reset_opacity_at=0.5
    )
    cloud = make_cloud()
    cloud.params["opacities"].data[:10] = -9.0
    scene = GaussianScene(
        RunConfig(steps=8, densify=settings),
        generator=torch.Generator(cloud.device),
        device=cloud.device,
        saved={"gaussians": {name: value.detach() for name, value in cloud.params.items()}},
    )
    for step in range(8):
        render = look_at(scene.gaussians)
        scene.backward(render.rgb.square().mean(), render, step=step)
        scene.update(render, step=step, generator=torch.Generator().manual_seed(step))
    assert len(rasterizer.calls) == 8
    assert {name for name, recorder in recorders.items() if recorder.calls} == called | {"reset_opa"}
    for recorder in (recorders[name] for name in called):
        mask = recorder.calls[0]["mask"]
        assert mask.dtype == torch.bool and mask.dim() == 1 and mask.device == cloud.device
