"""A noise source of your own in the trainer: half inverted (SDI), half random (SDS). Runs on a CPU in seconds."""

import sdi_gs
from sdi_gs.guidance.noise_sources.inversion import Inversion
from sdi_gs.guidance.noise_sources.random import Random


class Blend:
    def infer(self, request):
        return (Inversion().infer(request) + Random().infer(request)) / 2**0.5  # [B, C, h, w]


def print_step(event):
    if report := getattr(event, "report", None):
        print(f"step {report.step:2d}: {report.predictor_calls} calls, loss {report.losses['distillation']:.4f}")


config = sdi_gs.preset("smoke", prompt="a blue robot")
trainer = sdi_gs.Trainer(config, sdi_gs.load_prior(config), noise_source=Blend())
sdi_gs.run(trainer, "blend", observers=[print_step])
