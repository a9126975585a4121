"""The model card: figures come from measurements, and the words around them stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toybox_training.card import BEGIN, END, curve_table, markdown_table, update_card

from sdi_gs.errors import UserError

SCORES: dict[str, Any] = {
    "vae": {"psnr": 33.26, "object_psnr": 27.1, "colour_error": {"red": 0.0123, "blue": 0.02}},
    "samples": {
        "seen": {"1": {"class": 0.5, "colour": 0.25, "view": 1.0}, "7.5": {"class": 0.9, "colour": 0.8, "view": 0.7}},
        "held_out": {"1": {"class": 0.1, "colour": 0.2, "view": 0.3}, "7.5": {"class": 0.4, "colour": 0, "view": 0.6}},
    },
    "samples_per_cell": 208,
    "ddim_steps": 30,
    "bytes": {"unet": 13_000_000, "vae": 2_500_000},
    "parameters": {"unet": 6_500_000, "vae": 1_250_000},
}
LOG = [
    {"step": 50, "cpu_seconds": 30.0, "loss": 1.0},
    {"step": 100, "cpu_seconds": 60.0, "held_out": {"psnr": 21.04, "by_colour": {"red": 1.0}}},
    {"step": 200, "cpu_seconds": 120.0, "held_out": {"psnr": 30.46, "by_colour": {"red": 1.0}}},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "progress.jsonl").write_text("\n".join(map(json.dumps, LOG)))
    return folder


def test_tables_replace_what_stood_between_the_markers(tmp_path: Path, run: Path) -> None:
    card, assessment = tmp_path / "card.md", tmp_path / "assessment.json"
    card.write_text(f"# Card\n{BEGIN}\nold figures\n{END}\nLimits.\n")
    assessment.write_text(json.dumps(SCORES))
    update_card(card, assessment, {"VAE": run})
    text = card.read_text()
    assert text.startswith("# Card\n")
    assert text.endswith(f"{END}\nLimits.\n")
    assert "old figures" not in text
    for figure in ("33.3 dB", "27.1 dB", "| red | 1.2 % |", "6.50 M | 13.0 MB", "15.5 MB", "208 samples"):
        assert figure in text
    assert "| 7.5 | 90 % | 80 % | 70 % | 40 % | 0 % | 60 % |" in text
    update_card(card, assessment, {"VAE": run})
    assert card.read_text() == text


def test_a_curve_holds_the_measured_steps_only(run: Path) -> None:
    assert curve_table(run).splitlines()[0] == "| step | CPU minutes | held out psnr |"
    assert curve_table(run).splitlines()[2:] == ["| 100 | 1 | 21 |", "| 200 | 2 | 30.5 |"]


def test_a_table_is_markdown() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_what_is_missing_is_said(tmp_path: Path, run: Path) -> None:
    card, assessment = tmp_path / "card.md", tmp_path / "assessment.json"
    card.write_text("# Card\n")
    with pytest.raises(UserError, match="assessment.json is not there"):
        update_card(card, assessment, {})
    assessment.write_text(json.dumps(SCORES))
    with pytest.raises(UserError, match="lacks the lines"):
        update_card(card, assessment, {"VAE": run})
    (run / "progress.jsonl").write_text(json.dumps(LOG[0]))
    with pytest.raises(UserError, match="no measurement yet"):
        curve_table(run)
