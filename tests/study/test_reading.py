"""Studies from their files: what is read, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdi_gs.commands.study import SHIPPED
from sdi_gs.errors import UserError
from sdi_gs.study.reading import read_study, study_file

GOOD = """
title: Tried
set: {guidance.noise: inversion}
arms:
  a: {title: A}
  b: {set: {guidance.inversion_steps: 3}}
prompts: [a blue robot]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "tried.yaml"
    path.write_text(text)
    return path


def test_what_is_not_given_has_a_default(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, GOOD))
    assert (study.name, study.reference, study.budgets) == ("tried", "a", ("steps",))
    assert [arm.title for arm in study.arms] == ["A", "b"]
    [block] = study.blocks
    assert (block.setting, block.arms, block.prompts, block.seeds) == ("main", ("a", "b"), ("a blue robot",), (0,))
    assert study.setting("main").changes == {"guidance.noise": "inversion"}


def test_prompts_come_from_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a blue robot\n# left out\na red ball\n")
    study = read_study(written(tmp_path, GOOD.replace("[a blue robot]", "list.txt")))
    assert study.blocks[0].prompts == ("a blue robot", "a red ball")


def test_a_prompt_librarys_list_is_chosen_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "library.json").write_text('{"mine": ["a blue robot", "a red ball"], "theirs": ["a tree"]}')
    text = GOOD.replace("[a blue robot]", "{file: library.json, key: mine}")
    assert read_study(written(tmp_path, text)).blocks[0].prompts == ("a blue robot", "a red ball")
    for value, words in (
        ("library.json", "has 2 lists: choose one by its key (--key); its keys are mine, theirs"),
        ("{file: library.json, key: ours}", "has no key 'ours'; its keys are mine, theirs"),
        ("{key: mine}", "prompts: file must be a text"),
        ("{file: library.json, list: mine}", "unknown key"),
    ):
        with pytest.raises(UserError) as error:
            read_study(written(tmp_path, GOOD.replace("[a blue robot]", value)))
        assert words in str(error.value)


def test_a_style_goes_after_the_article() -> None:
    setting = read_study(SHIPPED / "evidence.yaml").setting("detailed-cameras")
    assert setting.prompt("an orange rocket") == "a patchwork orange rocket"
    assert setting.prompt("trees") == "patchwork trees"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("title: Tried", "titel: Tried", 'unknown key "titel"; known: about, arms'),
        ("title: A", "titel: A", 'arms: a: unknown key "titel"; known: set, title'),
        ("  b: {set: {guidance.inversion_steps: 3}}", "", "a study compares two arms at least, got 1"),
        ("prompts: [a blue robot]", "metrics: [psnr]", "unknown metric psnr; accepted: psnr_best, psnr_free"),
        ("prompts: [a blue robot]", "prompts: toybox-99", "or one of toybox-12, toybox-6"),
        ("prompts: [a blue robot]", "prompts: [a blue robot, a blue robot]", "has a blue robot twice"),
        ("prompts: [a blue robot]", "budgets: [hours]", "budgets must be some of steps, time, calls"),
        ("prompts: [a blue robot]", "seeds: [1, 1]", "seeds must be different whole numbers"),
        ("prompts: [a blue robot]", "seeds: [-1]", "seeds must be different whole numbers"),
        ("prompts: [a blue robot]", "reference: c", "reference must be one of a, b, got"),
        ("prompts: [a blue robot]", "comparisons: [[a, c]]", "comparisons[0] must be two of the arms a, b"),
        ("prompts: [a blue robot]", "claims: [{first: a, second: c}]", "claims[0]: second must be one of a, b"),
        ("prompts: [a blue robot]", "claims: [{first: a, second: a}]", "first and second are both a"),
        ("prompts: [a blue robot]", "claims: [{first: a, second: b, scores: [fog]}]", "fog is none of the study's"),
        ("prompts: [a blue robot]", "blocks: [{setting: other}]", "blocks[0]: setting must be one of main"),
        ("set: {guidance.noise: inversion}", "set: {prompt: a ball}", "must not set prompt"),
        ("set: {guidance.noise: inversion}", "set: 3", "set must be a table of keys and values, got 3"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(UserError) as error:
        read_study(path)
    assert words.replace('"', "'") in str(error.value).replace('"', "'")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bad_row_of_a_list_is_named_by_its_line(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    path = written(tmp_path, GOOD.replace("[a blue robot]", "list.csv"))
    for text, words in (
        ("prompt,seed\na blue robot,\na ball,x\n", "line 3: "),
        ("prompt,seed\na blue robot,4\n", "line 2: a study's prompts have no seeds and settings"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=words):
            read_study(path)


def test_a_study_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    assert study_file("evidence", SHIPPED) == SHIPPED / "evidence.yaml"
    assert study_file(str(written(tmp_path, GOOD)), SHIPPED) == tmp_path / "tried.yaml"
    with pytest.raises(UserError, match='unknown study "evidenec"; known: evidence, '):
        study_file("evidenec", SHIPPED)
    with pytest.raises(UserError, match="there is no such file"):
        study_file(str(tmp_path / "none.yaml"), SHIPPED)
