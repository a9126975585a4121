"""What a command line is refused for: one line, exit code 2, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import SMOKE, files_in, refusal

from sdi_gs.commands.main import main
from sdi_gs.runs.export_formats import export_formats

FORMAT_NAMES = ", ".join(row.name for row in export_formats())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Expected one of {train, batch, batch-status, study, render, view, export, eval, doctor, priors, probe}"),
        (["trian"], "trian; Available subcommands: train"),
        (["train"], "the prompt is empty"),
        (["train", "--prompt", "  "], "the prompt is empty"),
        (["train", "--prompt", "a blue dragon"], '"dragon"'),
        (["train", "--prompt", "a blue robot", "--preset", "nix"], 'unknown preset "nix"; known: toybox-ideal'),
        (["train", "--prompt", "a blue robot", "--prior", "nix"], "prior 'nix' is unknown"),
        (["train", "--prompt", "a blue robot", "--stepz", "3"], "did you mean --steps? (see sdi-gs train --help)"),
        (["train", "--prompt", "a blue robot", "--guidance.tmin", "3"], "did you mean --guidance.t-min?"),
        (["train", "--prompt", "a blue robot", "--steps", "many"], "--steps"),
        (["train", "--prompt", "a blue robot", "--steps", "0"], "steps must be 1 to 10000000, got 0"),
        (["train", "--prompt", "a blue robot", "--guidance.t-min", "2"], "guidance: t_min must be 0.001 to 1, got 2.0"),
        (["train", "--prompt", "a blue robot", "--noise", "pink"], "('inversion', 'random', "),
        (["train", "--prompt", "a blue robot", "--guidance.views", "poses"], "('words', 'cameras')"),
        (
            ["train", "--prompt", "a blue robot", "--prior", "toybox", "--guidance.views", "cameras"],
            "guidance.views cameras needs a prior that knows cameras, and toybox knows view words only: "
            "use --guidance.views words, or another prior (sdi-gs priors lists which know cameras)",
        ),
        (
            ["train", "--prompt", "a robot", "--prior", "own/er", "--device", "cpu", "--guidance.no-perp-neg"]
            + ["--guidance.views", "cameras"],
            "and own/er knows view words only",
        ),
        (
            ["train", "--prompt", "a blue robot", "--guidance.views", "cameras", "--guidance.perp-neg"],
            "perp_neg blends view words, and with views cameras there are none: use views words, or no perp_neg",
        ),
        (
            ["train", "--prompt", "a mug", "--guidance.views", "cameras", "--view-prompts.back", "coffee"],
            "view_prompts replace view words; with guidance.views cameras there are none: use words",
        ),
        (
            ["train", "--prompt", "a mug, side view", "--preset", "smoke", "--guidance.views", "cameras"],
            '"a mug, side view" names the side view, but with guidance.views cameras',
        ),
        (
            ["train", "--prompt", "a mug", "--guidance.views", "cameras", "--cameras.distance", "2.6", "3.3"],
            "cameras.distance must be within toybox-ideal's renders, 3.3 to 3.3, got 2.6 to 3.3: change it, or ideal_p",
        ),
        (
            ["train", "--prompt", "a mug", "--ideal-prior.azimuth-window-deg", "2"],
            "ideal_prior: azimuth_window_deg must be 5 to 360, got 2.0",
        ),
        (
            ["train", "--prompt", "a blue robot", "--device", "cpu", "--compute.cuda-graphs"],
            "--compute.cuda-graphs needs a CUDA device, and this run computes on cpu: leave it out",
        ),
        (
            ["train", "--prompt", "a blue robot", "--device", "cpu", "--representation", "ngp"]
            + ["--compute.field-kernels", "triton"],
            "--compute.field-kernels triton needs a CUDA device, and this run computes on cpu: use auto or torch",
        ),
        (["train", "--prompt", "a blue robot", "--init", "cube"], "--init"),
        (
            ["train", "--prompt", "a blue robot", "--gaussians.init-axes", "y-up"],
            "--gaussians.init-axes has no effect without a file to start from: add --init-from FILE, or leave it out",
        ),
        (
            ["train", "--prompt", "a blue robot", "--init", "shell", "--gaussians.init-fit", "False"],
            "--gaussians.init-fit has no effect without a file to start from",
        ),
        (["train", "--prompt", "a blue robot", "--init", "mesh"], "init 'mesh' needs init_from"),
        (
            ["train", "--prompt", "a blue robot", "--init", "ball", "--init-from", "a.ply"],
            "init ball does not start from a file",
        ),
        (["train", "--prompt", "a blue robot", "--init-from", "a.ply"], "there is no such file or run"),
        (
            ["train", "--prompt", "a blue robot", "--init", "points", "--init-from", "a.ply"],
            "start from a.ply: there is",
        ),
        (
            ["train", "--prompt", "a blue robot", "--densify.enabled", "--densify.max-gaussians", "5999"],
            "6000 Gaussians",
        ),
        (
            ["train", "--prompt", "a blue robot", "--representation", "ngp", "--init-from", "."],
            "a field starts from nothing, not from .:",
        ),
        (["train", "--prompt", "a blue robot", "--two-stage", "--steps", "1"], "1 steps are too few for two stages"),
        (
            ["train", "--prompt", "a blue robot", "--two-stage", "--stages.field-share", "1"],
            "field_share must be above 0",
        ),
        (["train", "--prompt", "a blue robot", "--two-stage", "--init", "shell"], "leave --init and --init-from out"),
        (["train", "--two-stage", "--resume", "nowhere", "--preset", "smoke"], "--two-stage does not go with --resume"),
        (["train", "--prompt", "a blue robot", "--viewer", "--viewer-port", "70000"], "0 to 65535, got 70000"),
        (["train", "--prompt", "a blue robot", "--viewer", "--viewer-host", "203.0.113.7"], "cannot listen on 203.0"),
        (["view", "nowhere"], "nowhere does not exist"),
        (["view", "nowhere", "--port", "-1"], "port must be 0 to 65535, got -1"),
        (["train", "--prompt", "a blue robot", "--device", "abacus"], "'abacus'"),
        (["train", "--prompt", "a blue robot", "--device", "cuda:63"], "use --device cpu"),
        (["train", "--resume", "nowhere"], "there is no such folder"),
        (["render", "nowhere"], "nowhere does not exist"),
        (["render", "nowhere", "--size", "4"], "size must be 16 to 4096, got 4"),
        (["render", "nowhere", "--size", "4096", "--views", "256"], "must fit into memory"),
        (["render"], "RUN|FILE"),
        (["export", "nowhere", "--out", "a.ply", "--format", "splat"], "ends in .ply, and format splat is written as"),
        (["export", "nowhere", "--out", "a"], "the name a leaves the format open"),
        (["export", "nowhere", "--out", "a.splat", "--mesh.level", "3"], "not for format splat"),
        (["export", "nowhere"], "nowhere does not exist"),
        (["export", "nowhere", "--format", "stl"], f"format stl: choose one of {FORMAT_NAMES}"),
        (["export", "nowhere", "--format", "glb", "--mesh.resolution", "8"], "resolution must be 16 to 512, got 8"),
        (["export", "nowhere", "--format", "glb", "--mesh.level", "-1"], "level must be above 0 and at most 1000000"),
        (["export", "nowhere", "--mesh.level", "3"], "--mesh.* options are for meshes, not for format ply"),
        (["eval", "nowhere", "--draws", "0"], "draws must be 1 to 4096, got 0"),
        (["eval", "nowhere", "--metrics", "ssim"], "unknown metric ssim: choose one of truth, judge, fronts, ceiling"),
        (["priors", "fetch"], "fetch needs a name"),
        (["priors", "fetch", "nix"], "prior 'nix' is unknown: use toybox-ideal, toybox, sd21-base, sd21"),
        (["priors", "list", "nix"], "prior 'nix' is unknown"),
        (["priors", "list", "."], "lacks its tokenizer (no tokenizer/tokenizer.json)"),
        (["train", "--prompt", "a robot", "--prior", ".", "--device", "cpu"], "lacks its tokenizer"),
        (["priors", "burn"], "burn"),
        (["probe"], "--prompt"),
        (["probe", "--prompt", "a blue robot", "--views", "0"], "views must be 1 to 64, got 0"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    arguments: list[str], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal(arguments, capsys)
    assert list(here.iterdir()) == []


def test_an_output_folder_that_exists_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    (here / "mine/notes").write_text("mine")
    for kind in ([], ["--two-stage"]):
        assert "never overwritten" in refusal([*SMOKE, *kind, "--output-dir", "mine"], capsys)
    assert files_in(here) == {"mine/notes": b"mine"}


@pytest.mark.parametrize("option", [["init-axes", "y-up"], ["init-fit", "False"]], ids=" ".join)
def test_what_a_start_from_a_run_keeps_cannot_be_given(
    option: list[str], run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--gaussians." + option[0], option[1]]
    says = f"--gaussians.{option[0]} has no effect on a run to start from, whose axes and size are kept"
    for start in (run, run / "checkpoints/step_000006"):
        capsys.readouterr()
        assert says in refusal([*SMOKE, "--init-from", str(start), *asked], capsys)
    # A file has axes and a size of its own.
    assert "there is no such file" in refusal([*SMOKE, "--init-from", "a.ply", *asked], capsys)
    assert files_in(here) == {}


def test_words_of_a_message_are_not_broken_by_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    word = "--" + "x" * 60
    assert word in refusal(["train", word], capsys)
    assert os.environ["COLUMNS"] == "40"


@pytest.mark.parametrize("two_stage", [False, True])
def test_more_kept_targets_than_fit_are_refused_before_the_first_step(
    two_stage: bool, monkeypatch: pytest.MonkeyPatch, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sdi_gs.runs.kept_targets.free_bytes", lambda device: 2**20)
    replay = ["--replay.steps-per-target", "2", "--replay.views", "40", "--losses.space", "pixels", "--steps", "100"]
    if two_stage:
        capsys.readouterr()
        assert main([*SMOKE, *replay, "--two-stage"]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
    else:
        said = refusal([*SMOKE, *replay], capsys)
    # 60 KiB each, in half a MiB.
    assert "replay.views 40 is too many" in said
    assert "give 8 or fewer" in said
    assert files_in(here) == {}
