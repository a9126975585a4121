"""What the judge answers about true objects: the most that any run can score with it (docs/reports/gallery.md).

    python benchmarks/judge_on_truth.py              # half a minute of CPU

The objects are the first of those that runs are scored against, in the held-out views over white. The last line printed
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from statistics import mean

from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.study.spec import TWELVE as PROMPTS
from sdi_gs.toybox.judge import JudgeScore, load_judge
from sdi_gs.toybox.truth import held_out_cameras, render_truth, truth_draws


def judged(prompt: str, draws: int) -> list[JudgeScore]:
    """Return the judge's scores of true objects for a prompt."""
    words, cameras, judge = toybox_prompt(prompt), held_out_cameras(IMAGE_SIZE), load_judge()
    assert words.class_name is not None and words.colour is not None
    images = render_truth(truth_draws(words.class_name, words.colour, draws), cameras).rgb
    return [judge.score(views, cameras.view_words(), words) for views in images.split(len(cameras))]


def mean_of(scores: list[JudgeScore], name: str) -> float | None:
    """Return the mean of a score; None if it has no sense for this class."""
    values = [getattr(score, name) for score in scores]
    return None if None in values else mean(values)


def main() -> None:
    """Print a line per prompt, and the means over the prompts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=8, help="true objects for each prompt")
    draws = parser.parse_args().draws
    names = ("judge_class", "judge_colour", "judge_view")
    rows = {}
    for prompt in PROMPTS:
        scores = judged(prompt, draws)
        rows[prompt] = {name: mean_of(scores, name) for name in names}
        print(f"{prompt:32} " + " ".join(f"{name} {value}" for name, value in rows[prompt].items()), flush=True)
    means = {name: mean(row[name] for row in rows.values() if row[name] is not None) for name in names}
    print(json.dumps({"draws": draws, **means}))


if __name__ == "__main__":
    main()
