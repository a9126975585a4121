"""A U-Net that is recorded by shape: the same bits as the U-Net itself, from fresh inputs each time.

No card is needed: the recorder below does on the CPU what a CUDA graph does, on the same tensors each time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from operators import GRAPH_LAUNCHES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdi_gs.errors import UserError
from sdi_gs.priors.graphed_unet import MOST_GRAPHS, GraphedUnet, Recording
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.settings.compute import ComputeConfig


class RecorderOnCpu:
    """Counts recordings and replays."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], Tensor]) -> Recording:
        self.recorded += 1
        # What a recording computes is not to be relied on: only replays are.
        result = torch.full_like(work(), torch.nan)

        def replay() -> None:
            self.replayed += 1
            result.copy_(work())

        return Recording(replay=replay, result=result)


@pytest.fixture
def priors(pristine_models: dict[str, Path]) -> tuple[LatentDiffusionPrior, LatentDiffusionPrior, RecorderOnCpu]:
    """A plain prior and one whose U-Net is recorded."""
    plain, recorded = (
        load_latent_diffusion(pristine_models["epsilon"], device="cpu", dtype=torch.float32) for _ in range(2)
    )
    recorder = RecorderOnCpu()
    recorded._answering_unet = GraphedUnet(recorded.unet, recorder)
    return plain, recorded, recorder


def latents_of(seed: int, rows: int = 4) -> Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_calls_of_one_shape_are_recorded_once_and_answer_as_the_unet_does(
    priors: tuple[LatentDiffusionPrior, LatentDiffusionPrior, RecorderOnCpu],
) -> None:
    plain, recorded, recorder = priors
    texts = [plain.embed_prompts(["a blue robot"] * 4), plain.embed_prompts(["", "a red car", "", "a mug"])]
    answers = []
    for seed, (timestep, text) in enumerate([(900, 0), (500, 1), (-1, 1), (20, 0)]):
        expected = plain.predict_noise(latents_of(seed), timestep, texts[text])
        answers.append((recorded.predict_noise(latents_of(seed), timestep, texts[text]), expected))
    # Looked at after the last call: no answer is written over.
    assert all(torch.equal(found, expected) for found, expected in answers)
    assert (recorder.recorded, recorder.replayed) == (1, 4)


class Launches(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_call_launches_as_much_besides_its_graph_as_the_benchmark_counts() -> None:
    def record(work: Callable[[], Tensor]) -> Recording:
        # A graph's own launch is no operator of torch.
        return Recording(replay=lambda: None, result=work())

    unet = GraphedUnet(lambda *given, **named: SimpleNamespace(sample=given[0]), record)
    given = (torch.zeros(2, 4, 8, 8), torch.zeros(2, dtype=torch.int64))
    unet(*given, encoder_hidden_states=torch.zeros(2, 77, 8))
    with Launches() as launches:
        unet(*given, encoder_hidden_states=torch.zeros(2, 77, 8))
    # Without that which made the text above.
    assert launches.count - 1 + 1 == GRAPH_LAUNCHES


def test_each_shape_has_a_graph_and_the_oldest_makes_room(
    priors: tuple[LatentDiffusionPrior, LatentDiffusionPrior, RecorderOnCpu],
) -> None:
    plain, recorded, recorder = priors
    for rows in (*range(1, MOST_GRAPHS + 2), 1):
        text = plain.embed_prompts(["a blue robot"] * rows)
        found, expected = (prior.predict_noise(latents_of(rows, rows), 500, text) for prior in (recorded, plain))
        assert torch.equal(found, expected)
    assert recorder.recorded == MOST_GRAPHS + 2


def test_graphs_without_a_card_are_refused_in_one_line_and_nothing_changes(
    priors: tuple[LatentDiffusionPrior, LatentDiffusionPrior, RecorderOnCpu],
) -> None:
    plain, *_ = priors
    with pytest.raises(UserError, match=r"^--compute.cuda-graphs needs a CUDA device, and this run computes on cpu: "):
        plain.configure(ComputeConfig(cuda_graphs=True, views_at_once=1))
    assert plain.compute == ComputeConfig()


@pytest.mark.gpu
def test_graphs_on_a_card_answer_with_the_unets_own_bits(pristine_models: dict[str, Path]) -> None:
    eager, graphed = (
        load_latent_diffusion(pristine_models["epsilon"], device="cuda", dtype=torch.float16) for _ in range(2)
    )
    graphed.configure(ComputeConfig(cuda_graphs=True))
    answers = []
    for rows, timestep in ((4, 900), (2, 500), (4, 500), (1, 20), (2, 20)):
        texts = eager.embed_prompts(["a blue robot"] * (rows - 1) + [f"{timestep} mugs"])
        latents = latents_of(timestep, rows).cuda()
        answers.append([prior.predict_noise(latents, timestep, texts) for prior in (graphed, eager)])
    # Looked at after the last call: no answer is written over.
    assert all(torch.equal(found, expected) for found, expected in answers)
    graphed.configure(ComputeConfig())
    texts = eager.embed_prompts(["a blue robot"])
    found, expected = (prior.predict_noise(latents_of(1, 1).cuda(), 500, texts) for prior in (graphed, eager))
    assert torch.equal(found, expected)
