"""Metric "ceiling": scores of the representation fitted to true views of the canonical object (docs/eval.md).

It is fitted twice: with the steps of the run, and until more steps change little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric, Subject
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.pictures.views import render_views
from sdi_gs.runs.loading import load_start
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.detail import detail
from sdi_gs.toybox.truth import canonical_member, held_out_cameras, render_truth
from sdi_gs.training.fitting import fit_to_images

DEFAULT_COLOUR = "blue"
"""Colour of the object where neither the prompt nor the scene has one."""
CONVERGED_STEPS = 1200
"""Steps of the fit at convergence: the last half of them adds about 1.5 dB and 0.06 of detail."""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Scores of the fitted representation."""

    psnr: float
    """Mean PSNR over the held-out views, dB."""
    iou: float
    """Mean silhouette IoU over the held-out views."""
    detail: float
    """Share of truth's Laplacian that is explained (``sdi_gs.toybox.detail``)."""
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
    item = canonical_member(toybox_prompt(prompt), colour)
    cameras = held_out_cameras(image_size)
    fitted_scene = fit_to_images(
        config,
        lambda training, background: render_truth([item], training, background).rgb,
        image_size=image_size,
        device=torch.device(device),
        start=load_start(config, device=torch.device(device)),
    )
    fitted, truth = render_views(fitted_scene.representation, cameras), render_truth([item], cameras)
    silhouette = metrics.silhouette(truth.alpha)
    return Ceiling(
        psnr=metrics.psnr(fitted.rgb, truth.rgb).mean().item(),
        iou=metrics.silhouette_iou(fitted.alpha, truth.alpha).mean().item(),
        detail=detail(fitted.rgb, truth.rgb, silhouette).explained,
        n_gaussians=fitted_scene.representation.num_points,
    )


def converged(config: RunConfig) -> RunConfig:
    """Return the run's settings with enough steps for a converged fit."""
    return replace(config, steps=max(config.steps, CONVERGED_STEPS))


def _compute(subject: Subject) -> dict[str, Any]:
    config, of_run, at_convergence = subject.ceiling_config, None, None
    if config is not None:

        def fitted(settings: RunConfig) -> Ceiling:
            return score_ceiling(
                settings,
                subject.prompt,
                # The colour in which the scene was compared with truth.
                colour=subject.scores.get("colour", DEFAULT_COLOUR),
                image_size=subject.image_size,
                device=subject.representation.device,
            )

        of_run = fitted(config)
        at_convergence = of_run if converged(config) == config else fitted(converged(config))
    return {
        "psnr_ceiling": of_run and of_run.psnr,
        "iou_ceiling": of_run and of_run.iou,
        "detail_ceiling": of_run and of_run.detail,
        "n_gaussians_ceiling": of_run and of_run.n_gaussians,
        "psnr_ceiling_converged": at_convergence and at_convergence.psnr,
        "iou_ceiling_converged": at_convergence and at_convergence.iou,
        "detail_ceiling_converged": at_convergence and at_convergence.detail,
    }


# In the table its values stand beside those of the metric "truth".
CEILING = Metric(name="ceiling", compute=_compute, needs_truth=True, rows=())
