"""A loop of your own: cameras, a render, the guidance and an optimiser, without the trainer. Half a minute on a CPU.

``distill`` knows latents and a prior, ``Gaussians`` know cameras; the loop below joins them. It writes ./mushroom.ply
and ./mushroom.png.
"""

from pathlib import Path

import torch

import sdi_gs
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BackgroundName
from sdi_gs.splats.formats import write_splats

STEPS, COUNT = 150, 3000
LEARNING_RATES = {"means": 1e-2, "scales": 2e-2, "quats": 1e-2, "opacities": 5e-2, "sh0": 3e-2}

config = sdi_gs.preset("toybox-ideal", {"guidance.random_fraction": 0.4}, prompt="a red mushroom")
prior = sdi_gs.load_prior(config)
# A white stem is invisible on white alone: every view has one of three backgrounds, which its prompt names.
backgrounds: list[BackgroundName] = ["white", "gray", "black", "white"]
colours = torch.tensor([BACKGROUND_COLOURS[name] for name in backgrounds])
conditions = PromptConditions(prior, config.prompt, backgrounds=config.backgrounds, views=config.guidance.views)
generator = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=generator)


# Stored values are raw: log scales, logit opacities, quaternions of any length (docs/conventions.md).
gaussians = sdi_gs.Gaussians(
    {
        "means": 0.3 * random(COUNT, 3),
        "scales": torch.full((COUNT, 3), -3.3),
        "quats": random(COUNT, 4),
        "opacities": torch.full((COUNT,), -1.0),
        "sh0": 0.1 * random(COUNT, 1, 3),
    }
)
optimizer = torch.optim.Adam([{"params": [gaussians.params[name]], "lr": lr} for name, lr in LEARNING_RATES.items()])
size, schedule = prior.image_size, prior.schedule
for step in range(STEPS):
    cameras = sdi_gs.sample_cameras(config.cameras, len(backgrounds), width=size, height=size, generator=generator)
    plan = plan_step(config.guidance, step, STEPS, num_timesteps=schedule.num_timesteps, generator=generator)
    render = gaussians.render(cameras, colours)
    latents = prior.encode_images(render.rgb, generator)
    prompts = conditions.for_cameras(cameras, backgrounds, perp_neg=False)
    guided = sdi_gs.distill(config.guidance, prior, latents.detach(), prompts, plan=plan, generator=generator)
    loss = 0.5 * (latents - guided.target).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 30 == 0 or step == STEPS - 1:
        print(f"step {step:3d}: t {plan.timestep}, loss {loss.item():.4f}")

ring = ring_cameras(config.cameras, 8, 128, elevation_deg=15.0)
save_contact_sheet(Path("mushroom.png"), render_views(gaussians, ring, BACKGROUND_COLOURS["gray"]).rgb, columns=4)
write_splats(Path("mushroom.ply"), gaussians.splats(), "ply")
