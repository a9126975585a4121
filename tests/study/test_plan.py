"""The comparison's bookkeeping: what every arm gets, what is kept, what counts, and what the page says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import evidence
import pytest
import torch
from evidence import finished_rows, make_missing
from evidence_arms import BUDGETS, NOISES, REFERENCE, Arm, Budget, arm_config, budgeted, rounds_for, with_rounds
from evidence_cost import Cost, count_calls, measure_cost, rounds_of, without_replay
from evidence_plan import ALL_ARMS, PLANS, SETTINGS, Block, Group, plan_groups
from evidence_tables import claim_holds, contrasts_of, page_tables, summary
from scored_runs import insert_table, of_shard, parse_shard

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.training.trainer import Trainer

SCHEDULE = scaled_linear_schedule()
COST = Cost(alone=0.05, first=0.03, further=0.01, conditional=0.02, unconditional=0.03, both=0.05)
CHANGES: dict[str, object] = {
    "steps": 60,
    "replay.steps_per_target": 4,
    "replay.views": 12,
    "losses.space": "pixels",
    "guidance.inversion_order": 1,
    "guidance.guidance_scale": 2.5,
}


def base_config(**changes: Any) -> RunConfig:
    return replace(SETTINGS["plain-words"].base(CHANGES), **changes)


# Arms and budgets.


@pytest.mark.parametrize("arm", ALL_ARMS, ids=lambda arm: arm.name)
def test_arms_differ_in_their_noise_and_replay_alone(arm: Arm) -> None:
    base = base_config()
    config = arm_config(base, arm)
    assert replace(config, guidance=base.guidance, replay=base.replay, losses=base.losses) == base
    changed = {
        "noise",
        "annealing",
        "inversion_guidance_scale",
        "inversion_order",
        "inversion_eta",
        "inversion_data_std",
    }
    kept = {key: getattr(base.guidance, key) for key in changed}
    assert replace(config.guidance, **kept) == base.guidance
    assert (config.replay, config.losses.space) == (
        (base.replay, "pixels") if arm.replay else (ReplayConfig(), "latents")
    )


def test_the_arms_are_what_their_names_say() -> None:
    base = base_config()
    guidance = {noise: arm_config(base, Arm(noise=noise)).guidance for noise in NOISES}
    scales = {noise: guidance[noise].resolved_inversion_scale for noise in ("sdi", "sdi-other", "sdi-0", "sdi-plus-1")}
    assert scales == {"sdi": -2.5, "sdi-other": -2.5, "sdi-0": 0.0, "sdi-plus-1": 1.0}
    assert [noise for noise in NOISES if guidance[noise].annealing == "uniform"] == ["sds"]
    assert [guidance[noise].noise for noise in ("sds", "sds-annealed", "ism")] == ["random", "random", "interval"]
    other = guidance["sdi-other"]
    assert (other.inversion_order, other.inversion_eta, other.resolved_inversion_spacing) == (2, 0.0, "sigma")
    second = replace(base.guidance, inversion_order=2, inversion_spacing="sigma", inversion_eta=0.1)
    back = arm_config(replace(base, guidance=second), Arm(noise="sdi-other")).guidance
    assert (back.inversion_order, back.inversion_eta, back.resolved_inversion_spacing) == (1, 0.3, "timesteps")


@pytest.mark.parametrize("arm", ALL_ARMS, ids=lambda arm: arm.name)
def test_what_suits_sdi_is_given_to_arms_that_invert_with_guidance(arm: Arm) -> None:
    base = base_config()
    suited = {"guidance.inversion_order": 2, "replay.steps_per_target": 6, "steps": 36}
    given, plain = arm_config(base, arm, suited), arm_config(base, arm)
    if arm.noise.startswith("sdi"):
        assert (given.steps, given.replay.steps_per_target) == (36, 6 if arm.replay else 1)
        assert given.guidance.inversion_order == (1 if arm.noise == "sdi-other" else 2)
    else:
        assert given == plain
    for budget in BUDGETS:
        steps = budgeted(base, REFERENCE, budget, schedule=SCHEDULE, cost=COST, suited=suited)
        assert steps == arm_config(base, REFERENCE, suited)


def tiny_config(arm: Arm) -> RunConfig:
    smoke = preset_named("smoke").config
    ideal = replace(smoke.ideal_prior, renders_per_view=2, unconditional_renders=4)
    return arm_config(
        replace(
            smoke,
            prompt="a red ball",
            steps=10,
            ideal_prior=ideal,
            gaussians=replace(smoke.gaussians, num_initial=50),
            guidance=replace(smoke.guidance, guidance_scale=3.0, views="words"),
            views_per_step=1,
            replay=ReplayConfig(steps_per_target=3, views=4),
            losses=replace(smoke.losses, space="pixels"),
        ),
        arm,
    )


@pytest.mark.slow
@pytest.mark.parametrize("arm", ALL_ARMS, ids=lambda arm: arm.name)
def test_calls_are_counted_as_a_run_makes_them(arm: Arm) -> None:
    config = tiny_config(arm)
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
    reports = [trainer.train_step() for _ in range(config.steps)]
    calls = count_calls(config, prior.schedule)
    assert (calls.conditional + calls.unconditional, calls.both) == (made[1], made[2])
    assert calls.total == sum(report.predictor_calls for report in reports)
    assert rounds_of(config) == reports[-1].num_rounds == (4 if arm.replay else 10)


@pytest.mark.parametrize("arm", ALL_ARMS, ids=lambda arm: arm.name)
def test_at_equal_calls_every_arm_makes_those_of_the_reference(arm: Arm) -> None:
    base = base_config()
    reference = arm_config(base, REFERENCE)
    given = budgeted(base, arm, "calls", schedule=SCHEDULE, cost=COST)
    target = count_calls(reference, SCHEDULE).total
    # One round more or less changes it by a round's calls, of which ISM has the most.
    assert count_calls(given, SCHEDULE).total == pytest.approx(target, abs=0 if "sds" in arm.noise else 4)
    assert (given == reference) == (arm == REFERENCE)
    if arm.replay:
        rounds = rounds_of(given)
        assert given.steps == pytest.approx(reference.steps, abs=0.5 * rounds)
        assert given.replay.views == reference.replay.views
    else:
        assert given.replay == ReplayConfig()


def test_at_equal_calls_sds_has_more_targets_and_as_many_steps() -> None:
    base = base_config(steps=240)
    given = budgeted(base, Arm(noise="sds-annealed"), "calls", schedule=SCHEDULE, cost=COST)
    assert rounds_of(given) == count_calls(arm_config(base, REFERENCE), SCHEDULE).total > 2 * rounds_of(base)
    assert given.replay.steps_per_target < base.replay.steps_per_target


@pytest.mark.parametrize("arm", ALL_ARMS, ids=lambda arm: arm.name)
def test_at_equal_time_every_arm_takes_that_of_the_reference(arm: Arm) -> None:
    base = base_config()
    given = budgeted(base, arm, "time", schedule=SCHEDULE, cost=COST)
    target = COST.seconds(arm_config(base, REFERENCE), SCHEDULE)
    rounds = rounds_of(given)
    off = [abs(COST.seconds(with_rounds(given, rounds + more), SCHEDULE) - target) for more in (-1, 0, 1)]
    # A round more or less would not be closer.
    assert min(off) == off[1] < 0.1 * target
    assert given.replay == arm_config(base, arm).replay


def test_a_runs_seconds_are_those_of_its_steps_and_calls() -> None:
    config = arm_config(base_config(steps=10), Arm(noise="sds-annealed"))
    # Three rounds of 4, 4 and 2 steps at scale 2.5: both branches.
    assert COST.seconds(config, SCHEDULE) == pytest.approx(3 * (0.03 + 0.05) + 7 * 0.01)
    assert COST.seconds(without_replay(config), SCHEDULE) == pytest.approx(10 * (0.05 + 0.05))
    single = replace(config, guidance=replace(config.guidance, guidance_scale=1.0))
    assert COST.seconds(single, SCHEDULE) == pytest.approx(3 * (0.03 + 0.02) + 7 * 0.01)


def test_what_new_cameras_cost_is_paid_by_rounds_that_need_more_than_the_target_does() -> None:
    cost = replace(COST, new_cameras=0.4)
    for scale, inverts in ((1.0, True), (2.5, False)):
        base = base_config(steps=40)
        base = replace(base, guidance=replace(base.guidance, guidance_scale=scale, random_fraction=0.4))
        for noise in ("sdi", "sds-annealed"):
            config = arm_config(base, Arm(noise=noise))
            more = cost.seconds(config, SCHEDULE) - COST.seconds(config, SCHEDULE)
            # Six of ten rounds invert.
            assert more == pytest.approx(6 * 0.4 if inverts and noise == "sdi" else 0.0)


@pytest.mark.slow
def test_costs_are_measured_under_replay_and_without() -> None:
    cost = measure_cost(tiny_config(REFERENCE))
    assert min(cost.alone, cost.further, cost.conditional, cost.unconditional, cost.both) > 0.0
    # A further step neither encodes nor decodes.
    assert cost.further < 5.0 * (cost.first + cost.conditional)


def test_the_nearest_number_of_rounds_is_found() -> None:
    config = base_config()
    for target, rounds in ((0.5, 1), (10.0, 10), (10.4, 10), (10.6, 11), (777.0, 777)):
        assert rounds_for(config, target, lambda config: config.steps / 4) == rounds
    assert with_rounds(config, 7).steps == 28


# The plan.


def planned(
    folder: Path, blocks: tuple[Block, ...] | None = None, changes: dict[str, object] | None = None
) -> list[Group]:
    return plan_groups(blocks or BLOCKS, folder, lambda setting, base: COST, changes or CHANGES)


BLOCKS = (
    Block(setting="plain-words", budgets=("time", "calls"), prompts=("a blue robot", "an orange rocket")),
    Block(setting="detailed-words", prompts=("a blue robot", "a snowman with an orange hat")),
    Block(setting="plain-words", budgets=("time", "calls"), prompts=("a blue robot",), seeds=(1,)),
)


def test_a_groups_runs_share_prompt_seed_and_world(tmp_path: Path) -> None:
    groups = planned(tmp_path)
    assert [len(group) for group in groups] == [4, 4, 2, 2, 4]
    for group in groups:
        assert len({(run.setting, run.config.prompt, run.config.seed, run.config.prior) for run in group}) == 1
    prompts = [group[0].config.prompt for group in groups]
    assert prompts[2:4] == ["a patchwork blue robot", "a patchwork snowman with an orange hat"]
    plain, detailed = (parse_prompt(group[0].config.prompt) for group in (groups[0], groups[2]))
    assert (plain.style, detailed.style) == (None, "patchwork")
    assert replace(detailed, style=None) == plain


def test_the_core_begins_with_the_claim_and_the_full_plan_has_everything() -> None:
    first = PLANS["core"][0]
    assert (first.setting, first.budgets, len(first.prompts)) == ("detailed-cameras", ("time", "calls"), 12)
    assert {arm.noise for arm in first.arms} == {"sdi", "sds-annealed"}
    cells = {(block.setting, block.seeds) for block in PLANS["full"]}
    assert cells == {(name, (seed,)) for name in SETTINGS for seed in (0, 1)}
    assert all(set(block.arms) == set(ALL_ARMS) and len(block.prompts) == 12 for block in PLANS["full"])
    for setting in SETTINGS.values():
        assert setting.base({}).guidance.views == setting.views


def test_a_preset_without_replay_is_not_compared_with_itself(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no replay"):
        planned(tmp_path, changes=CHANGES | {"replay.steps_per_target": 1})


def test_shards_take_turns_and_leave_nothing_out() -> None:
    items = list(range(7))
    shards = [of_shard(items, parse_shard(f"{number}/3")) for number in (1, 2, 3)]
    assert shards == [[0, 3, 6], [1, 4], [2, 5]]
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(Exception, match="k/n"):
            parse_shard(wrong)


# Results.


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The runs that were made, in order; none of them trains."""
    made: list[RunConfig] = []

    def pretend(config: RunConfig, picture: Path, **shared: Any) -> dict[str, Any]:
        made.append(config)
        return {"prompt": config.prompt, "seed": config.seed, **pretended_scores(config)}

    monkeypatch.setattr(evidence, "train_and_score", pretend)
    monkeypatch.setattr(evidence, "shared_by", lambda config: None)
    return made


def pretended_scores(config: RunConfig) -> dict[str, Any]:
    """Scores that say where they come from: SDI is two decibels up and too colourful, and a rocket has no sides."""
    inverting = config.guidance.noise == "inversion"
    return {
        "steps": config.steps,
        "predictor_calls": 2 * config.steps,
        "loop_cpu_seconds": 0.5 * config.steps,
        "psnr_best": 19.0,
        "psnr_free": 20.0 + 2.0 * inverting + config.seed,
        "iou_free": 0.8 + 0.1 * inverting,
        "detail": 0.5 + 0.2 * inverting,
        "detail_inside": None,
        "judge_class": 1.0,
        "judge_colour": 0.5,
        "judge_view": None if "rocket" in config.prompt else 0.75,
        "saturation_error": -0.02 - 0.01 * inverting,
    }


def test_what_is_kept_is_not_made_again(tmp_path: Path, scored: list[RunConfig]) -> None:
    groups = planned(tmp_path)
    made = list(make_missing(groups[:2]))
    # SDI is the same run at both budgets.
    assert len(made) == len(scored) == 6
    assert len(list(make_missing(groups))) == 7
    assert not list(make_missing(groups))
    assert len({json.dumps(config_to_dict(config)) for config in scored}) == 13


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path, scored: list[RunConfig]) -> None:
    list(make_missing(planned(tmp_path)))
    with pytest.raises(SystemExit, match=r"made with another losses\.fog: give another --results"):
        list(make_missing(planned(tmp_path, changes=CHANGES | {"losses.fog": 0.7})))


def test_an_incomplete_group_does_not_count(tmp_path: Path, scored: list[RunConfig]) -> None:
    groups = planned(tmp_path)
    list(make_missing(groups))
    complete = finished_rows(groups)
    assert len(complete) == sum(map(len, groups))
    groups[1][-1].result.unlink()
    rest = finished_rows(groups)
    assert len(rest) == len(complete) - len(groups[1])
    assert ("plain-words", "an orange rocket") not in {(row.setting, row.prompt) for row in rest}


def test_no_run_begins_after_the_time(tmp_path: Path, scored: list[RunConfig]) -> None:
    assert not list(make_missing(planned(tmp_path), until=0.0))
    assert scored == []


def rows_of(tmp_path: Path) -> list[Any]:
    groups = planned(tmp_path)
    list(make_missing(groups))
    return finished_rows(groups)


def test_the_summary_has_means_paired_differences_and_verdicts(tmp_path: Path, scored: list[RunConfig]) -> None:
    told = summary(rows_of(tmp_path))
    arm = told["arms"]["plain-words sds-annealed time"]
    # The robot twice and the rocket once.
    assert (arm["runs"], arm["judge_view"], arm["psnr_free"]) == (3, 0.75, pytest.approx(20.0 + 1.0 / 3.0))
    difference = told["differences"]["plain-words time: sdi minus sds-annealed"]
    # Seeds move both arms alike, so that pairs leave no doubt.
    assert difference["scores"]["psnr_free"] == pytest.approx({"mean": 2.0, "low": 2.0, "high": 2.0})
    assert (difference["ahead"], difference["behind"]) == (["psnr_free", "iou_free", "detail"], ["saturation"])
    assert set(told["differences"]) == {
        "plain-words time: sdi minus sds-annealed",
        "plain-words calls: sdi minus sds-annealed",
        "detailed-words time: sdi minus sds-annealed",
    }
    assert told["H1"] is False


def test_the_claim_needs_both_budgets_the_three_scores_and_nothing_behind() -> None:
    ahead = {"ahead": ["psnr_free", "iou_free", "detail", "judge_view"], "behind": []}
    assert claim_holds([ahead, ahead])
    assert not claim_holds([ahead])
    assert not claim_holds([ahead, ahead | {"behind": ["saturation"]}])
    assert not claim_holds([ahead, ahead | {"ahead": ["psnr_free", "iou_free"]}])


def test_pairs_are_of_the_same_prompt_and_seed(tmp_path: Path, scored: list[RunConfig]) -> None:
    rows = rows_of(tmp_path)
    left = [row for row in rows if not (row.arm == REFERENCE and row.seed == 1)]
    found = {one.budget: scores for one, scores in contrasts_of(left).items() if one.setting == "plain-words"}
    assert found["time"]["psnr_free"].mean == pytest.approx(2.0)


def test_the_page_takes_the_tables_between_its_marks(tmp_path: Path, scored: list[RunConfig]) -> None:
    tables = page_tables(rows_of(tmp_path))
    page, marks = tmp_path / "page.md", evidence.MARKS
    page.write_text(f"before\n{marks[0]}\nstale figures\n{marks[1]}\nbetween\n<!-- two -->\nkept\n{marks[1]}\nafter\n")
    for _ in range(2):
        insert_table(page, tables, marks)
    text = page.read_text()
    for words in ("before", "between", "kept", "after", "### detailed-words"):
        assert text.count(words) == 1
    assert "stale" not in text
    assert "| SDI minus SDS, t annealed | time | 3 | **+2.0** [+2.0, +2.0] |" in text
    assert "| ahead in PSNR, IoU, detail; behind in saturation error |" in text
    assert "| an orange rocket | – | – | – | – | 22.0 / 20.0 | 0.70 / 0.50 |" in text
    with pytest.raises(SystemExit, match="lacks the lines"):
        insert_table(page, "", ("<!-- three -->", marks[1]))


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence, "measure_cost", lambda base: COST)
    changes = [f"--set={key}={json.dumps(value)}" for key, value in CHANGES.items()]
    monkeypatch.setattr(
        "sys.argv",
        ["evidence.py", "--results", str(tmp_path / "r"), "--dry-run", "--blocks", "5", "--groups", "3", *changes],
    )
    evidence.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    budgets: list[tuple[str, str, Budget]] = [(row["setting"], row["arm"], row["budget"]) for row in told["plan"]]
    assert budgets == [("plain-words", "sdi", "time"), ("plain-words", "sds-annealed", "time")]
    assert (told["plan"][0]["steps"], told["missing_runs"]) == (60, 6)
    assert list(tmp_path.iterdir()) == []


def test_costs_are_measured_in_the_settings_own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(evidence, "measure_cost", lambda base: asked.append(base.prompt) or COST)
    for name in ("plain-cameras", "detailed-cameras"):
        assert evidence.cost_of(name, SETTINGS[name].base({}), tmp_path, keep=False) == COST
    assert asked == ["a blue robot", "a patchwork blue robot"]


def test_changes_are_read_as_yaml() -> None:
    assert evidence.read_changes(["steps=5", "backgrounds=[white]"]) == {"steps": 5, "backgrounds": ["white"]}
    with pytest.raises(SystemExit, match="--set takes KEY=VALUE, got steps"):
        evidence.read_changes(["steps"])
