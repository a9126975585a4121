"""What is wrong with a scene of two objects shows in the value that is about it; truth has all of them right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.toybox.judge import Judge, load_judge
from sdi_gs.toybox.object_crops import MOSTLY_SEEN, crop_object, pixels_of_objects
from sdi_gs.toybox.objects import Scene, canonical_object
from sdi_gs.toybox.pair_score import PairScore, score_pair
from sdi_gs.toybox.pairs import ObjectPair, sample_pair, with_colours
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.truth import held_out_cameras, pair_draws
from sdi_gs.toybox.truth_renders import TruthRenders
from sdi_gs.toybox.truth_score import score_against_truth
from sdi_gs.toybox.truth_yaw import turned

CAMERAS = held_out_cameras(32)
RENDERS = TruthRenders(CAMERAS)
TEXT = "a red cylinder on a blue cube"
PROMPT = parse_prompt(TEXT)
PAIR = PROMPT.pair(["red", "blue"])


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


@pytest.fixture(scope="module")
def member() -> Scene:
    """A scene that is none of the draws."""
    return sample_pair(PAIR, split_seed("val", 0))


def seen(scene: Scene, yaw_deg: float = 0.0) -> Callable[[CameraBatch], RenderOutput]:
    """Renders of a scene that is turned."""

    def render(cameras: CameraBatch) -> RenderOutput:
        made = render_scenes([scene] * len(cameras), turned(cameras, -yaw_deg))
        return RenderOutput(rgb=made.rgb, alpha=made.alpha)

    return render


def score_of(scene: Scene, judge: Judge, text: str = TEXT) -> PairScore:
    return score_pair(seen(scene)(CAMERAS), parse_prompt(text), judge, RENDERS)


def test_a_member_has_both_objects_with_their_colours_in_the_relation(member: Scene, judge: Judge) -> None:
    score = score_of(member, judge)
    assert score.bound and score.relation_right and not score.colours_swapped
    assert (score.first.colour, score.second.colour, score.relation) == ("red", "blue", "on")
    assert score.as_json()["first_present"] is score.as_json()["second_colour_right"] is True


@pytest.mark.parametrize("index", [0, 1])
def test_a_missing_object_is_absent_and_its_relation_wrong(member: Scene, judge: Judge, index: int) -> None:
    score = score_of((member[1 - index],), judge)
    there, missing = (score.second, score.first) if index == 0 else (score.first, score.second)
    assert there.present and not missing.present
    assert missing.colour is None and not missing.colour_right
    assert not score.bound and not score.relation_right


def test_swapped_colours_are_seen_as_swapped_and_not_as_another_relation(member: Scene, judge: Judge) -> None:
    score = score_of(with_colours(member, ("blue", "red")), judge)
    assert score.colours_swapped and not score.bound
    assert score.first.present and score.second.present and score.relation_right
    same = score_of(with_colours(member, ("green", "green")), judge, "a green cylinder on a green cube")
    assert same.bound and not same.colours_swapped


@pytest.mark.parametrize("relation", ["next to", "in front of", "behind"])
def test_another_relation_is_named(judge: Judge, relation: str) -> None:
    other = parse_prompt(f"a red cylinder {relation} a blue cube").pair(["red", "blue"])
    score = score_of(sample_pair(other, split_seed("val", 1)), judge)
    assert score.relation == relation
    assert score.bound and not score.relation_right


def test_the_second_object_on_the_first_is_under(judge: Judge) -> None:
    upside_down = ObjectPair(first="cube", first_colour="blue", relation="on", second="cylinder", second_colour="red")
    score = score_of(sample_pair(upside_down, split_seed("val", 2)), judge)
    assert score.relation == "under" and score.bound and not score.relation_right


def test_a_turn_within_a_view_words_sector_is_undone(judge: Judge) -> None:
    text = "a red cylinder next to a blue cube"
    pair = parse_prompt(text).pair(["red", "blue"])
    render = seen(sample_pair(pair, split_seed("val", 3)), 36.0)
    free = score_pair(render(CAMERAS), parse_prompt(text), judge, RENDERS, render)
    assert free.relation_right and free.bound
    fixed = score_pair(render(CAMERAS), parse_prompt(text), judge, RENDERS)
    assert fixed.relation == "next to" or not fixed.relation_right


def test_open_colours_are_taken_as_they_are(member: Scene, judge: Judge) -> None:
    score = score_of(with_colours(member, ("pink", "green")), judge, "a cylinder on a green cube")
    assert score.bound and score.first.colour == "pink"
    assert score.first.judge_colour is None and score.second.judge_colour is not None


def test_the_judge_sees_each_object_alone(judge: Judge) -> None:
    cameras = held_out_cameras(64)
    scene = sample_pair(
        parse_prompt("a green chair next to a yellow car").pair(["green", "yellow"]), split_seed("val", 4)
    )
    score = score_pair(
        seen(scene)(cameras), parse_prompt("a green chair next to a yellow car"), judge, TruthRenders(cameras)
    )
    for item in (score.first, score.second):
        assert item.judge_class > 0.8
        assert item.judge_colour is not None and item.judge_colour > 0.9


def test_a_crop_shows_what_the_object_alone_would() -> None:
    cameras = held_out_cameras(64)
    item, other = sample_pair(
        parse_prompt("a red ball in front of a blue cube").pair(["red", "blue"]), split_seed("val", 5)
    )
    shown, share = pixels_of_objects(item, other, cameras)
    crops = crop_object(seen((item, other))(cameras).rgb, shown, item, cameras)
    clear = share > 0.99
    assert 0 < int(clear.sum()) < len(cameras), "some views hide a part"
    alone = canonical_object("ball", "red")
    truth = seen((alone,))(cameras).rgb
    outside = (truth - 1.0).abs().amax(dim=-1) < 0.01
    assert (crops[clear] - truth[clear]).abs().mean() < 0.04
    assert (crops[clear][outside[clear]] - 1.0).abs().mean() < 0.02
    hidden = pixels_of_objects(other, item, cameras)[1]
    assert hidden.min() < MOSTLY_SEEN < hidden.max()


def test_truth_scores_a_draw_of_two_objects_perfectly() -> None:
    images = seen(pair_draws(PAIR, 3)[1])(CAMERAS)
    score = score_against_truth(images.rgb, images.alpha, CAMERAS, PROMPT, 3, 1, renders=RENDERS)
    assert score.psnr_best == pytest.approx(100.0) and score.iou_best == 1.0
    assert score.psnr_canonical < 50.0
    assert score.colour_right and score.colour == "red and blue"
    assert score.iou_wrong_class is score.view_accuracy is score.front_back_right is None
    swapped = seen(with_colours(pair_draws(PAIR, 3)[1], ("blue", "red")))(CAMERAS)
    assert not score_against_truth(swapped.rgb, swapped.alpha, CAMERAS, PROMPT, 3, 0, renders=RENDERS).colour_right


def test_draws_of_pairs_are_streams_of_their_own_and_fewer_are_a_prefix() -> None:
    assert pair_draws(PAIR, 5)[:2] == pair_draws(PAIR, 2)
    other = parse_prompt("a red cylinder next to a blue cube").pair(["red", "blue"])
    assert pair_draws(PAIR, 1)[0][0].proportions != pair_draws(other, 1)[0][0].proportions


def test_one_object_has_no_pair(judge: Judge) -> None:
    with pytest.raises(ValueError, match="one object has no pair"):
        score_pair(RenderOutput(rgb=torch.ones(1), alpha=torch.ones(1)), parse_prompt("a red ball"), judge, RENDERS)
