"""The presets of published runs, against a record of the published settings, leaf by leaf.

``published/`` holds one table each. A row is a published setting: its source, its value there and, if there is one, the
setting here (``ours``, ``times`` a number where units differ), or the ``reason`` for which they are not the same.
"""

from __future__ import annotations

import fnmatch
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.settings.tree import config_to_dict, flatten

TABLES = {path.stem: json.loads(path.read_text()) for path in Path(__file__).with_name("published").glob("*.json")}
every_table = pytest.mark.parametrize("name", TABLES)


@functools.cache
def settings_of(name: str) -> dict[str, Any]:
    return flatten(config_to_dict(preset(name, prompt="anything")))


def is_same(ours: Any, published: Any) -> bool:
    numbers = isinstance(ours, (int, float)) and isinstance(published, (int, float))
    if numbers and not isinstance(ours, bool) and not isinstance(published, bool):
        return ours == pytest.approx(published, rel=1e-12)
    if isinstance(ours, list) and isinstance(published, list):
        return len(ours) == len(published) and all(map(is_same, ours, published))
    return type(ours) is type(published) and ours == published


def is_published(row: dict[str, Any], settings: dict[str, Any]) -> bool:
    value = settings[row["ours"]]
    return is_same(value * row["times"] if "times" in row else value, row["published"])


@every_table
def test_a_published_setting_is_the_presets_or_there_is_a_reason(name: str) -> None:
    settings, rows = settings_of(name), TABLES[name]["rows"]
    silent = [row for row in rows if "ours" in row and not is_published(row, settings) and "reason" not in row]
    assert silent == []
    assert all(len(row["reason"]) > 20 for row in rows if "reason" in row or "ours" not in row)


@every_table
def test_every_setting_is_in_the_table_or_is_said_to_be_of_no_account(name: str) -> None:
    rows, unset = TABLES[name]["rows"], TABLES[name]["unset"]
    named = {row["ours"] for row in rows if "ours" in row}
    settings = settings_of(name)
    assert named <= set(settings)
    missing = [key for key in settings if key not in named and not any(fnmatch.fnmatch(key, glob) for glob in unset)]
    assert missing == []


@every_table
def test_the_command_as_printed_shows_the_published_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--preset", name, "--prompt", "a corgi", "--dry-run"]) == 0
    printed = flatten(yaml.safe_load(capsys.readouterr().out))
    rows = [row for row in TABLES[name]["rows"] if "ours" in row]
    other = {row["ours"] for row in rows if not is_published(row, printed)}
    assert other <= {row["ours"] for row in rows if "reason" in row}
    # Nothing is printed that the table does not judge, and nothing of the table is left out.
    known = {row["ours"] for row in rows}
    assert known <= printed.keys()
    assert all(key in known or any(fnmatch.fnmatch(key, glob) for glob in TABLES[name]["unset"]) for key in printed)
    assert list(tmp_path.iterdir()) == []


@every_table
def test_few_settings_differ(name: str) -> None:
    settings = settings_of(name)
    rows = [row for row in TABLES[name]["rows"] if "ours" in row]
    differing = [row["ours"] for row in rows if not is_published(row, settings)]
    # Names of the same thing, nulls that mean the published value, numbers that are not used, and the rest.
    assert len(differing) <= {"sdi-paper-ngp": 8, "sdi-paper-3dgs": 15, "mvdream": 9}[name], differing


def test_a_setting_that_is_changed_is_found() -> None:
    row = next(row for row in TABLES["sdi-paper-ngp"]["rows"] if row.get("ours") == "guidance.t_min")
    assert not is_same(0.2, row["published"])
    assert not is_same(0.25000001, row["published"])
    assert not is_same(False, 0)
    assert not is_same([1.5, 2.1], [1.5, 2.0])
