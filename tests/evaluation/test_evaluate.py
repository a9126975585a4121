"""Scores of whole objects: what is counted, from what, and how it is documented."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import Scene
from sdi_gs.errors import UserError
from sdi_gs.evaluation.evaluate import Evaluation, evaluate
from sdi_gs.evaluation.metrics.ceiling import score_ceiling
from sdi_gs.evaluation.metrics.judge import JUDGE, judge_scene
from sdi_gs.evaluation.metrics.metric import Metric, Subject, TableRow
from sdi_gs.evaluation.metrics.objects import OBJECTS, score_objects
from sdi_gs.evaluation.metrics.size import SIZE
from sdi_gs.evaluation.metrics.table import METRICS, metric_named
from sdi_gs.evaluation.metrics.truth import TRUTH, score_scene, toybox_prompt
from sdi_gs.evaluation.networks.kept import Networks
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.runs.loading import SavedScene
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.scoring import NetworkOptions
from sdi_gs.toybox.truth_score import TruthScore
from sdi_gs.training.fitting import fit_to_images

CPU = torch.device("cpu")
DOCS = Path(__file__).parents[2] / "docs/eval.md"
PROMPT = "a red ball"
TRUTH_KEYS = tuple(field.name for field in fields(TruthScore))


def config(steps: int = 60) -> RunConfig:
    base = preset_named("smoke").config
    return replace(
        base,
        prompt=PROMPT,
        steps=steps,
        gaussians=GaussiansConfig(num_initial=300, initial_opacity=0.3, means_lr=1e-2),
        densify=DensifyConfig(enabled=False),
    )


def cloud_of(scene: Scene) -> Gaussians:
    assert isinstance(scene.representation, Gaussians)
    return scene.representation


def splats(gaussians: Gaussians) -> SavedScene:
    return SavedScene(representation=gaussians, path=Path("ball.ply"), run=None)


@pytest.fixture(scope="module")
def red_ball() -> Gaussians:
    """A cloud fitted to a red disc from all sides."""

    def disc(cameras: CameraBatch, background: Tensor) -> Tensor:
        rows = (torch.arange(cameras.height) + 0.5) / cameras.height - 0.5
        inside = (rows[:, None] ** 2 + rows[None, :] ** 2).sqrt() < 0.29
        image = torch.where(inside[None, :, :, None], torch.tensor([0.8, 0.1, 0.1]), background[:, None, None, :])
        return image.expand(len(cameras), -1, -1, -1)

    return cloud_of(fit_to_images(config(), disc, image_size=64, device=CPU))


def nowhere() -> Networks:
    """Networks that are on no machine, whatever the hub's cache holds."""
    return Networks(NetworkOptions(clip="no/clip", clip_iqa="no/clip", hps="no/hps", image_reward="no/reward"))


@pytest.fixture(scope="module")
def evaluation(red_ball: Gaussians) -> Evaluation:
    return evaluate(splats(red_ball), prompt=PROMPT, num_draws=2, ceiling_config=config(20), networks=nowhere())


def documented_keys(section: str) -> list[str]:
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## )", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)
    return sorted(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))


def test_every_key_is_documented_and_every_documented_key_is_there(evaluation: Evaluation) -> None:
    assert documented_keys("Keys") == sorted(evaluation.as_json())


def test_scores_are_plain_json(evaluation: Evaluation) -> None:
    scores = evaluation.as_json()
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert (scores["num_draws"], scores["num_views"], scores["image_size"]) == (2, 24, 64)
    assert scores["n_gaussians"] == scores["n_gaussians_ceiling"] == 300


def test_a_bare_file_has_no_time_and_no_memory(evaluation: Evaluation) -> None:
    scores = evaluation.as_json()
    assert scores["wall_seconds"] is scores["peak_rss_mb"] is scores["step"] is None


@pytest.mark.slow
def test_the_right_object_scores_above_the_floor_and_another_prompt_below(
    evaluation: Evaluation, red_ball: Gaussians
) -> None:
    assert evaluation.scores["iou_best"] > 0.8
    assert evaluation.scores["colour_right"]
    wrong = score_scene(red_ball, "a blue chair", num_draws=2)
    assert not wrong.colour_right
    assert wrong.iou_best < evaluation.scores["iou_best"] - 0.2
    assert wrong.psnr_best < evaluation.scores["psnr_best"] - 3.0


def test_the_judge_sees_the_held_out_views(evaluation: Evaluation, red_ball: Gaussians) -> None:
    assert evaluation.scores["judge_class"] > 0.9
    assert evaluation.scores["judge_colour"] > 0.9
    assert evaluation.scores["judge_view"] is None
    wrong = judge_scene(red_ball, "a blue chair")
    assert wrong.judge_class < 0.1
    assert wrong.judge_colour is not None
    assert wrong.judge_colour < 0.1
    assert wrong.judge_view is not None


@pytest.mark.slow
def test_no_ceiling_where_none_was_asked_for(red_ball: Gaussians) -> None:
    scores = evaluate(splats(red_ball), prompt=PROMPT, num_draws=1).as_json()
    assert scores["psnr_ceiling"] is scores["iou_ceiling"] is scores["n_gaussians_ceiling"] is None


def test_the_ceiling_rises_with_the_steps_of_the_run() -> None:
    short, long = (score_ceiling(config(steps), PROMPT) for steps in (3, 60))
    assert long.psnr > short.psnr + 3.0
    assert long.iou > 0.85


def test_without_a_colour_the_ceiling_is_that_of_the_colour_that_is_named() -> None:
    named = score_ceiling(config(3), "a ball", colour="red")
    assert named == score_ceiling(config(3), "a red ball")
    assert score_ceiling(config(3), "a ball").psnr != named.psnr


def test_the_ceiling_starts_from_the_cloud_of_the_run(tmp_path: Path) -> None:
    rates = ("means_lr", "means_lr_final", "scales_lr", "quats_lr", "opacities_lr", "sh0_lr")
    still = config(1)
    # Rates too small to change a float32.
    still = replace(still, gaussians=replace(still.gaussians, **dict.fromkeys(rates, 1e-30)))
    trainer, _ = prepare_run(still, device=CPU, folder=tmp_path / "run")

    def white(cameras: CameraBatch, background: Tensor) -> Tensor:
        return torch.ones(len(cameras), 64, 64, 3)

    fitted = cloud_of(fit_to_images(still, white, image_size=64, device=CPU))
    for name, value in cloud_of(trainer.scene).params.items():
        assert torch.equal(fitted.params[name], value), name


def test_a_fit_sees_the_cameras_backgrounds_and_views_of_the_run() -> None:
    settings = replace(config(4), backgrounds=("white", "black"), views_per_step=3)
    elevations, seen = [], []

    def images_of(cameras: CameraBatch, background: Tensor) -> Tensor:
        elevations.append(cameras.elevation_deg)
        seen.append(background[:, 0])
        return torch.zeros(3, 64, 64, 3)

    fit_to_images(settings, images_of, image_size=64, device=CPU)
    low, high = settings.cameras.elevation_deg
    assert len(elevations) == 4
    assert ((torch.cat(elevations) >= low) & (torch.cat(elevations) <= high)).all()
    assert torch.cat(seen).tolist() == [1.0, 0.0] * 6


def test_a_fit_densifies_as_the_run_does() -> None:
    growing = DensifyConfig(start=0.0, stop=1.0, every=2, max_gaussians=400, min_gaussians=1, grow_share=0.5)
    settings = replace(config(8), densify=growing)
    fitted = fit_to_images(settings, lambda c, b: torch.zeros(len(c), 64, 64, 3), image_size=64, device=CPU)
    assert fitted.representation.num_points == 400


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a blue dragon", '"dragon"'),
        ("a blue robot and a red car", "more than one object"),
        ("a blue thing", "names no object"),
    ],
)
def test_only_toybox_prompts_have_a_truth(prompt: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        toybox_prompt(prompt)
    said = str(refused.value)
    assert said.startswith("truth exists only for toybox prompts")
    assert says in said
    # Another prior would not help here.
    assert "--prior" not in said


def test_a_bare_file_needs_a_prompt(red_ball: Gaussians) -> None:
    with pytest.raises(UserError, match='add --prompt "a blue robot"'):
        evaluate(splats(red_ball))


def test_the_table_for_people_calls_toybox_an_instrument(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation.print()
    said = capsys.readouterr().out
    assert "toybox is an instrument" in said
    assert PROMPT in said
    assert f"{evaluation.scores['psnr_best']:.3f}" in said
    assert "ceiling (converged)" in said


def darkness(subject: Subject) -> dict[str, Any]:
    """How far the views are from white, and what they were taken as."""
    return {"darkness": 1.0 - subject.views.rgb.mean().item(), "seen_as": subject.prompt}


DARKNESS = Metric(name="darkness", compute=darkness)


def test_a_metric_of_your_own_runs_on_a_prompt_without_truth(
    red_ball: Gaussians, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = evaluate(splats(red_ball), "a wizard's hat", metrics=[DARKNESS, SIZE])
    assert scored.as_json() == {
        "instrument": None,
        "source": "ball.ply",
        "prompt": "a wizard's hat",
        "darkness": pytest.approx(0.15, abs=0.1),
        "seen_as": "a wizard's hat",
        "n_gaussians": 300,
    }
    scored.print()
    said = capsys.readouterr().out
    assert re.search(rf"darkness +│ +{scored.scores['darkness']:.3f} │", said)
    assert re.search(r"Gaussians +│ +300 │", said)
    assert "toybox" not in said
    # Columns and rows without a value are left out.
    assert "score" in said
    assert "ceiling" not in said
    assert "floor" not in said
    empty = TableRow(title="nothing", score="{absent} ({absent})", floor="- ({absent})")
    replace(scored, rows=(*scored.rows, empty)).print()
    assert capsys.readouterr().out == said


def test_without_a_truth_everything_else_is_reported_and_one_line_says_why(red_ball: Gaussians) -> None:
    scored = evaluate(splats(red_ball), "a blue dragon", ceiling_config=config(3), networks=nowhere())
    here = [metric for metric in METRICS if not metric.needs_truth and metric.why_not(subject(red_ball)) is None]
    without_truth = [key for metric in here for key in metric.compute(subject(red_ball))]
    assert list(scored.scores) == without_truth
    assert scored.scores["n_gaussians"] == 300
    assert scored.left_out is not None
    assert scored.left_out.startswith('truth exists only for toybox prompts: toybox does not know the word "dragon"')
    assert "\n" not in scored.left_out


def subject(gaussians: Gaussians) -> Subject:
    return Subject(representation=gaussians, run=None, prompt="a blue dragon", toybox=None, networks=nowhere())


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.needs_truth], ids=lambda metric: metric.name)
def test_a_metric_that_was_asked_for_and_needs_a_truth_is_refused_without_one(
    metric: Metric, red_ball: Gaussians
) -> None:
    with pytest.raises(UserError, match="truth exists only for toybox prompts"):
        evaluate(splats(red_ball), "a blue dragon", metrics=[SIZE, metric])


@pytest.mark.slow
def test_a_metric_of_your_own_may_read_the_scores_before_it(red_ball: Gaussians) -> None:
    share = Metric(
        name="share",
        compute=lambda subject: {"share": subject.scores["psnr_best"] / subject.scores["psnr_canonical"]},
        needs_truth=True,
        rows=(TableRow(title="share of {num_draws}", score="{share}", floor="{absent}"),),
    )
    scored = evaluate(splats(red_ball), PROMPT, metrics=[TRUTH, share], num_draws=1)
    assert scored.scores["share"] == scored.scores["psnr_best"] / scored.scores["psnr_canonical"]
    assert scored.rows[-1].cells(scored.scores) == ("share of 1", f"{scored.scores['share']:.3f}", "", "-")


@pytest.mark.slow
def test_a_scene_in_memory_is_scored_as_its_file_is(red_ball: Gaussians) -> None:
    of_file, of_memory = (
        evaluate(scene, PROMPT, metrics=[TRUTH], num_draws=1) for scene in (splats(red_ball), red_ball)
    )
    assert of_memory.source is None
    assert of_memory.scores == of_file.scores


def test_two_metrics_may_not_give_the_same_key(red_ball: Gaussians) -> None:
    with pytest.raises(ValueError, match="metric size gives n_gaussians"):
        evaluate(splats(red_ball), PROMPT, metrics=[SIZE, SIZE])


def test_metrics_have_names_of_their_own() -> None:
    assert [metric_named(metric.name) for metric in METRICS] == list(METRICS)
    with pytest.raises(UserError, match="unknown metric ssim: choose one of truth, judge, fronts, ceiling"):
        metric_named("ssim")


def test_two_objects_are_scored_by_what_each_of_them_is(red_ball: Gaussians) -> None:
    prompt = "a red ball on a blue cube"
    scored = evaluate(splats(red_ball), prompt=prompt, num_draws=2, image_size=32, metrics=[TRUTH, JUDGE, OBJECTS])
    scores = scored.scores
    assert scores["psnr_best"] > 5.0 and scores["num_draws"] == 2
    assert not scores["relation_right"] and not scores["bound"]
    assert not any(key.startswith("judge") for key in scores), "the judge knows objects alone"
    documented = re.findall(r"^\| `(\w+)` \|", (DOCS.parent / "toybox.md").read_text(), flags=re.MULTILINE)
    given = [key.replace("first_", "").replace("second_", "") for key in scores if key not in TRUTH_KEYS]
    assert sorted(documented) == sorted(set(given))
    titles = [row.title for row in scored.rows]
    assert "both objects, own colours" in titles and not any(title.startswith("judge: side") for title in titles)
    alone = evaluate(splats(red_ball), prompt=PROMPT, metrics=[OBJECTS])
    assert (alone.scores, alone.rows) == ({}, ())
    with pytest.raises(UserError, match="names one object; this metric needs two"):
        score_objects(red_ball, PROMPT)
    with pytest.raises(
        UserError, match='names two objects, and the judge knows objects alone: score them by "objects"'
    ):
        judge_scene(red_ball, prompt)
