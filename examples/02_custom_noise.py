"""A noise source of your own in the trainer: half inverted (SDI), half random (SDS). Runs on a CPU in seconds."""

from dataclasses import replace

import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.guidance.noise_sources.inversion import Inversion
from sdi_gs.guidance.noise_sources.protocol import NoiseRequest
from sdi_gs.guidance.noise_sources.random import Random
from sdi_gs.priors.catalog import load_prior
from sdi_gs.training.trainer import Trainer


class Blend:
    def infer(self, request: NoiseRequest) -> torch.Tensor:  # [B, C, h, w]
        return (Inversion().infer(request) + Random().infer(request)) / 2**0.5


config = replace(preset_named("smoke").config, prompt="a blue robot")
prior = load_prior(config, device="cpu")
trainer = Trainer(config, prior, device=torch.device("cpu"), noise_source=Blend())
for _ in range(config.steps):
    report = trainer.train_step()
    print(f"step {report.step:2d}: {report.predictor_calls} calls, loss {report.losses['distillation']:.4f}")
