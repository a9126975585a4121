"""The gallery's bars, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gallery
import pytest
from gallery import ROWS, Bar, bar_table, figure, plan_runs, run_table, verdicts

from sdi_gs.configs.presets import preset
from sdi_gs.settings.run import RunConfig


def test_a_bar_is_met_on_its_side() -> None:
    assert [Bar(figure="detail", limit=0.6).passes(value) for value in (0.59, 0.6, 0.61)] == [False, True, True]
    seconds = Bar(figure="loop_cpu_seconds", limit=25.0, at_most=True)
    assert [seconds.passes(value) for value in (24.0, 25.0, 26.0)] == [True, True, False]
    assert (seconds.words, Bar(figure="detail", limit=0.6).words) == ("loop_cpu_seconds ≤ 25", "detail ≥ 0.6")


def test_figures_are_means_or_minima_of_the_runs_that_have_them() -> None:
    rows = [{"iou_free": 0.9, "judge_view": None}, {"iou_free": 0.8, "judge_view": 1.0}]
    assert figure(rows, "iou_free") == pytest.approx(0.85)
    assert figure(rows, "lowest iou_free") == 0.8
    assert figure(rows, "judge_view") == 1.0
    assert figure(rows, "detail") is None


def test_every_bar_is_told_passed_or_failed() -> None:
    rows = [{"psnr_free": 28.0, "iou_free": 0.95, "detail": 0.5, "loop_cpu_seconds": 20.0}]
    told = {found["bar"]: found["passes"] for found in verdicts("ideal", rows)}
    assert told == {
        "psnr_free ≥ 27": True,
        "iou_free ≥ 0.94": True,
        "lowest iou_free ≥ 0.85": True,
        "detail ≥ 0.6": False,
        "loop_cpu_seconds ≤ 25": True,
    }
    assert not any(found["passes"] for found in verdicts("network", []))
    assert "| toybox-ideal, the default | 1 | detail ≥ 0.6 | 0.5 | **fail** |" in bar_table({"ideal": rows})


def test_rows_are_the_defaults_with_their_one_change(tmp_path: Path) -> None:
    runs = plan_runs(list(ROWS), tmp_path, ["a blue robot", "a red ball"], {"steps": 3})
    assert [run.row for run in runs] == ["ideal"] * 4 + ["network"] * 4 + ["ngp"] * 2 + ["fit"] * 2
    assert {(run.config.prior, run.config.representation) for run in runs if run.row == "ngp"} == {
        ("toybox-ideal", "ngp")
    }
    assert len({run.result for run in runs}) == len(runs)
    assert all(run.config.steps == 3 for run in runs)
    # The preset's own values for the representation, as the command line takes them.
    field = preset("toybox-ideal", prompt="a red ball", representation="ngp", steps=3)
    assert runs[9].config == field
    assert field.guidance.views == "cameras"


def test_kept_results_are_not_made_again_nor_mixed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[RunConfig] = []

    def pretend(config: RunConfig, picture: Path) -> dict[str, Any]:
        made.append(config)
        scores = {"psnr_free": 26.0, "iou_free": 0.93, "detail": 0.4, "loop_cpu_seconds": 30.0}
        return {"prompt": config.prompt, "seed": config.seed, **scores}

    monkeypatch.setattr(gallery, "train_and_score", pretend)
    options = ["gallery.py", "--results", str(tmp_path), "--rows", "ngp", "--prompts", "a red ball", "a blue mug"]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", options)
        gallery.main()
    assert [config.prompt for config in made] == ["a red ball", "a blue mug"]
    assert "| --representation ngp, its default | 2 | psnr_free ≥ 25 | 26 | pass |" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*options, "--set", "steps=5"])
    with pytest.raises(SystemExit, match="made with another steps"):
        gallery.main()


@pytest.mark.parametrize(("noise", "mixed"), [("random", False), ("inversion", True)])
def test_settings_of_the_inversion_matter_where_something_is_inverted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str, mixed: bool
) -> None:
    monkeypatch.setattr(gallery, "train_and_score", lambda config, picture: {"psnr_free": 26.0})
    before, after = (
        plan_runs(["ideal"], tmp_path, ["a red ball"], {"guidance.noise": noise, "guidance.inversion_steps": steps})[0]
        for steps in (5, 6)
    )
    gallery.make(before)
    if mixed:
        with pytest.raises(SystemExit, match=r"made with another guidance\.inversion_steps"):
            gallery.kept(after)
    else:
        assert gallery.kept(after) == {"psnr_free": 26.0}


def test_the_table_of_runs_leaves_out_what_no_run_has() -> None:
    rows = [{"prompt": "a red ball", "seed": 0, "psnr_free": 26.04, "judge_view": None}]
    assert run_table("ideal", rows).splitlines()[0] == "| prompt | seed | PSNR |"
    assert run_table("ideal", rows).splitlines()[-1] == "| a red ball | 0 | 26.0 |"
