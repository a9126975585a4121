"""A renderer of your own in the trainer: a soft, coloured ellipsoid, trained, stopped, resumed and rendered.

Runs on a CPU in seconds. Pictures, checkpoints and the log are in ./ellipsoid.
"""

import torch

import sdi_gs
from sdi_gs.cameras import camera_rays

START = {"log_radii": torch.full((3,), -0.5), "slope": torch.zeros(3, 3), "colour": torch.zeros(3)}


class Ellipsoid(sdi_gs.ParameterScene):
    def render(self, cameras, background, **_):
        rays, radii = camera_rays(cameras), self.params["log_radii"].exp()
        origins, directions = rays.origins / radii, rays.directions / radii  # [R, 3], the ellipsoid as a unit ball
        along = (origins * directions).sum(-1, True) / directions.square().sum(-1, True)
        nearest = origins - along * directions  # of each ray to the centre
        alpha = torch.sigmoid(20.0 * (1.0 - nearest.norm(dim=-1, keepdim=True)))
        rgb = torch.sigmoid(nearest @ self.params["slope"] + self.params["colour"])
        alpha, rgb = (values.view(len(cameras), cameras.height, cameras.width, -1) for values in (alpha, rgb))
        return sdi_gs.RenderOutput(rgb=alpha * rgb + (1.0 - alpha) * background[:, None, None], alpha=alpha)


config = sdi_gs.preset("smoke", prompt="a blue robot")
trainer = sdi_gs.Trainer(config, sdi_gs.load_prior(config), scene=Ellipsoid(START, learning_rates=0.05))
sdi_gs.run(trainer, "ellipsoid", should_stop=lambda: trainer.step == 10)
trainer, folder = sdi_gs.prepare_resume("ellipsoid", scene=Ellipsoid(START, learning_rates=0.05))
print(sdi_gs.run(trainer, folder)["step"], "steps;", folder.contact_sheet)
