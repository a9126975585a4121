"""The comparison's bookkeeping: what every arm gets, what is kept, and what the page says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import evidence
import pytest
import torch
from evidence import make_all, plan_runs
from evidence_arms import ARMS, REFERENCE, Cost, arm_config, budgeted, count_calls, distinct_arms, steps_for
from evidence_tables import page_tables, summary
from scored_runs import insert_table

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.training.trainer import Trainer

SCHEDULE = scaled_linear_schedule()
COST = Cost(step=0.1, conditional=0.02, unconditional=0.03, both=0.05)


def network_config(**changes: Any) -> RunConfig:
    preset = preset_named("toybox").config
    return replace(preset, **{"guidance": replace(preset.guidance, guidance_scale=3.0)} | changes)


# Arms and budgets.


@pytest.mark.parametrize("preset", ["toybox", "toybox-ideal"])
def test_arms_differ_from_the_preset_in_their_noise_alone(preset: str) -> None:
    base = preset_named(preset).config
    for arm in ARMS:
        guidance = arm_config(base, arm).guidance
        undone = replace(
            guidance,
            noise=base.guidance.noise,
            annealing=base.guidance.annealing,
            inversion_guidance_scale=base.guidance.inversion_guidance_scale,
        )
        assert replace(arm_config(base, arm), guidance=undone) == base


def test_the_scales_of_the_inversion_are_those_of_the_arms_names() -> None:
    base = network_config()
    scales = {arm: arm_config(base, arm).guidance.resolved_inversion_scale for arm in ARMS if arm.startswith("sdi")}
    gamma = base.guidance.guidance_scale
    assert scales == {"sdi": -gamma, "sdi-minus-1": -1.0, "sdi-0": 0.0, "sdi-plus-1": 1.0}
    assert [arm for arm in ARMS if arm_config(base, arm).guidance.annealing == "uniform"] == ["sds"]


def test_an_arm_that_repeats_another_is_left_out() -> None:
    ideal = preset_named("toybox-ideal").config
    assert ideal.guidance.guidance_scale == 1.0
    assert distinct_arms(ideal, list(ARMS)) == [arm for arm in ARMS if arm != "sdi-minus-1"]
    assert distinct_arms(network_config(), list(ARMS)) == list(ARMS)


@pytest.mark.slow
@pytest.mark.parametrize("arm", list(ARMS))
def test_calls_are_counted_as_a_run_makes_them(arm: str) -> None:
    smoke = preset_named("smoke").config
    ideal = replace(smoke.ideal_prior, renders_per_view=2, unconditional_renders=4)
    gaussians = replace(smoke.gaussians, num_initial=50)
    guidance = replace(smoke.guidance, guidance_scale=3.0)
    base = replace(
        smoke, prompt="a red ball", steps=7, ideal_prior=ideal, gaussians=gaussians, guidance=guidance, views_per_step=1
    )
    config = arm_config(base, arm)
    prior = load_prior(config, device="cpu")
    made = {1: 0, 2: 0}
    predict = prior.predict_noise

    def counted(
        noised: torch.Tensor, timestep: int, embeddings: torch.Tensor, cameras: CameraBatch | None
    ) -> torch.Tensor:
        made[len(noised)] += 1
        return predict(noised, timestep, embeddings, cameras)

    prior.predict_noise = counted  # pyright: ignore[reportAttributeAccessIssue]
    trainer = Trainer(config, prior, device=torch.device("cpu"))
    logged = sum(trainer.train_step().predictor_calls for _ in range(config.steps))
    calls = count_calls(config, prior.schedule)
    assert (calls.conditional + calls.unconditional, calls.both) == (made[1], made[2])
    assert calls.total == logged


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_arm_makes_the_calls_of_the_reference(arm: str) -> None:
    base = network_config(steps=60)
    given = budgeted(base, arm, "calls", schedule=SCHEDULE, cost=None)
    target = count_calls(arm_config(base, REFERENCE), SCHEDULE).total
    if arm.startswith("sds"):
        assert given.steps == target
    else:
        assert given.steps == base.steps
    assert count_calls(given, SCHEDULE).total == target


@pytest.mark.parametrize("arm", list(ARMS))
def test_every_arm_takes_the_time_of_the_reference(arm: str) -> None:
    base = network_config(steps=60)
    given = budgeted(base, arm, "time", schedule=SCHEDULE, cost=COST)
    target = COST.seconds(arm_config(base, REFERENCE), SCHEDULE)
    # Within what half a step more or less would change.
    assert COST.seconds(given, SCHEDULE) == pytest.approx(target, abs=0.6 * target / given.steps)
    assert (given.steps == base.steps) == (arm in ("sdi", "sdi-minus-1"))


@pytest.mark.parametrize("arm", ["sds", "sdi", "sdi-plus-1"])
def test_at_equal_steps_every_arm_has_the_presets(arm: str) -> None:
    base = preset_named("toybox").config
    assert budgeted(base, arm, "steps", schedule=SCHEDULE, cost=None).steps == base.steps


def test_the_nearest_number_of_steps_is_found() -> None:
    for target, steps in ((0.5, 1), (10.0, 10), (10.4, 10), (10.6, 11), (777.0, 777)):
        assert steps_for(network_config(), target, lambda config: float(config.steps)) == steps


# Results.


def planned(folder: Path, base: RunConfig | None = None, **changes: Any) -> list[evidence.Run]:
    options: dict[str, Any] = {
        "arms": ["sds", "sdi", "sdi-0"],
        "budgets": ["calls", "time"],
        "prompts": ["a red ball", "a blue robot"],
        "seeds": [0, 1],
        "cost": COST,
    }
    return plan_runs(base or small_config(), folder, **options | changes)


def small_config() -> RunConfig:
    return network_config(prior="toybox-ideal", steps=20)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The runs that were made, in order; none of them trains."""
    made: list[RunConfig] = []

    def pretend(config: RunConfig, picture: Path) -> dict[str, Any]:
        made.append(config)
        return {"prompt": config.prompt, "seed": config.seed, **pretended_scores(config)}

    monkeypatch.setattr(evidence, "train_and_score", pretend)
    return made


def pretended_scores(config: RunConfig) -> dict[str, Any]:
    """Scores that say where they come from: SDI is two decibels up, and a ball has no sides."""
    inverting = config.guidance.noise == "inversion"
    return {
        "steps": config.steps,
        "predictor_calls": 2 * config.steps,
        "loop_cpu_seconds": 0.5 * config.steps,
        "psnr_best": 20.0 + 2.0 * inverting + config.seed,
        "iou_best": 0.8 + 0.1 * ("ball" in config.prompt),
        "judge_class": 1.0,
        "judge_colour": 0.5,
        "judge_view": None if "ball" in config.prompt else 0.75,
        "sharpness_ratio": 0.3,
        "saturation_error": 0.0,
    }


def test_budgets_share_the_runs_that_they_give_the_same_steps(tmp_path: Path, scored: list[RunConfig]) -> None:
    runs = planned(tmp_path)
    done = list(make_all(runs, 1))
    # SDI is in both budgets, the two others differ: five configs for two prompts and two seeds.
    assert (len(runs), len(done), len(scored)) == (24, 20, 20)
    assert sorted(done) == sorted({run.result for run in runs})


def test_what_is_kept_is_not_made_again(tmp_path: Path, scored: list[RunConfig]) -> None:
    runs = planned(tmp_path)
    list(make_all(runs[:5], 1))
    first = len(scored)
    list(make_all(runs, 1))
    list(make_all(runs, 1))
    assert 0 < first < len(scored) == 20
    assert len({json.dumps(config_to_dict(config)) for config in scored}) == 20


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path, scored: list[RunConfig]) -> None:
    list(make_all(planned(tmp_path), 1))
    changed = replace(small_config(), losses=replace(small_config().losses, fog=0.7))
    with pytest.raises(SystemExit, match=r"made with another losses\.fog: give another --results"):
        list(make_all(planned(tmp_path, changed), 1))


@pytest.mark.slow
def test_two_processes_score_what_one_does(tmp_path: Path) -> None:
    smoke = preset_named("smoke").config
    base = replace(
        smoke,
        steps=2,
        views_per_step=1,
        ideal_prior=replace(smoke.ideal_prior, renders_per_view=2, unconditional_renders=4),
        gaussians=replace(smoke.gaussians, num_initial=50),
    )
    options: dict[str, Any] = {"arms": ["sdi", "sdi-0"], "budgets": ["calls"], "prompts": ["a red ball"], "seeds": [0]}
    one, two = (planned(tmp_path / name, base, **options) for name in ("one", "two"))
    assert len(list(make_all(one, 1))) == len(list(make_all(two, 2))) == 2
    for alone, beside in zip(one, two, strict=True):
        rows = [evidence.kept(alone) or {}, evidence.kept(beside) or {}]
        assert [row["psnr_best"] for row in rows] == [rows[0]["psnr_best"]] * 2
        assert rows[0]["predictor_calls"] == rows[1]["predictor_calls"]
        assert beside.picture.is_file()


def results_of(runs: list[evidence.Run]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in runs:
        row = evidence.kept(run)
        assert row is not None
        results.setdefault(run.budget, {}).setdefault(run.arm, []).append(row)
    return results


def test_the_summary_has_means_and_paired_differences(tmp_path: Path, scored: list[RunConfig]) -> None:
    runs = planned(tmp_path)
    list(make_all(runs, 1))
    told = summary(results_of(runs), seeds=2)["calls"]
    sds = told["arms"]["sds"]
    assert (sds["runs"], sds["psnr_best"]["mean"], sds["judge_view"]["mean"]) == (4, 20.5, 0.75)
    assert sds["psnr_best"]["low"] < 20.5 < sds["psnr_best"]["high"]
    difference = told["differences"]["sdi minus sds"]["psnr_best"]
    # Seeds move both arms alike, so that pairs leave no doubt.
    assert difference == pytest.approx({"mean": 2.0, "low": 2.0, "high": 2.0})
    assert set(told["differences"]) == {"sdi minus sds", "sdi minus sdi-0"}


def test_the_page_takes_the_tables_between_its_marks(tmp_path: Path, scored: list[RunConfig]) -> None:
    runs = planned(tmp_path)
    list(make_all(runs, 1))
    page, marks = tmp_path / "page.md", ("<!-- one -->", evidence.END_MARK)
    page.write_text(f"before\n{marks[0]}\nstale figures\n{marks[1]}\nbetween\n<!-- two -->\nkept\n{marks[1]}\nafter\n")
    for _ in range(2):
        insert_table(page, page_tables(results_of(runs), seeds=2), marks)
    text = page.read_text()
    for words in ("before", "between", "kept", "after", "**Equal CPU time**, 4 runs an arm (2 prompts, 2 seeds)"):
        assert text.count(words) == 1
    assert "stale" not in text
    assert "| **+2.0** [+2.0, +2.0] |" in text
    assert "| a red ball | 22.5 | 0.900 | 1.00 | 0.50 | – |" in text
    with pytest.raises(SystemExit, match="lacks the lines"):
        insert_table(page, "", ("<!-- three -->", marks[1]))


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence, "measure_cost", lambda base: COST)
    options = ["--preset", "toybox-ideal", "--results", str(tmp_path / "r"), "--dry-run", "--prompts", "3"]
    monkeypatch.setattr("sys.argv", ["evidence.py", *options, "--seeds", "1", "--set", "steps=10"])
    evidence.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(row["budget"], row["arm"], row["steps"]) for row in told["plan"]][2] == ("calls", "sdi", 10)
    assert told["missing_runs"] == 3 * len({(row["arm"], row["steps"]) for row in told["plan"]})
    assert list(tmp_path.iterdir()) == []


def test_changes_of_the_preset_are_read_as_yaml() -> None:
    config = evidence.base_config("toybox", ["steps=5", "guidance.guidance_scale=2", "backgrounds=[white]"])
    assert (config.steps, config.guidance.guidance_scale, config.backgrounds) == (5, 2.0, ("white",))
    with pytest.raises(SystemExit, match="--set takes KEY=VALUE, got steps"):
        evidence.base_config("toybox", ["steps"])
