"""`sdi-gs train` from its options to its files, and the preset that it chooses."""

from __future__ import annotations

import json
from pathlib import Path

import plyfile
import pytest
import yaml
from command_line import QUICK, SMOKE, files_in

from sdi_gs.commands.defaults import CPU_PRESET
from sdi_gs.commands.main import main


def test_a_run_leaves_its_files_and_says_where(run: Path) -> None:
    names = set(files_in(run))
    assert {"config.yaml", "steps.jsonl", "splats.ply", "turntable.mp4", "contact_sheet.png", "summary.json"} <= names
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["config"] == yaml.safe_load((run / "config.yaml").read_text())
    assert summary["config"]["gaussians"]["num_initial"] == 200
    # plyfile is the oracle of what the file holds.
    vertices = plyfile.PlyData.read(run / "splats.ply")["vertex"]
    assert len(vertices) == summary["n_exported"] > 0


def test_a_run_starts_from_an_object_that_another_run_made(run: Path, here: Path) -> None:
    options = ["--steps", "1", "--init", "splats", "--init-from", str(run / "splats.ply"), "--output-dir", "again"]
    assert main([*SMOKE, *QUICK, *options]) == 0
    started_from = len(plyfile.PlyData.read(run / "splats.ply")["vertex"])
    assert json.loads((here / "again/summary.json").read_text())["n_gaussians"] == started_from


def test_a_run_by_cameras_says_so_and_differs_from_one_by_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--ideal-prior.renders-per-window", "8", "--ideal-prior.elevation-window-deg", "50", "--steps", "2"]
    clouds = []
    for views in ("words", "cameras"):
        assert main([*SMOKE, *QUICK, *few, "--guidance.views", views, "--output-dir", views]) == 0
        assert {"words": "told the view in words", "cameras": "told the camera"}[views] in capsys.readouterr().err
        clouds.append((here / views / "splats.ply").read_bytes())
    assert clouds[0] != clouds[1]


@pytest.mark.parametrize(
    ("options", "preset"),
    [
        ([], CPU_PRESET),
        (["--prior", "toybox-ideal"], "toybox-ideal"),
        (["--prior", "toybox"], "toybox"),
        (["--prior", "some/folder"], "sd21-base"),
        (["--preset", "smoke"], "smoke"),
    ],
    ids=["nothing", "exact prior", "trained prior", "folder", "preset"],
)
def test_the_preset_follows_from_the_prior_and_the_choice_is_told(
    options: list[str], preset: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Refused for its prompt or its prior, after the choice was told.
    assert main(["train", "--prompt", "a blue dragon", "--device", "cpu", *options]) == 2
    told = capsys.readouterr().err.splitlines()[0]
    assert f"preset {preset}" in told
    assert "device cpu: as asked" in told


def test_without_a_device_of_cuda_the_toybox_prior_is_chosen_and_called_an_instrument(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    main(["train", "--prompt", "a blue dragon"])
    told = capsys.readouterr().err.splitlines()[0]
    assert told == (
        f"prior {CPU_PRESET} (an instrument: it knows 16 toy objects), told the camera, preset {CPU_PRESET}, "
        "device cpu: no CUDA device found"
    )


@pytest.mark.parametrize("option", ["--prior", "--preset"])
def test_the_trained_toybox_prior_is_called_an_instrument_too(
    option: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["train", "--prompt", "a blue dragon", "--device", "cpu", option, "toybox"])
    told = capsys.readouterr().err.splitlines()[0]
    begins = "prior toybox (an instrument: it knows 16 toy objects), told the view in words, preset toybox "
    assert told.startswith(begins)


def test_with_cuda_stable_diffusion_is_chosen(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a card")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (11 * 2**30, 12 * 2**30))
    main(["train", "--prompt", ""])
    tier, told = capsys.readouterr().err.splitlines()[:2]
    assert tier.startswith("tier 24 for 11.0 GiB of free memory: ")
    assert told.startswith("prior sd21-base (")
    assert told.endswith("preset sd21-fast, device cuda: found a card")
