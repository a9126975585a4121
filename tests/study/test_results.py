"""What a study shows: tables, claims and p-values, from the results of complete groups alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_studies import a_study, planned, seconds
from sources import ROOT

from sdi_gs.batch.journal import BatchHeader, RowEvent
from sdi_gs.batch.state import BatchState
from sdi_gs.commands.study import SHIPPED
from sdi_gs.errors import UserError
from sdi_gs.runs.folder import RunFolder
from sdi_gs.settings.tree import config_to_dict, with_values
from sdi_gs.study.differences import Result, answer, contrasts_of, differences, findings_of, verdict
from sdi_gs.study.intervals import Interval
from sdi_gs.study.plan import Plan
from sdi_gs.study.reading import read_study
from sdi_gs.study.results import (
    complete_results,
    read_results,
    require_scores,
    results_as_json,
    wanted_metrics,
    workers_metrics,
)
from sdi_gs.study.scores import SCORES, value_of
from sdi_gs.study.spec import Claim
from sdi_gs.study.tables import claim_tables, page_tables
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.toybox.pairs import RELATIONS

CLAIM = Claim(name="C", first="sdi", second="sds", setting="plain", expect="ahead", on=("psnr_free",))
STUDY = a_study(
    scores=("psnr_free", "iou_free", "judge_view", "saturation"),
    means=("psnr_best",),
    comparisons=(("sdi", "sds"),),
    claims=(CLAIM,),
)


def made(plan: Plan, runs: Path, *, left_out: Sequence[str] = ()) -> BatchState:
    """A folder in which every row is finished: SDI is two decibels up and too colourful, and a rocket has no sides."""
    state = BatchState(BatchHeader(version="0", source="", settings={}, rows=0), [r.row for r in plan.rows.values()])
    for key, run in plan.rows.items():
        if key in left_out:
            continue
        config, folder = run.config, RunFolder(run.row.folder(runs))
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_summary(
            {"predictor_calls": 9, "train_seconds": 3.0, "step": 1, "steps": 1, "config": config_to_dict(config)}
        )
        inverting = config.guidance.noise == "inversion"
        scores: dict[str, float] = {
            "psnr_best": 19.0,
            "psnr_free": 20.0 + 2.0 * inverting + config.seed,
            "iou_free": 0.8 + 0.1 * inverting,
            "saturation_error": -0.02 - 0.01 * inverting,
            "judge_class": 1.0,
        }
        if "rocket" not in config.prompt:
            scores["judge_view"] = 0.75
        state.apply(RowEvent(event="finished", key=key, scores=scores))
    return state


def results_of(tmp_path: Path, **options: Any) -> list[Result]:
    plan = planned(STUDY)
    return complete_results(plan, made(plan, tmp_path, **options), tmp_path, score=no_scorer)


def no_scorer(folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
    raise AssertionError("all scores are known")


def test_tables_show_means_paired_differences_and_verdicts(tmp_path: Path) -> None:
    tables = page_tables(STUDY, results_of(tmp_path))
    # The robot and the snowman at two seeds; seeds move both arms alike, so that pairs leave no doubt.
    assert "| SDI minus SDS | calls | 4 | **+2.0** [+2.0, +2.0] |" in tables
    assert "| ahead in PSNR, IoU; behind in saturation error |" in tables
    assert "| SDI | steps | 2 | 60 × 4 | 9 | 3 | 19.0 | 22.0 | 0.900 | 0.75 | 0.030 |" in tables
    claims = claim_tables(STUDY, results_of(tmp_path))
    assert "| C | plain | SDI ahead of SDS in PSNR | yes |" in claims
    # Of two prompts that agree, the signs alone are chance with 1/2.
    assert "| C | steps | PSNR | **+2.0** [+2.0, +2.0] | 0.5000 | 1.0000 |" in claims


def test_one_prompt_alone_shows_nothing(tmp_path: Path) -> None:
    results = [result for result in results_of(tmp_path) if "robot" in result.prompt]
    row = next(line for line in page_tables(STUDY, results).splitlines() if line.startswith("| SDI minus SDS | steps"))
    assert row == "| SDI minus SDS | steps | 1 | +2.0 | +0.100 | +0.00 | +0.010 | level |"
    for expect in ("ahead", "behind", "level", "not behind"):
        claim = replace(CLAIM, expect=expect)
        assert answer(STUDY, claim, contrasts_of(STUDY, results)) == "one prompt"


def test_seconds_are_predicted_where_they_can_be(tmp_path: Path) -> None:
    plan = planned(STUDY)
    results = complete_results(plan, made(plan, tmp_path), tmp_path, score=no_scorer, seconds_of=seconds)
    assert [result.scores["predicted_cpu_seconds"] for result in results] == [seconds(run.config) for run in plan.runs]
    tables = page_tables(STUDY, results)
    assert "| calls | CPU s, predicted | PSNR fixed yaw |" in tables
    steps = next(run for run in plan.runs if (run.arm, run.budget) == ("sdi", "steps"))
    assert f"| SDI | steps | 2 | 60 × 4 | 9 | {seconds(steps.config):.0f} | 19.0 |" in tables


def test_a_share_of_runs_is_shown_with_its_interval(tmp_path: Path) -> None:
    study = replace(STUDY, scores=("two_fronts", "no_front"), claims=())
    results = [
        replace(result, scores={**result.scores, "two_fronts": index == 0, "fronts": 2 - (index > 0)})
        for index, result in enumerate(r for r in results_of(tmp_path) if (r.setting, r.arm) == ("plain", "sdi"))
    ]
    assert len(results) == 4
    # Wilson's interval of one in two at each budget, and of none.
    assert "| 50% [9%, 91%] | 0% [0%, 66%] |" in page_tables(study, results)


def test_an_incomplete_group_does_not_count(tmp_path: Path) -> None:
    plan, whole = planned(STUDY), results_of(tmp_path)
    assert len(whole) == len(plan.runs)
    group = plan.groups[1]
    rest = results_of(tmp_path, left_out=[group[-1].row.key])
    assert len(rest) == len(whole) - len(group)
    assert ("plain", "an orange rocket") not in {(result.setting, result.prompt) for result in rest}


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    plan = planned(STUDY)
    state, run = made(plan, tmp_path), plan.groups[0][0]
    folder = RunFolder(run.row.folder(tmp_path))
    changed = config_to_dict(with_values(run.config, {"losses.fog": 0.7}))
    folder.summary.unlink()
    folder.write_summary({"config": changed})
    with pytest.raises(UserError, match=r"made with another losses\.fog: give another --runs-dir"):
        complete_results(plan, state, tmp_path, score=no_scorer)


def test_a_metric_that_no_worker_computed_is_computed_once(tmp_path: Path) -> None:
    plan = planned(replace(STUDY, scores=("judge_view",), means=(), claims=(), comparisons=()))
    state, asked = made(plan, tmp_path), []
    for key in plan.rows:
        state.apply(RowEvent(event="finished", key=key, scores={"psnr_free": 1.0}))

    def score(folder: Path, metrics: Sequence[str]) -> dict[str, Any]:
        asked.append((folder.name, tuple(metrics)))
        return {"judge_class": 1.0, "judge_view": None, "colour": "blue"}

    results = complete_results(plan, state, tmp_path, score=score)
    assert complete_results(plan, state, tmp_path, score=score) == results
    assert sorted(asked) == sorted((key, ("judge",)) for key in plan.rows)
    assert results[0].scores["judge_view"] is None
    assert "colour" not in results[0].scores


def test_pairs_are_of_the_same_prompt_and_seed(tmp_path: Path) -> None:
    results = [result for result in results_of(tmp_path) if (result.arm, result.seed) != ("sdi", 1)]
    found = {(one.setting, one.budget): scores for one, scores in contrasts_of(STUDY, results).items()}
    assert found["detailed", "calls"]["psnr_free"].mean == pytest.approx(2.0)
    assert differences(results[:1], [], ("psnr_free",)) == {}


def interval(low: float, high: float) -> Interval:
    return Interval(mean=0.5 * (low + high), low=low, high=high, p=0.01)


@pytest.mark.parametrize(
    ("expect", "psnr", "holds"),
    [
        ("ahead", (0.1, 0.2), "yes"),
        ("ahead", (-0.1, 0.2), "no"),
        ("behind", (-0.2, -0.1), "yes"),
        ("behind", (0.1, 0.2), "no"),
        ("level", (-0.1, 0.2), "yes"),
        ("level", (0.1, 0.2), "no"),
        ("not behind", (0.1, 0.2), "yes"),
        ("not behind", (-0.1, 0.2), "yes"),
        ("not behind", (-0.2, -0.1), "no"),
    ],
)
def test_a_claim_holds_where_its_scores_do_at_every_budget(expect: Any, psnr: tuple[float, float], holds: str) -> None:
    claim, level = replace(CLAIM, expect=expect), interval(-1.0, 1.0)
    results = [_result(arm, budget) for arm in ("sdi", "sds") for budget in ("steps", "calls")]
    first, second = contrasts_of(STUDY, results)
    found = {"psnr_free": interval(*psnr), "iou_free": level}
    assert answer(STUDY, claim, {first: found, second: found}) == holds
    assert answer(STUDY, claim, {first: found}) == "not run"
    # Less saturation error is better.
    found["saturation"] = interval(0.1, 0.2)
    assert answer(STUDY, claim, {first: found, second: found}) == holds
    assert answer(STUDY, replace(claim, nowhere_behind=True), {first: found, second: found}) == "no"
    assert verdict(found)["behind"][-1] == "saturation"


def test_scores_of_two_objects_are_those_of_their_metric() -> None:
    study = read_study(SHIPPED / "two-objects.yaml")
    plan = planned(study)
    asked = {wanted_metrics(study, run.row, run.config) for run in plan.rows.values()}
    assert asked == {("objects", "truth")}
    parsed = [parse_prompt(prompt).second for prompt in study.blocks[0].prompts]
    assert Counter(second.relation for second in parsed if second is not None) == dict.fromkeys(RELATIONS, 2)
    # A journal keeps truths as numbers, a file of scores as truths.
    assert value_of("bound", {"bound": True}) == value_of("bound", {"bound": 1.0}) == 1.0
    swapped = {"colours_swapped": Interval(mean=0.5, low=0.2, high=0.9)}
    assert verdict(swapped) == {"ahead": [], "behind": ["colours_swapped"]}


def test_without_a_truth_there_are_the_scores_of_the_field() -> None:
    study = replace(STUDY, scores=("psnr_free",), means=())
    configs = [run.config for run in planned(STUDY).runs]
    require_scores(study, configs)
    others = [replace(config, prior="sd21-base") for config in configs]
    require_scores(study, [*configs, *others])
    with pytest.raises(UserError, match="metric psnr_free: toybox alone has a truth, not sd21-base; .*clip_score"):
        require_scores(study, others)
    # A worker's card has no room for the networks of scores beside the prior.
    study, run = replace(study, scores=("clip_score", "diverged")), planned(STUDY).runs[0]
    assert wanted_metrics(study, run.row, others[0]) == ("clip", "divergence")
    assert workers_metrics(study, run.row, others[0]) == ("divergence",)


def test_every_score_is_on_the_page_of_studies() -> None:
    page = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    assert not [name for name in SCORES if f"`{name}`" not in page]


def _result(arm: str, budget: Any) -> Result:
    return Result(setting="plain", arm=arm, budget=budget, prompt="a", seed=0, scores={"psnr_free": 1.0})


def test_p_values_are_corrected_over_all_claims_scores_and_budgets(tmp_path: Path) -> None:
    claims = (replace(CLAIM, on=("psnr_free", "iou_free")), replace(CLAIM, name="D", setting="detailed"))
    study = replace(STUDY, claims=claims)
    found = findings_of(study, contrasts_of(study, results_of(tmp_path)))
    assert [(one.claim.name, one.budget, one.score) for one in found] == [
        ("C", "steps", "psnr_free"),
        ("C", "steps", "iou_free"),
        ("C", "calls", "psnr_free"),
        ("C", "calls", "iou_free"),
        ("D", "calls", "psnr_free"),
    ]
    assert all(one.corrected_p == pytest.approx(min(1.0, 5 * one.interval.p)) for one in found)


def test_results_are_read_again_for_their_own_study_alone(tmp_path: Path) -> None:
    results, path = results_of(tmp_path), tmp_path / "study.json"
    path.write_text(json.dumps({"results": results_as_json(results)}))
    assert read_results(path, STUDY) == results
    other = replace(STUDY, arms=STUDY.arms[:1])
    with pytest.raises(UserError, match="no part of study tried"):
        read_results(path, other)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"holds no results of a study: give a study\.json"):
        read_results(path, STUDY)


def test_the_evidence_pages_tables_come_out_of_its_stored_results() -> None:
    study = read_study(SHIPPED / "evidence.yaml")
    tables = page_tables(study, read_results(ROOT / "docs/studies/evidence.json", study))
    page = (ROOT / "docs/reports/evidence.md").read_text()
    assert (
        tables.strip() == page.partition("<!-- tables: sdi-gs study evidence -->")[2].partition("<!-- end")[0].strip()
    )


def test_the_evidence_study_answers_as_its_page_does() -> None:
    study = read_study(SHIPPED / "evidence.yaml")
    contrasts = contrasts_of(study, read_results(ROOT / "docs/studies/evidence.json", study))
    answers = {claim.name: answer(study, claim, contrasts) for claim in study.claims}
    assert answers == {
        "H1": "no",
        "H2": "not run",
        "H3": "no",
        "H4": "no",
        "H7, −γ and 0": "no",
        "H7, 0 and +1": "yes",
        "H8, ISM": "no",
        "H8, annealing": "yes",
        "H9": "no",
        "H10": "yes",
    }
