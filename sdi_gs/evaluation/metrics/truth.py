"""Scores against the toybox object that the prompt names (docs/eval.md)."""

from __future__ import annotations

from typing import Any

from sdi_gs.contracts import Representation
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric, Subject, TableRow
from sdi_gs.pictures.views import render_views
from sdi_gs.toybox.captions import ToyboxPrompt, parse_prompt
from sdi_gs.toybox.truth import NUM_DRAWS, NUM_WRONG_CLASS_DRAWS, held_out_cameras
from sdi_gs.toybox.truth_renders import TruthRenders
from sdi_gs.toybox.truth_score import TruthScore, score_against_truth


def score_scene(
    representation: Representation,
    prompt: str,
    *,
    num_draws: int = NUM_DRAWS,
    image_size: int = IMAGE_SIZE,
    renders: TruthRenders | None = None,
    floor: bool = True,
) -> TruthScore:
    """Score the held-out views over white; UserError for a prompt without a toybox truth.

    ``renders`` keeps truth's renders for the next scene; it was made for ``held_out_cameras(image_size)``. Without
    ``floor`` no wrong class is compared.
    """
    wanted = toybox_prompt(prompt)
    cameras = held_out_cameras(image_size)
    views = render_views(representation, cameras)
    return score_against_truth(
        views.rgb,
        views.alpha,
        cameras,
        wanted,
        num_draws,
        NUM_WRONG_CLASS_DRAWS if floor else 0,
        render=lambda turned: render_views(representation, turned),
        renders=renders,
    )


def toybox_prompt(text: str) -> ToyboxPrompt:
    """Parse a prompt that names a toybox object; UserError for any other."""
    try:
        parsed = parse_prompt(text)
    except UserError as error:
        # The message ends by naming another prior, which is no help here.
        reason = str(error).partition("; for anything else")[0]
        raise UserError(f"truth exists only for toybox prompts: {reason}") from error
    if parsed.class_name is None:
        raise UserError(f'truth exists only for toybox prompts, and "{text}" names no object: write "a blue robot"')
    return parsed


def _compute(subject: Subject) -> dict[str, Any]:
    assert subject.toybox is not None
    views = subject.views
    score = score_against_truth(
        views.rgb,
        views.alpha,
        subject.cameras,
        subject.toybox,
        subject.num_draws,
        render=lambda turned: render_views(subject.representation, turned),
        renders=subject.truth,
    )
    return score.as_json()


TRUTH = Metric(
    name="truth",
    compute=_compute,
    needs_truth=True,
    rows=(
        TableRow(title="PSNR, best of {num_draws} (dB)", score="{psnr_best}"),
        TableRow(title="PSNR, turned by {yaw_deg}° (dB)", score="{psnr_free}"),
        TableRow(
            title="PSNR, canonical (dB)",
            score="{psnr_canonical}",
            ceiling="{psnr_ceiling} ({psnr_ceiling_converged})",
        ),
        TableRow(title="IoU, best of {num_draws}", score="{iou_best}", floor="{iou_wrong_class} ({wrong_class})"),
        TableRow(title="IoU, turned", score="{iou_free}"),
        TableRow(title="IoU, canonical", score="{iou_canonical}", ceiling="{iou_ceiling} ({iou_ceiling_converged})"),
        TableRow(title="detail", score="{detail}", ceiling="{detail_ceiling} ({detail_ceiling_converged})"),
        TableRow(title="detail inside the outline", score="{detail_inside}"),
        TableRow(title="sharpness over truth's", score="{sharpness_ratio}"),
        TableRow(title="saturation minus truth's", score="{saturation_error}"),
        TableRow(title="changing borders of patches", score="{patch_changes}"),
        TableRow(title="spread of chroma minus truth's", score="{chroma_spread}"),
        TableRow(title="distance from its colour", score="{colour_distance}"),
        TableRow(title="fog outside the silhouette", score="{fog}"),
        TableRow(title="views nearest to the right side", score="{view_accuracy}"),
        TableRow(title="front and back right", score="{front_back_right}"),
        TableRow(title="colour right", score="{colour_right}"),
    ),
)
