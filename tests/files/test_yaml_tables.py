"""Tables in YAML that people may have edited or damaged: one line for whatever is wrong, in bounded work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from sdi_gs.configs.presets import presets
from sdi_gs.errors import UserError
from sdi_gs.files.yaml_tables import DEEPEST, LARGEST_FILE, MOST_EVENTS, read_yaml_table
from sdi_gs.settings.tree import config_from_dict, config_to_dict

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(20)
)
"""9^21 values, if they were written out."""

DAMAGED = {
    "a number as a key": ("1: 2\n", "1 is no text, and so no key"),
    "a date as a key": ("2024-01-01: 2\n", "datetime.date(2024, 1, 1) is no text, and so no key"),
    "a key of control characters": ('"\\e[31m": 1\n', r"unknown key '\x1b[31m'"),
    "a long key": (f"{'k' * 900}: 1\n", "unknown key 'kkkk"),
    "a date": ("steps: 2024-01-01\n", "steps is datetime.date(2024, 1, 1); accepted: int"),
    "a date that is none": ("steps: 2024-13-45\n", "is damaged (not YAML)"),
    "a tag of Python's": ("steps: !!python/object/apply:os.system [ls]\n", "is damaged (not YAML)"),
    "a tag without its value": ("steps: !!bool x\n", "is damaged (not YAML)"),
    "a tag of a date": ("steps: !!timestamp x\n", "is damaged (not YAML)"),
    "a set": ("backgrounds: !!set {white}\n", "is damaged (not YAML)"),
    "5000 digits": (f"steps: {'9' * 5000}\n", "is damaged (not YAML)"),
    "5000 digits in hexadecimal": (
        f"steps: 0x{'f' * 5000}\n",
        "steps must be 1 to 10000000, got a number of 20000 bits",
    ),
    "a float too large for one": (
        f"learning_rate_scale: 0x{'f' * 900}\n",
        "must be 0.001 to 1000, got a number of 3600",
    ),
    "infinity": ("learning_rate_scale: .inf\n", "learning_rate_scale must be 0.001 to 1000, got inf"),
    "brackets without end": (f"steps: {'[' * 900}\n", "is damaged (not YAML)"),
    "lists in lists": (f"steps: {'[' * 50}{']' * 50}\n", "is damaged (not YAML)"),
    "tables in tables": ("".join(f"{' ' * i}a:\n" for i in range(50)), "is damaged (not YAML)"),
    "aliases that explode": (f"{BOMB}steps: *u\n", "unknown key a"),
    "an alias of them as a value": (
        BOMB.replace("a: &a", "prompt: &a", 1).replace("\nb:", "\nsteps:", 1),
        "unknown key c",
    ),
    "a list in itself": ("steps: &a [*a]\n", "steps is [[[...]]]"),
    "a table in itself": ("&a steps: &b {c: *b}\n", "steps is {'c': {'c': {...}}}"),
    "a key that is a list": ("? [1, 2]\n: 3\n", "is damaged (not YAML)"),
    "two documents": ("--- {}\n--- {}\n", "is damaged (not YAML)"),
    "many values": (f"backgrounds: [{'white, ' * 6000}]\n", "is damaged (not YAML)"),
    "a group that is empty": ("guidance:\n", "guidance must be a mapping, got NoneType"),
    "no table": ("just a sentence\n", "holds no settings"),
    "a surrogate": ('prompt: "\\ud800"\n', r"prompt must be UTF-8, got '\ud800'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str) -> None:
    text, says = DAMAGED[name]
    file = tmp_path / "config.yaml"
    file.write_text(text)
    started = time.process_time()
    with pytest.raises(UserError) as refused:
        config_from_dict(read_yaml_table(file))
    line = str(refused.value)
    assert says in line
    assert line.isprintable()
    assert len(line) < 600
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize("data", [b"prompt: caf\xe9\n", b"prompt: a\x1bb\n", b"prompt: a\x00b\n", b"\xff\xfe\x00"])
def test_bytes_that_are_no_text_are_damage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        read_yaml_table(tmp_path / "config.yaml")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    with file.open("wb") as opened:
        opened.truncate(2**40)
    with pytest.raises(UserError, match=f"has more than {LARGEST_FILE} bytes"):
        read_yaml_table(file)


@pytest.mark.parametrize("name", presets())
def test_what_this_program_writes_is_far_within_the_bounds(tmp_path: Path, name: str) -> None:
    values = config_to_dict(presets()[name].config)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    assert read_yaml_table(file) == values
    assert len(list(yaml.parse(file.read_text()))) < MOST_EVENTS / 5
    assert file.stat().st_size < LARGEST_FILE / 20
    assert DEEPEST > 8
