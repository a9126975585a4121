"""Scores of a made object against toybox's truth (docs/eval.md).

Letters: V views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sdi_gs.contracts import Representation
from sdi_gs.errors import UserError
from sdi_gs.pictures.views import render_views
from sdi_gs.runs.finish import read_summary
from sdi_gs.runs.loading import SavedScene
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.captions import ToyboxPrompt, parse_prompt
from sdi_gs.toybox.judge import JudgeScore, load_judge
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.truth import NUM_DRAWS, TruthScore, held_out_cameras, render_truth, score_against_truth
from sdi_gs.training.fitting import fit_to_images

IMAGE_SIZE = 64
"""Side of the held-out views in pixels, that of the images which the toybox priors know."""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What a representation reaches when it is fitted to true views of the canonical object."""

    psnr: float
    """Mean PSNR over the held-out views, dB."""
    iou: float
    """Mean silhouette IoU over the held-out views."""
    n_gaussians: int
    """Gaussians at the end of the fit."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One object's scores, with what is needed to read them."""

    source: str
    """What was scored."""
    prompt: str
    """What it should be."""
    score: TruthScore
    judged: JudgeScore
    ceiling: Ceiling | None
    """None where it was not asked for."""
    n_gaussians: int
    image_size: int
    """Side of the held-out views in pixels."""
    step: int | None
    """Finished steps of the run; None for a bare file."""
    summary: dict[str, Any]
    """The run's own summary; empty for a bare file or a run without one."""

    def as_json(self) -> dict[str, Any]:
        """The keys of docs/eval.md."""
        ceiling = self.ceiling
        return {
            "instrument": "toybox",
            "source": self.source,
            "prompt": self.prompt,
            **self.score.as_json(),
            **self.judged.as_json(),
            "psnr_ceiling": ceiling.psnr if ceiling is not None else None,
            "iou_ceiling": ceiling.iou if ceiling is not None else None,
            "n_gaussians_ceiling": ceiling.n_gaussians if ceiling is not None else None,
            "n_gaussians": self.n_gaussians,
            "image_size": self.image_size,
            "num_views": len(held_out_cameras(self.image_size)),
            "step": self.step,
            "wall_seconds": self.summary.get("wall_seconds"),
            "peak_rss_mb": self.summary.get("peak_rss_mb"),
        }


def evaluate(
    scene: SavedScene,
    *,
    prompt: str | None = None,
    num_draws: int = NUM_DRAWS,
    image_size: int = IMAGE_SIZE,
    ceiling_config: RunConfig | None = None,
) -> Evaluation:
    """Score a cloud under the run's own prompt or another one.

    ``ceiling_config`` says how the ceiling is fitted; None for no ceiling. Raises UserError where there is no
    prompt, or where it is none of toybox's.
    """
    prompt = prompt or scene.prompt
    if not prompt:
        raise UserError(f'{scene.path} does not say what it should be: add --prompt "a blue robot"')
    score = score_scene(scene.representation, prompt, num_draws=num_draws, image_size=image_size)
    ceiling = None
    if ceiling_config is not None:
        device = scene.representation.device
        ceiling = score_ceiling(ceiling_config, prompt, colour=score.colour, image_size=image_size, device=device)
    run = scene.run
    return Evaluation(
        source=str(scene.path),
        prompt=prompt,
        score=score,
        judged=judge_scene(scene.representation, prompt, image_size=image_size),
        ceiling=ceiling,
        n_gaussians=scene.num_gaussians,
        image_size=image_size,
        step=run.step if run is not None else None,
        summary=(read_summary(run.folder) if run is not None else None) or {},
    )


def score_scene(
    representation: Representation, prompt: str, *, num_draws: int = NUM_DRAWS, image_size: int = IMAGE_SIZE
) -> TruthScore:
    """Score the held-out views over white; UserError for a prompt that is none of toybox's."""
    asked = toybox_prompt(prompt)
    cameras = held_out_cameras(image_size)
    render = render_views(representation, cameras)
    return score_against_truth(render.rgb, render.alpha, cameras, asked, num_draws)


def judge_scene(representation: Representation, prompt: str, *, image_size: int = IMAGE_SIZE) -> JudgeScore:
    """What the judge says of the held-out views over white; UserError for a prompt that is none of toybox's."""
    cameras = held_out_cameras(image_size)
    render = render_views(representation, cameras)
    return load_judge().score(render.rgb, cameras.view_words(), toybox_prompt(prompt))


def score_ceiling(
    config: RunConfig,
    prompt: str,
    *,
    colour: str = "blue",
    image_size: int = IMAGE_SIZE,
    device: torch.device | str = "cpu",
) -> Ceiling:
    """Fit the run's representation to true views of the canonical object, and score it on the held-out ones.

    ``colour`` is that of the object where the prompt names none. UserError for a prompt that is none of toybox's.
    """
    asked = toybox_prompt(prompt)
    assert asked.class_name is not None
    item, cameras = canonical_object(asked.class_name, asked.colour or colour), held_out_cameras(image_size)
    fitted_scene = fit_to_images(
        config,
        lambda training, background: render_scenes([(item,)] * len(training), training, background).rgb,
        image_size=image_size,
        device=torch.device(device),
    )
    fitted, truth = render_views(fitted_scene.representation, cameras), render_truth([item], cameras)
    return Ceiling(
        psnr=metrics.psnr(fitted.rgb, truth.rgb).mean().item(),
        iou=metrics.silhouette_iou(fitted.alpha, truth.alpha).mean().item(),
        n_gaussians=fitted_scene.num_gaussians,
    )


def toybox_prompt(text: str) -> ToyboxPrompt:
    """A prompt that has a truth; UserError for any other."""
    try:
        asked = parse_prompt(text)
    except UserError as error:
        # Another prior, which the message ends with, is no help here.
        reason = str(error).partition("; for anything else")[0]
        raise UserError(f"truth exists only for toybox prompts: {reason}") from error
    if asked.class_name is None:
        raise UserError(f'truth exists only for toybox prompts, and "{text}" names no object: say "a blue robot"')
    return asked
