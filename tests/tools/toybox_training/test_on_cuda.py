"""The steps of toybox's trainings on a CUDA device that is not there: no operation mixes devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from as_if_cuda import CUDA, GeneratorOn, as_if_cuda
from smallest_networks import smallest_unet, smallest_vae
from toybox_training.autoencoder import DecoderTask, VaeTask, build_vae
from toybox_training.denoiser import UnetTask
from toybox_training.judging import JudgeTask, JudgeTrainingConfig
from toybox_training.latents import LatentSet
from toybox_training.loop import LoopConfig, optimisers_of
from toybox_training.vocabulary import write_tokenizer

from sdi_gs.toybox.judge import Judge, JudgeNetwork

# Then torch multiplies in float32 and says so.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning"),
]

LOOP = LoopConfig(steps=3, learning_rate=1e-3, muon_learning_rate=0.02)
# Without a card torch knows none but by its number.
object.__setattr__(LOOP, "device", str(CUDA))
VAE = replace(smallest_vae(LOOP), crop_share=0.0)


@pytest.fixture
def card() -> Iterator[None]:
    with as_if_cuda():
        yield


def take_step_and_report(task: Any, folder: Path) -> None:
    generator = GeneratorOn(CUDA)
    loss, numbers = task.loss(0.0, 0, generator)
    assert all(isinstance(number, float) for number in numbers.values())
    loss.backward()
    parameters = list(task.networks.parameters())
    assert {parameter.device for parameter in parameters} == {CUDA}
    assert any(parameter.grad is not None for parameter in parameters)
    for optimiser in optimisers_of(LOOP, task.networks):
        optimiser.step()
    assert task.report(task.networks, folder, 1)


def test_the_vaes(card: None, tmp_path: Path) -> None:
    take_step_and_report(VaeTask(VAE), tmp_path)


def test_the_decoders(card: None, tmp_path: Path) -> None:
    take_step_and_report(DecoderTask(VAE, build_vae(VAE)), tmp_path)


def test_the_judges(card: None, tmp_path: Path) -> None:
    take_step_and_report(JudgeTask(JudgeTrainingConfig(loop=LOOP, batch_size=4)), tmp_path)


def test_the_unets(card: None, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer(tmp_path)
    attributes = torch.stack([torch.arange(20) % count for count in (16, 10, 4, 3)], dim=1)
    latents = LatentSet(latents=torch.zeros(20, 4, 16, 16, dtype=torch.float16), attributes=attributes)
    task = UnetTask(
        smallest_unet(LOOP),
        latents,
        latents,
        tokenizer=CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True),
        vae=build_vae(replace(VAE, loop=replace(LOOP, device="cpu"))),
        judge=Judge(JudgeNetwork()),
    )
    take_step_and_report(task, tmp_path)
