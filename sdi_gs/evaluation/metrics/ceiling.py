"""Metric "ceiling": scores of the representation fitted to true views of the canonical object (docs/eval.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric, Subject
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.pictures.views import render_views
from sdi_gs.runs.loading import load_start
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.truth import held_out_cameras, render_truth
from sdi_gs.training.fitting import fit_to_images

DEFAULT_COLOUR = "blue"
"""Colour of the object where neither the prompt nor the scene has one."""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Scores of the fitted representation."""

    psnr: float
    """Mean PSNR over the held-out views, dB."""
    iou: float
    """Mean silhouette IoU over the held-out views."""
    n_gaussians: int
    """Gaussians at the end of the fit."""


def score_ceiling(
    config: RunConfig,
    prompt: str,
    *,
    colour: str = DEFAULT_COLOUR,
    image_size: int = IMAGE_SIZE,
    device: torch.device | str = "cpu",
) -> Ceiling:
    """Fit a run's representation to true views of the canonical object, and score it on the held-out ones.

    ``colour`` is that of the object where the prompt names none. Raises UserError for a prompt without a toybox truth.
    """
    wanted = toybox_prompt(prompt)
    assert wanted.class_name is not None
    item, cameras = canonical_object(wanted.class_name, wanted.colour or colour), held_out_cameras(image_size)
    fitted_scene = fit_to_images(
        config,
        lambda training, background: render_scenes([(item,)] * len(training), training, background).rgb,
        image_size=image_size,
        device=torch.device(device),
        start=load_start(config, device=torch.device(device)),
    )
    fitted, truth = render_views(fitted_scene.representation, cameras), render_truth([item], cameras)
    return Ceiling(
        psnr=metrics.psnr(fitted.rgb, truth.rgb).mean().item(),
        iou=metrics.silhouette_iou(fitted.alpha, truth.alpha).mean().item(),
        n_gaussians=fitted_scene.representation.num_points,
    )


def _compute(subject: Subject) -> dict[str, Any]:
    if subject.ceiling_config is None:
        return {"psnr_ceiling": None, "iou_ceiling": None, "n_gaussians_ceiling": None}
    ceiling = score_ceiling(
        subject.ceiling_config,
        subject.prompt,
        # The colour in which the scene was compared with truth.
        colour=subject.scores.get("colour", DEFAULT_COLOUR),
        image_size=subject.image_size,
        device=subject.representation.device,
    )
    return {
        "psnr_ceiling": ceiling.psnr,
        "iou_ceiling": ceiling.iou,
        "n_gaussians_ceiling": ceiling.n_gaussians,
    }


# In the table its values stand beside those of the metric "truth".
CEILING = Metric(name="ceiling", compute=_compute, needs_truth=True, rows=())
