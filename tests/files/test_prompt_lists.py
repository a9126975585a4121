"""Lists of prompts in every form, with the numbers of their lines, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdi_gs.errors import UserError
from sdi_gs.files.json_members import members_of
from sdi_gs.files.prompt_lists import PromptRow, read_prompt_list, read_prompts


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a list and return its path."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_tuples(rows: tuple[PromptRow, ...] | list[PromptRow]) -> list[tuple[int, str, int | None, str | None]]:
    """Return what rows say without their settings."""
    return [(row.line, row.prompt, row.seed, row.name) for row in rows]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_a_text_has_a_prompt_a_line_and_comments(tmp_path: Path, mark: str, end: str) -> None:
    text = mark + end.join(["a blue robot", "", "  # not now", "  ein grüner Käfer, 猫 ", "item #1, striped"])
    found = read_prompt_list(written(tmp_path, "prompts.txt", text))
    assert not found.bad
    assert as_tuples(found.rows) == [
        (1, "a blue robot", None, None),
        (4, "ein grüner Käfer, 猫", None, None),
        (5, "item #1, striped", None, None),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_gives_seeds_names_and_settings_of_their_own_types(tmp_path: Path, delimiter: str) -> None:
    lines = [
        ["seed", "prompt", "name", "steps", "guidance.noise", "densify.enabled", "backgrounds", "cameras.distance"],
        ["3", "a blue robot", "robo", "200", "inversion", "FALSE", "white black", "2.5 3"],
        [],
        ["", '"a red mug,; with ""ears"""', "", "", "", "", "", ""],
    ]
    file = written(tmp_path, "prompts.csv", "\n".join(delimiter.join(cells) for cells in lines) + "\n")
    found = read_prompt_list(file)
    assert not found.bad
    assert as_tuples(found.rows) == [(2, "a blue robot", 3, "robo"), (4, 'a red mug,; with "ears"', None, None)]
    assert found.rows[0].settings == {
        "steps": 200,
        "guidance.noise": "inversion",
        "densify.enabled": False,
        "backgrounds": ("white", "black"),
        "cameras.distance": (2.5, 3.0),
    }
    assert found.rows[1].settings == {}


def test_lines_of_a_table_are_those_of_the_file_where_cells_have_line_breaks(tmp_path: Path) -> None:
    file = written(tmp_path, "prompts.csv", 'prompt,name\n"a\nb",x\na red mug,y\n,z\n1,2,3\n')
    found = read_prompt_list(file)
    assert as_tuples(found.rows) == [(4, "a red mug", None, "y")]
    assert [row.line for row in found.bad] == [2, 5, 6]
    assert "line break" in found.bad[0].reason
    assert "the prompt is empty" in found.bad[1].reason
    assert "3 cells" in found.bad[2].reason


def test_json_lines_keep_their_types_and_name_what_is_wrong(tmp_path: Path) -> None:
    lines = [
        '{"prompt": "a blue robot", "seed": 7, "name": null, "guidance.t_max": 1, "backgrounds": ["black"]}',
        '{"promt": "a red mug"}',
        "",
        '{"prompt": "a red mug"',
        '{"prompt": 3}',
        '{"prompt": "a red mug", "seed": -1}',
        '{"prompt": "a red mug", "seed": true}',
        '{"prompt": "a red mug", "guidance": {"noise": "random"}}',
        '["a red mug"]',
        '"a red mug"',
    ]
    found = read_prompt_list(written(tmp_path, "prompts.jsonl", "\n".join(lines)))
    assert as_tuples(found.rows) == [(1, "a blue robot", 7, None), (10, "a red mug", None, None)]
    assert found.rows[0].settings == {"guidance.t_max": 1, "backgrounds": ["black"]}
    reasons = {row.line: row.reason for row in found.bad}
    assert list(reasons) == [2, 4, 5, 6, 7, 8, 9]
    assert "'promt'" in reasons[2]
    assert "did you mean prompt?" in reasons[2]
    assert "not JSON" in reasons[4]
    assert "prompt is 3" in reasons[5]
    assert "seed is -1" in reasons[6]
    assert "seed is True" in reasons[7]
    assert "did you mean guidance." in reasons[8]
    assert "no row" in reasons[9]


LIBRARY = """{
  "dreamfusion": ["a blue robot",
    "a red mug", 3,
    ""],
  "mine": {"first": "a \\"blue\\" robot",

           "second": "a red mug"}
}
"""


def test_a_library_has_lists_and_named_prompts_by_key(tmp_path: Path) -> None:
    file = written(tmp_path, "library.json", LIBRARY)
    listed = read_prompt_list(file, "dreamfusion")
    assert as_tuples(listed.rows) == [(2, "a blue robot", None, None), (3, "a red mug", None, None)]
    assert [(row.line, row.reason) for row in listed.bad] == [
        (3, "3 is no prompt: write a text"),
        (4, "the prompt is empty"),
    ]
    assert as_tuples(read_prompts(file, "mine")) == [
        (5, 'a "blue" robot', None, "first"),
        (7, "a red mug", None, "second"),
    ]
    with pytest.raises(
        UserError, match="has 2 lists: choose one by its key \\(--key\\); its keys are dreamfusion, mine"
    ):
        read_prompt_list(file)
    with pytest.raises(UserError, match="has no key 'yours'; its keys are dreamfusion, mine"):
        read_prompt_list(file, "yours")
    with pytest.raises(UserError, match="line 3: 3 is no prompt"):
        read_prompts(file, "dreamfusion")


def test_a_library_of_one_list_needs_no_key(tmp_path: Path) -> None:
    assert len(read_prompts(written(tmp_path, "one.json", '{"only": ["a", "b"]}'))) == 2
    assert len(read_prompts(written(tmp_path, "list.json", '["a", {"prompt": "b", "seed": 4}]'))) == 2


def test_members_of_json_are_those_of_the_library_with_their_places() -> None:
    value = {"a": [1, "]", {"b": "}"}], 'x"': {"y": None}, "z": []}
    for indent in (None, 2):
        text = " \n" + json.dumps(value, indent=indent)
        found = list(members_of(text))
        assert {member.name: member.value for member in found} == value
        for member in found:
            assert json.JSONDecoder().raw_decode(text, member.start)[0] == member.value
            assert member.line == text[: member.start].count("\n") + 1
        inner = list(members_of(text, found[0].start))
        assert [member.value for member in inner] == value["a"]
        assert [member.line for member in inner] == [text[: member.start].count("\n") + 1 for member in inner]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", "", "holds no prompts"),
        ("a.txt", "# only\n\n# comments\n", "holds no prompts"),
        ("a.csv", "", "holds no prompts"),
        ("a.csv", "prompt,seed\n", "holds no prompts"),
        ("a.json", "", "no prompt library"),
        ("a.json", "[]", "holds no prompts"),
        ("a.json", '{"a": "a blue robot"}', "no prompt library"),
        ("a.json", '{"a": [1,}', "line 1: not JSON"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.txt", b"a blue robot\ncaf\xe9\n", r"not UTF-8 \(line 2, byte 0xe9\)"),
        ("a.txt", "a blue robot".encode("utf-16"), "not UTF-8"),
        ("a.csv", "promt,seed\na,1\n", "line 1: unknown column 'promt'.*did you mean prompt"),
        ("a.csv", "prompt,noise\na,inversion\n", "unknown column 'noise'.*did you mean guidance.noise"),
        ("a.csv", "prompt,seed,seed\na,1,2\n", "'seed' stands there twice"),
        ("a.csv", "seed,name\n1,a\n", 'no column "prompt"'),
        ("a.csv", 'prompt\n"a blue robot\n', "line 2: not CSV"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        read_prompt_list(written(tmp_path, name, content))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_a_folder_and_a_key_without_a_library_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_prompt_list(tmp_path / "no.txt")
    with pytest.raises(UserError, match="a folder"):
        read_prompt_list(tmp_path)
    with pytest.raises(UserError, match="--key animals chooses a list"):
        read_prompt_list(written(tmp_path, "a.txt", "a"), "animals")


def test_rows_with_control_characters_or_too_long_texts_are_bad(tmp_path: Path) -> None:
    text = f"a\x1b[2Jb\n{'a' * 10_001}\na blue robot\n"
    found = read_prompt_list(written(tmp_path, "a.txt", text))
    assert [row.line for row in found.rows] == [3]
    assert [row.line for row in found.bad] == [1, 2]
    assert "\x1b" not in found.bad[0].reason
    assert "10001 characters" in found.bad[1].reason
