"""A step on a CUDA device that is not there: the host waits for it where it must, and nowhere else.

The networks are small; ``test_step_on_cuda.py`` takes steps of those of full size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import gsplat
import pytest
import torch
from as_if_cuda import CUDA, Trace, Wait, as_if_cuda
from full_size import RasterizerByShape
from torch import Tensor
from triton_stand_in import triton_without_kernels

from sdi_gs.configs.presets import preset
from sdi_gs.doctor.miniature import SMALLEST, miniature_networks, prior_of_networks
from sdi_gs.settings.ngp import PUBLISHED
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

FIELD = replace(PUBLISHED, grid=replace(PUBLISHED.grid, num_levels=3, initial_levels=2))
SDS: dict[str, Any] = {"guidance.noise": "random"}
GAUSSIANS: dict[str, dict[str, Any]] = {
    "SDI": {},
    "SDS": SDS,
    "second order": {"guidance.inversion_order": 2},
    "one view at a time": {"compute.views_at_once": 1},
    "the VAE in pairs": {"compute.vae_views_at_once": 2},
    "fused Adam": {"compute.fused_adam": True},
}
FIELDS: dict[str, dict[str, Any]] = {"SDI": {}, "SDS": SDS, "rays in groups": {"compute.rays_at_once": 8192}}


@pytest.fixture(scope="module")
def device() -> Iterator[tuple[Any, Trace]]:
    with as_if_cuda() as trace, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gsplat, "rasterization", RasterizerByShape())
        yield prior_of_networks(miniature_networks(SMALLEST, device=CUDA), model="sd21-base"), trace


def settings(name: str = "sd21-base", **changes: Any) -> RunConfig:
    small = {"gaussians.num_initial": 100, "views_per_step": 2, "guidance.inversion_steps": 2, **changes}
    return replace(preset(name, small, prompt="a corgi"), ngp=FIELD)


def waits_of(config: RunConfig, device: tuple[Any, Trace], steps: int = 1) -> list[list[Wait]]:
    """Waits of some steps from a fifth of the run on, amid the growth of the cloud and between two refinements."""
    prior, trace = device
    trainer = Trainer(config, prior, device=CUDA)
    trainer.step = config.steps // 5 + 4
    found = []
    for _ in range(steps):
        trace.waits.clear()
        trainer.train_step()
        found.append(list(trace.waits))
    return found


def places(waits: list[Wait]) -> list[str]:
    return [wait.place.rpartition("/")[2].partition(":")[0] for wait in waits]


@pytest.mark.parametrize("case", GAUSSIANS)
def test_a_step_of_gaussians_waits_once_to_read_its_numbers(case: str, device: tuple[Any, Trace]) -> None:
    (waits,) = waits_of(settings(**GAUSSIANS[case]), device)
    assert places(waits) == ["finite.py"], waits


def test_steps_on_kept_targets_wait_once_as_well(device: tuple[Any, Trace]) -> None:
    # Tensors without values cannot be copied to half precision.
    config = settings("sd21-fast", **SDS, **{"compute.vae_precision": "auto"})
    first, *later = waits_of(config, device, steps=3)
    assert places(first) == ["finite.py"], first
    assert [places(waits) for waits in later] == [["finite.py"]] * 2, later


@pytest.mark.parametrize("case", FIELDS)
def test_a_step_of_a_field_waits_beside_that_for_the_number_of_its_samples(
    case: str, device: tuple[Any, Trace]
) -> None:
    config = settings(representation="ngp", **FIELDS[case])
    with triton_without_kernels():
        # The layout of a number of levels is copied once in a run.
        _, waits = waits_of(config, device, steps=2)
    rays = config.views_per_step * config.render.size_at(0.2, SMALLEST.image_size) ** 2
    groups = -(-rays // (config.compute.rays_at_once or rays))
    assert sorted(places(waits)) == ["finite.py"] + ["marching.py"] * 2 * groups, waits


def reading(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, after which somebody reads a number of its result."""

    def then_read(*given: Any, **named: Any) -> Any:
        result = function(*given, **named)
        tensor = result if isinstance(result, Tensor) else result.target
        tensor.sum().item()
        return result

    return then_read


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("training.trainer", "distill"),
        ("training.trainer", "resized"),
        ("training.replay", "distillation_loss"),
        ("guidance.guided_predictor", "combine_branches"),
        ("representations.gaussian_scene", "needle_loss"),
    ],
)
def test_a_number_that_is_read_anywhere_in_a_step_is_seen(
    module: str, name: str, device: tuple[Any, Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = import_module(f"sdi_gs.{module}")
    monkeypatch.setattr(owner, name, reading(getattr(owner, name)))
    (waits,) = waits_of(settings("sd21-base", **SDS, **{"losses.needles": 0.1}), device)
    assert len(waits) > 1 and {"finite.py"} < {*places(waits)}, waits
    assert any(wait.operation == "aten._local_scalar_dense.default" for wait in waits)


def test_on_the_host_nothing_is_a_wait() -> None:
    with as_if_cuda() as trace:
        assert torch.ones(3).sum().item() == 3.0
    assert trace.waits == []
