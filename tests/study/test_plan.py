"""Budgets and plans: what every arm of a study gets, and which row of the shared folder it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_studies import ARMS, BASE, BLOCKS, COST, SCHEDULE, a_study, planned, seconds

from sdi_gs.cameras import CameraBatch
from sdi_gs.commands.study import SHIPPED
from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values
from sdi_gs.study.arms import settings_apart_from_defaults
from sdi_gs.study.budgets import budgeted, rounds_for, with_rounds
from sdi_gs.study.cost import count_calls, measure_cost, rounds_of, without_replay
from sdi_gs.study.reading import read_study
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.training.trainer import Trainer


def arm_config(name: str, **changes: Any) -> RunConfig:
    return replace(preset("toybox-ideal", {**BASE, **ARMS[name]}), **changes)


REFERENCE = arm_config("sdi")


def tiny_config(name: str) -> RunConfig:
    values = {
        "steps": 10,
        "prompt": "a red ball",
        "ideal_prior.renders_per_view": 2,
        "ideal_prior.unconditional_renders": 4,
        "gaussians.num_initial": 50,
        "guidance.guidance_scale": 3.0,
        "guidance.views": "words",
        "views_per_step": 1,
        "replay.steps_per_target": 3,
        "replay.views": 4,
        "losses.space": "pixels",
    }
    return preset("smoke", {**values, **ARMS[name]})


@pytest.mark.slow
@pytest.mark.parametrize("name", tuple(ARMS))
def test_calls_are_counted_as_a_run_makes_them(name: str) -> None:
    config = tiny_config(name)
    prior = load_prior(config, device="cpu")
    made = {1: 0, 2: 0, 4: 0}
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
    assert (calls.conditional + calls.unconditional, calls.both, calls.perp_neg) == (made[1], made[2], made[4])
    assert calls.total == sum(report.predictor_calls for report in reports)
    assert rounds_of(config) == reports[-1].num_rounds == (10 if "no-replay" in name else 4)


@pytest.mark.parametrize("name", tuple(ARMS))
def test_at_equal_calls_every_arm_makes_those_of_the_reference(name: str) -> None:
    given = budgeted(arm_config(name), REFERENCE, "calls", schedule=SCHEDULE, seconds=seconds)
    target = count_calls(REFERENCE, SCHEDULE).total
    # One round more or less changes it by a round's calls, of which ISM has the most.
    assert count_calls(given, SCHEDULE).total == pytest.approx(target, abs=0 if "sds" in name else 4)
    if name == "sdi-no-replay":
        assert given.replay == ReplayConfig()
    else:
        assert given.steps == pytest.approx(REFERENCE.steps, abs=0.5 * rounds_of(given))
        assert given.replay.views == REFERENCE.replay.views


@pytest.mark.parametrize("name", tuple(ARMS))
def test_at_equal_time_every_arm_takes_that_of_the_reference(name: str) -> None:
    given = budgeted(arm_config(name), REFERENCE, "time", schedule=SCHEDULE, seconds=seconds)
    rounds, target = rounds_of(given), seconds(REFERENCE)
    off = [abs(seconds(with_rounds(given, rounds + more)) - target) for more in (-1, 0, 1)]
    # A round more or less would not be closer.
    assert min(off) == off[1] < 0.1 * target
    assert given.replay == arm_config(name).replay


def test_at_equal_steps_every_arm_has_its_own() -> None:
    for name in ARMS:
        config = arm_config(name, steps=44)
        assert budgeted(config, REFERENCE, "steps", schedule=SCHEDULE, seconds=seconds) == config


def test_a_runs_seconds_are_those_of_its_steps_and_calls() -> None:
    config = arm_config("sds-annealed", steps=10)
    # Three rounds of 4, 4 and 2 steps at scale 2.5: both branches.
    assert seconds(config) == pytest.approx(3 * (0.03 + 0.05) + 7 * 0.01)
    assert seconds(without_replay(config)) == pytest.approx(10 * (0.05 + 0.05))
    assert seconds(with_values(config, {"guidance.guidance_scale": 1.0})) == pytest.approx(3 * (0.03 + 0.02) + 7 * 0.01)
    # Four branches are two times two.
    assert seconds(with_values(config, {"guidance.perp_neg": True})) == pytest.approx(3 * (0.03 + 0.1) + 7 * 0.01)


def test_what_new_cameras_cost_is_paid_by_rounds_that_need_more_than_the_target_does() -> None:
    cost = replace(COST, new_cameras=0.4)
    for scale, inverts in ((1.0, True), (2.5, False)):
        for name in ("sdi", "sds-annealed"):
            changes = {"guidance.guidance_scale": scale, "guidance.random_fraction": 0.4}
            config = with_values(arm_config(name, steps=40), changes)
            more = cost.seconds(config, SCHEDULE) - COST.seconds(config, SCHEDULE)
            # Six of ten rounds invert.
            assert more == pytest.approx(6 * 0.4 if inverts and name == "sdi" else 0.0)


@pytest.mark.slow
def test_costs_are_measured_under_replay_and_without() -> None:
    cost = measure_cost(tiny_config("sdi"))
    assert min(cost.alone, cost.further, cost.conditional, cost.unconditional, cost.both) > 0.0
    # A further step neither encodes nor decodes.
    assert cost.further < 5.0 * (cost.first + cost.conditional)


def test_costs_of_a_prior_of_four_views_are_measured_in_whole_groups() -> None:
    values = {
        "ideal_prior.image_size": 16,
        "ideal_prior.renders_per_window": 8,
        "ideal_prior.azimuth_window_deg": 60.0,
        "gaussians.num_initial": 20,
        "replay.steps_per_target": 2,
        "replay.views": 16,
        "views_per_step": 8,
    }
    cost = measure_cost(preset("toybox-ideal-4view", values, prompt="a red mug"))
    assert min(cost.alone, cost.conditional, cost.unconditional, cost.both) > 0.0


def test_the_nearest_number_of_rounds_is_found() -> None:
    for target, rounds in ((0.5, 1), (10.0, 10), (10.4, 10), (10.6, 11), (777.0, 777)):
        assert rounds_for(REFERENCE, target, lambda config: config.steps / 4) == rounds
    assert with_rounds(REFERENCE, 7).steps == 28
    with pytest.raises(UserError, match="more than 100000 rounds"):
        rounds_for(REFERENCE, 1.0, lambda config: 0.0)


# The plan.


def test_a_groups_runs_share_prompt_seed_and_world() -> None:
    plan = planned(a_study())
    assert [len(group) for group in plan.groups] == [4, 4, 2, 2, 2, 2]
    for group in plan.groups:
        assert len({(run.setting, run.config.prompt, run.config.seed, run.config.prior) for run in group}) == 1
    prompts = [group[0].config.prompt for group in plan.groups]
    assert prompts[2:4] == ["a patchwork blue robot", "a patchwork snowman with an orange hat"]
    plain, detailed = (parse_prompt(plan.groups[index][0].config.prompt) for index in (0, 2))
    assert (plain.style, detailed.style) == (None, "patchwork")
    assert replace(detailed, style=None) == plain


def test_budgets_with_the_same_steps_share_a_row_and_two_studies_do() -> None:
    plan = planned(a_study())
    # SDI is the same run at both budgets.
    assert (len(plan.runs), len(plan.rows)) == (16, 14)
    other = planned(a_study({"a": ARMS["ism"], "b": ARMS["sdi"]}, reference="b", name="other", blocks=(
        replace(BLOCKS[0], arms=("a", "b"), budgets=("steps",)),
    )))  # fmt: skip
    shared = set(plan.rows) & set(other.rows)
    assert {plan.rows[key].config for key in shared} == {
        run.config for run in plan.runs if (run.setting, run.arm) == ("plain", "sdi")
    }
    assert len(shared) == 2
    assert not set(planned(a_study(), {"losses.fog": 0.7}).rows) & set(plan.rows)


def test_a_row_holds_all_that_its_run_needs() -> None:
    for run in planned(a_study()).runs:
        assert with_values(RunConfig(), run.row.given) == run.config
    config = preset("toybox", {"backgrounds": ["white"], "replay.views": None})
    assert with_values(RunConfig(), settings_apart_from_defaults(config)) == config


def test_a_negative_prompt_may_contain_the_runs_own() -> None:
    arms = {"a": {}, "b": {"negative_prompt": "{prompt}, front view", "guidance.guidance_scale": 3.0}}
    runs = planned(a_study(arms, blocks=(replace(BLOCKS[1], arms=("a", "b")),))).runs
    negatives = {run.config.negative_prompt for run in runs if run.arm == "b"}
    assert negatives == {
        "a patchwork blue robot, front view",
        "a patchwork snowman with an orange hat, front view",
    }
    for run in runs:
        assert with_values(RunConfig(), run.row.given) == run.config


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"a": {}, "b": {"guidance.noise": "random"}}, "arm b changes nothing: guidance.noise is so without it"),
        ({"a": {}, "b": {"guidance.inversion_steps": 3}}, "has no effect with guidance.noise random"),
        ({"a": {}, "b": {"ngp.levels": 3}}, "tried, plain, arm b: config: unknown key"),
        ({"a": {}, "b": {"ngp.empty_alpha": 0.05}}, "has no effect with representation gaussians"),
        ({"a": {"steps": 3}, "b": {"steps": 3}}, "arms a and b do not differ"),
        ({"a": {}, "b": {"steps": 0}}, "study tried, plain, arm b: config: "),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(arms: dict[str, dict[str, Any]], words: str) -> None:
    block = replace(BLOCKS[0], arms=("a", "b"))
    with pytest.raises(UserError) as error:
        planned(a_study(arms, blocks=(block,)))
    assert words in str(error.value)


def test_a_prompt_that_the_prior_does_not_know_is_refused() -> None:
    block = replace(BLOCKS[0], prompts=("a blue robot", "a corgi"))
    with pytest.raises(UserError, match='study tried: prompt "a corgi"'):
        planned(a_study(blocks=(block,)))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_can_be_planned(path: Any) -> None:
    study = read_study(path)
    plan = planned(study)
    assert plan.rows
    assert study.about and study.title
