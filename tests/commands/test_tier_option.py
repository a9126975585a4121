"""``train --tier`` on the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdi_gs.commands.main import _parse, main
from sdi_gs.commands.options import Train
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import tier_named

START = ["train", "--prompt", "a blue robot", "--preset", "smoke", "--device", "cpu"]


def parsed(*options: str) -> RunConfig:
    command, _ = _parse([*START, *options])
    assert isinstance(command, Train)
    return command.config


def test_on_a_cpu_nothing_is_chosen() -> None:
    assert parsed().compute == parsed("--tier", "none").compute == ComputeConfig()


def test_a_named_tier_sets_what_the_command_leaves_open() -> None:
    tier = tier_named("8").compute
    assert parsed("--tier", "8").compute == tier
    assert parsed("--tier", "8", "--compute.views-at-once", "3").compute == replace(tier, views_at_once=3)


def test_an_unknown_tier_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*START, "--tier", "10"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--tier" in said
    assert "'12'" in said or "12" in said
