"""What a run does once, done beforehand, so that measured seconds are those of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from sdi_gs.cameras import VIEW_WORDS, ViewWord, sample_cameras
from sdi_gs.training.trainer import Trainer


def warm_up(trainer: Trainer) -> None:
    """Warm up before the first step: rendered mixtures, compiled kernels. Leaves the generators unchanged."""
    prior, conditions, backgrounds = trainer.prior, trainer.conditions, trainer.config.backgrounds
    size = prior.image_size
    group = trainer.config.cameras.views_per_group
    latents = prior.encode_images(torch.zeros(group, size, size, 3), torch.Generator().manual_seed(0)).detach()
    views: Sequence[ViewWord | None] = VIEW_WORDS
    cameras = None
    if trainer.config.guidance.views == "cameras":
        draws = torch.Generator().manual_seed(0)
        views = [None]
        drawn = sample_cameras(trainer.config.cameras, 2 * group, width=size, height=size, generator=draws)
        cameras = drawn.rows(slice(group))
    prior.predict_noise(latents, 500, conditions.negative_embeddings(group), cameras)
    for view in views:
        for background in backgrounds:
            embeddings = conditions.prompt_embeddings((view,) * group, (background,) * group)
            prior.predict_noise(latents, 500, embeddings, cameras)
    # The step of a twin compiles the rasteriser's kernels, forwards and backwards.
    Trainer(replace(trainer.config, steps=1), prior, device=trainer.device).train_step()
