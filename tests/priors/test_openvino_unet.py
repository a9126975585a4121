"""The U-Net by OpenVINO against torch, on a random model of toy size."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.priors import openvino_unet
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.settings.compute import ComputeConfig

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture
def load(pristine_models: dict[str, Path]) -> Callable[..., LatentDiffusionPrior]:
    def loaded(dtype: torch.dtype = torch.float32, kind: str = "epsilon", **levers: Any) -> LatentDiffusionPrior:
        prior = load_latent_diffusion(pristine_models[kind], device="cpu", dtype=dtype)
        prior.configure(ComputeConfig(**levers))
        return prior

    return loaded


def predicted(prior: LatentDiffusionPrior, rows: int, timestep: int, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    latents = torch.randn(rows, 4, size, size, generator=generator)
    prompts = ["a blue robot", "", "a red mug", "a robot"]
    return prior.predict_noise(latents, timestep, prior.embed_prompts([prompts[row % 4] for row in range(rows)]))


@needs_openvino
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_predictions_are_torchs_for_every_batch_size_and_timestep(
    load: Callable[..., LatentDiffusionPrior], kind: str
) -> None:
    plain, engine = load(kind=kind), load(kind=kind, unet_engine="openvino")
    # More shapes than are kept, and the first one again; what it was traced with is none of the others.
    for rows, timestep in ((4, 500), (1, 0), (2, 999), (3, 20), (5, -99), (6, 700), (4, 100)):
        a, b = (predicted(prior, rows, timestep) for prior in (plain, engine))
        assert (a - b).abs().max() < 1e-5 * a.abs().max(), (rows, timestep)
    # Neither the result of a call changes with the next one, nor from one prior to another.
    first = predicted(engine, 4, 500)
    kept = first.clone()
    predicted(engine, 4, 100)
    assert torch.equal(first, kept)
    assert torch.equal(first, predicted(load(kind=kind, unet_engine="openvino"), 4, 500))


@needs_openvino
def test_it_is_converted_once_and_left_again(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    converted, calls = openvino_unet._converted, []
    monkeypatch.setattr(openvino_unet, "_converted", lambda *given: calls.append(1) or converted(*given))
    prior = load(unet_engine="openvino", channels_last=True)
    found = predicted(prior, 2, 500)
    prior.configure(ComputeConfig(unet_engine="openvino", views_at_once=1))
    predicted(prior, 1, 500)
    assert len(calls) == 1
    prior.configure(ComputeConfig())
    assert torch.equal(predicted(prior, 2, 500), predicted(load(), 2, 500))
    assert not torch.equal(predicted(prior, 2, 500), found)


@needs_openvino
def test_another_type_of_weights_is_refused_in_one_line(load: Callable[..., LatentDiffusionPrior]) -> None:
    prior = load(torch.bfloat16)
    with pytest.raises(UserError, match=r"float32, not in bfloat16: leave --compute.precision out") as caught:
        prior.configure(ComputeConfig(unet_engine="openvino", views_at_once=1))
    assert "\n" not in str(caught.value)
    assert prior.compute == ComputeConfig()


def test_without_the_package_one_line_names_it(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "sdi-gs\[cpu\]"') as caught:
        load(unet_engine="openvino")
    assert "\n" not in str(caught.value)


def test_another_device_is_refused(load: Callable[..., LatentDiffusionPrior]) -> None:
    prior = load()
    prior.unet.to("meta")
    with pytest.raises(UserError, match="the U-Net is on meta: use --device cpu"):
        prior.configure(ComputeConfig(unet_engine="openvino"))


@pytest.mark.parametrize("other", ["compile_unet", "cache_cross_attention"])
def test_settings_that_do_not_go_together_are_refused(other: str) -> None:
    with pytest.raises(ValueError, match=f"unet_engine openvino and {other} do not go together"):
        ComputeConfig(**{"unet_engine": "openvino", other: True})


REPORTED = """
import sys
from sdi_gs.priors.openvino_unet import _silent_converter
assert _silent_converter().__module__.startswith("openvino.")
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""


@needs_openvino
def test_openvino_reports_no_call_to_its_makers() -> None:
    subprocess.run([sys.executable, "-c", REPORTED], check=True)
