"""The comparison of two-object prompts: its table, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import two_objects

from sdi_gs.toybox.sheet import PAIRS


def row(arm: str, prompt: str, **changes: Any) -> dict[str, Any]:
    scores: dict[str, Any] = {"bound": True, "colours_swapped": False, "relation_right": True, "psnr_free": 30.0}
    scores |= {f"{name}_judge_{what}": 1.0 for name in ("first", "second") for what in ("class", "colour")}
    return {"arm": arm, "prompt": prompt, "seed": 0, "iou_free": 0.9, "loop_cpu_seconds": 10.0, **scores, **changes}


def test_shares_are_over_runs_by_arm_and_by_relation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("sds", prompt) for prompt in PAIRS] + [row("sdi", PAIRS[0], bound=False, first_judge_class=0.5)]
    rows[7] |= {"relation_right": False, "psnr_free": 22.0}
    for number in (1, 2):
        lines = [f"{json.dumps(item)}\n" for item in rows[number - 1 :: 2]]
        (tmp_path / f"runs-{number}.jsonl").write_text("".join(lines))
    two_objects.main(["table", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| sds | 8 | 100% | 0% | 88% | 1.00, 1.00 | 29.0 | 0.900 | 10 |" in printed
    assert "| sds: behind | 2 | 100% | 0% | 50% |" in printed
    assert "| sdi | 1 | 0% | 0% | 100% | 0.75, 1.00 |" in printed


def test_runs_with_a_line_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, int]] = []
    monkeypatch.setattr(two_objects, "shared_by", lambda config: None)

    def train(config: Any, picture: Path, **_: Any) -> dict[str, Any]:
        made.append((config.guidance.noise, config.prompt, config.seed))
        return {"prompt": config.prompt, "seed": config.seed}

    monkeypatch.setattr(two_objects, "train_and_score", train)
    (tmp_path / "runs-1.jsonl").write_text(f"{json.dumps({'arm': 'sds', 'prompt': PAIRS[0], 'seed': 0})}\n")
    arguments = ["run", "--out", str(tmp_path), "--arm", "sds", "--arm", "sdi", "--shard", "1/8"]
    two_objects.main(arguments)
    assert made == [("random", PAIRS[0], 1), ("inversion", PAIRS[0], 0), ("inversion", PAIRS[0], 1)]
    two_objects.main(arguments)
    assert len(made) == 3
