"""The scores that a study can show: from which metric, how written, and which way is better. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.settings.scoring import Role


@dataclass(frozen=True, kw_only=True)
class Score:
    """A column of the tables."""

    title: str
    form: str
    """Format of its values."""
    metric: str
    """Metric of ``sdi_gs.evaluation`` that computes it."""
    better: int = 1
    """1 if more is better, -1 if less is."""
    of: Callable[[float], float] = float
    """From the metric's value to what is shown."""
    key: str = ""
    """Key among the metric's values; empty for that of the table."""
    network: Role | None = None
    """The network that the metric needs; None where it needs none."""
    is_share: bool = False
    """Whether a run has it or not, so that a mean is the share of runs, shown with its interval."""


MOST_TURN_DEG = 45.0
"""Half of the quarter that a view word names: an object that is turned by more contradicts most of its words."""

SCORES: dict[str, Score] = {
    "psnr_best": Score(title="PSNR fixed yaw", form=".1f", metric="truth"),
    "psnr_free": Score(title="PSNR", form=".1f", metric="truth"),
    "iou_best": Score(title="IoU fixed yaw", form=".3f", metric="truth"),
    "iou_free": Score(title="IoU", form=".3f", metric="truth"),
    "detail": Score(title="detail", form=".2f", metric="truth"),
    "detail_inside": Score(title="detail inside", form=".2f", metric="truth"),
    "sharpness_ratio": Score(title="sharpness", form=".2f", metric="truth"),
    "saturation": Score(
        title="saturation error", form=".3f", metric="truth", better=-1, of=abs, key="saturation_error"
    ),
    "fog": Score(title="fog", form=".3f", metric="truth", better=-1),
    "view_accuracy": Score(title="sides right", form=".2f", metric="truth"),
    "two_fronts": Score(title="two fronts", form=".0%", metric="fronts", better=-1, is_share=True),
    "no_front": Score(
        title="no front",
        form=".0%",
        metric="fronts",
        better=-1,
        of=lambda fronts: float(fronts == 0),
        key="fronts",
        is_share=True,
    ),
    "turned": Score(
        title="turned",
        form=".0%",
        metric="fronts",
        better=-1,
        of=lambda turn_deg: float(abs(turn_deg) > MOST_TURN_DEG),
        key="turn_deg",
        is_share=True,
    ),
    "sides_agree": Score(title="sides agree", form=".2f", metric="fronts"),
    "sides_right": Score(title="sides right, every 15°", form=".2f", metric="fronts"),
    "psnr_turned": Score(title="PSNR, any turn", form=".1f", metric="fronts"),
    "hollow": Score(title="hollow", form=".2f", metric="fronts", better=-1),
    "judge_class": Score(title="judge: class", form=".2f", metric="judge"),
    "judge_colour": Score(title="judge: colour", form=".2f", metric="judge"),
    "judge_view": Score(title="judge: view", form=".2f", metric="judge"),
    "judge_back_as_front": Score(title="judge: back as front", form=".2f", metric="judge", better=-1),
    "bound": Score(title="both, own colours", form=".0%", metric="objects", is_share=True),
    "first_present": Score(title="first there", form=".0%", metric="objects", is_share=True),
    "second_present": Score(title="second there", form=".0%", metric="objects", is_share=True),
    "colours_swapped": Score(title="colours swapped", form=".0%", metric="objects", better=-1, is_share=True),
    "relation_right": Score(title="relation", form=".0%", metric="objects", is_share=True),
    "first_judge_class": Score(title="judge: first", form=".2f", metric="objects"),
    "second_judge_class": Score(title="judge: second", form=".2f", metric="objects"),
    "first_judge_colour": Score(title="judge: first's colour", form=".2f", metric="objects"),
    "second_judge_colour": Score(title="judge: second's colour", form=".2f", metric="objects"),
    "clip_score": Score(title="CLIP", form=".2f", metric="clip", network="clip"),
    "image_reward": Score(title="ImageReward", form=".3f", metric="image-reward", network="image-reward"),
    "clip_iqa_quality": Score(title="CLIP-IQA: quality", form=".3f", metric="clip-iqa", network="clip-iqa"),
    "clip_iqa_sharpness": Score(title="CLIP-IQA: sharpness", form=".3f", metric="clip-iqa", network="clip-iqa"),
    "clip_iqa_real": Score(title="CLIP-IQA: real", form=".3f", metric="clip-iqa", network="clip-iqa"),
    "hps": Score(title="HPS", form=".4f", metric="hps", network="hps"),
    "janus_front_back": Score(title="front like back", form=".3f", metric="janus", better=-1, network="clip"),
    "diverged": Score(title="diverged", form=".0%", metric="divergence", better=-1, is_share=True),
    "floating_opacity": Score(title="floating", form=".3f", metric="shape", better=-1),
}
"""Every score, by the key that studies name it by; a new one is a row over a metric of the table of metrics."""


def require_score(name: str, where: str) -> None:
    """Raise UserError for a key that is no score."""
    if name not in SCORES:
        raise UserError(f"{where}: unknown metric {name}; accepted: {', '.join(SCORES)}")


def value_of(key: str, scores: Mapping[str, Any]) -> float | None:
    """Return a score from a run's values; None where it does not apply."""
    value = scores.get(SCORES[key].key or key)
    return None if value is None else SCORES[key].of(float(value))


def metrics_of(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the metrics that compute some scores, each once."""
    return tuple(dict.fromkeys(SCORES[key].metric for key in keys))
