"""A renderer of your own in the trainer: a soft, coloured ellipsoid, trained, stopped, resumed and rendered.

Runs on a CPU in seconds; the run's folder is ./ellipsoid.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch

from sdi_gs.cameras import camera_rays
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import RenderOutput
from sdi_gs.representations.parameter_scene import ParameterScene
from sdi_gs.runs.finish import finish
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run


class Ellipsoid(ParameterScene):
    def render(self, cameras, background, **_):
        rays, radii = camera_rays(cameras), self.params["log_radii"].exp()
        origins, directions = rays.origins / radii, rays.directions / radii  # [R, 3] where the ellipsoid is a unit ball
        nearest = origins - (origins * directions).sum(-1, True) / directions.square().sum(-1, True) * directions
        rgb = torch.sigmoid(nearest @ self.params["slope"] + self.params["colour"])
        alpha = torch.sigmoid(20.0 * (1.0 - nearest.norm(dim=-1, keepdim=True)))
        alpha, rgb = (image.view(len(cameras), cameras.height, cameras.width, -1) for image in (alpha, rgb))
        return RenderOutput(rgb=alpha * rgb + (1.0 - alpha) * background[:, None, None], alpha=alpha)


def ellipsoid():
    start = {"log_radii": torch.full((3,), -0.5), "slope": torch.zeros(3, 3), "colour": torch.zeros(3)}
    return Ellipsoid(start, learning_rates=0.05)


cpu, config = torch.device("cpu"), replace(preset_named("smoke").config, prompt="a blue robot")
trainer, folder = prepare_run(config, device=cpu, folder=Path("ellipsoid"), scene=ellipsoid())
train(trainer, folder, should_stop=lambda: trainer.step == 10)
trainer, folder = prepare_resume(folder.path, device=cpu, scene=ellipsoid())
train(trainer, folder)
finish(trainer, folder, started=time.perf_counter())
