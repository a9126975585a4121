"""The presets that bear the paper's name, from the command to the exported file.

They run under a random model of toy size in Stable Diffusion 2.1's layout, with CLIP's own words. What is smaller than
published is so for the time of a CPU, and is all in ``SHRUNK``; everything else is the preset's.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small_runs import BYTES_THAT_REPEAT, assert_same_results, without_its_end
from tiny_pipeline import SCHEDULERS, write_model

from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.runs.checkpoint import list_checkpoints, load_checkpoint
from sdi_gs.runs.checkpoint_contents import state_of
from sdi_gs.runs.folder import RunFolder
from sdi_gs.settings.tree import config_from_dict, differing_keys

STEPS = 20
SHRUNK: dict[str, dict[str, str]] = {
    "sdi-paper-ngp": {
        # Of 2^19: with their moments the published tables take 200 MB, and most of a step.
        "ngp.grid.log2_table_size": "12",
        # Of 512 along the diagonal.
        "ngp.samples_per_ray": "64",
    },
    "sdi-paper-3dgs": {
        # Of 100 000.
        "gaussians.num_initial": "1500",
        # Of 100 and 300 among 5000 steps, so that 20 steps see growth and a reset.
        "densify.every": "4",
        "densify.reset_opacity_every": "8",
    },
}
# Of any run, and no part of what was published: files, not results.
OUTPUTS = {
    "outputs.checkpoint_every": "10",
    "outputs.preview_every": "10",
    "outputs.turntable_frames": "2",
    "outputs.turntable_size": "32",
}


def options(name: str) -> list[str]:
    changes = SHRUNK[name] | OUTPUTS
    return [part for key, value in changes.items() for part in (f"--{key.replace('_', '-')}", value)]


@pytest.fixture(scope="module", params=list(SHRUNK))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a preset, in a folder of its name; nobody writes to it."""
    folder = tmp_path_factory.mktemp("paper")
    with torch.random.fork_rng():
        model = write_model(folder / "model", SCHEDULERS["epsilon"], words=True)
    given = ["--prior", str(model), "--prompt", "a corgi", "--steps", str(STEPS), "--device", "cpu"]
    out = ["--output-dir", str(folder / request.param)]
    assert main(["train", "--preset", request.param, *given, *options(request.param), *out]) == 0
    return folder / request.param


def test_it_runs_as_published_but_for_what_is_listed(run: Path) -> None:
    name = run.name
    ran = config_from_dict(yaml.safe_load((run / "config.yaml").read_text()))
    changed = set(differing_keys(ran, preset(name, prompt="a corgi")))
    assert changed == {"prior", "steps", *SHRUNK[name], *OUTPUTS}
    steps = RunFolder(run).read_steps()
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    # t falls evenly from 0.98 of 1000 timesteps to the published end, which it reaches after the last step.
    end = {"sdi-paper-ngp": 250, "sdi-paper-3dgs": 100}[name]
    even = [980 + (end - 980) * index / STEPS for index in range(STEPS)]
    assert [step["t"] for step in steps] == pytest.approx(even, abs=1.0)
    assert json.loads((run / "summary.json").read_text())["step"] == STEPS


def test_all_its_terms_are_in_the_loss(run: Path) -> None:
    published = {
        "sdi-paper-ngp": {"distillation", "orientation", "sparsity", "opaqueness", "z_variance", "convexity"},
        "sdi-paper-3dgs": {"distillation", "picture_tv", "depth_tv", "mean_scale"},
    }[run.name]
    steps = RunFolder(run).read_steps()
    assert set().union(*(step["losses"] for step in steps)) == published


def test_gaussians_grow(run: Path) -> None:
    counts = {step["n_gaussians"] for step in RunFolder(run).read_steps()}
    assert counts == {0} if run.name == "sdi-paper-ngp" else max(counts) > min(counts)


def test_a_stopped_run_goes_on_with_the_same_bits(run: Path, tmp_path: Path) -> None:
    stopped = without_its_end(run, tmp_path / run.name)
    assert main(["train", "--resume", str(stopped), "--device", "cpu"]) == 0
    files = [file for file in BYTES_THAT_REPEAT if run.name == "sdi-paper-3dgs" or file != "splats.ply"]
    assert_same_results(RunFolder(run), RunFolder(stopped), files)


def test_it_moves_every_parameter(run: Path) -> None:
    start = "ngp/params/" if run.name == "sdi-paper-ngp" else "gaussians/"
    first, last = (load_checkpoint(path).tensors for path in list_checkpoints(RunFolder(run).checkpoints))
    params = [key for key in last if key.startswith(start)]
    assert len(params) >= 5
    still = [key for key in params if first[key].shape == last[key].shape and torch.equal(first[key], last[key])]
    assert still == []


# First and last learning rate, betas and epsilon of each optimiser, from the published files in this project's units.
OPTIMISERS: dict[str, dict[str, tuple[float, float, list[float], float]]] = {
    "sdi-paper-ngp": {
        "field": (0.01, 0.01, [0.9, 0.99], 1e-15),
        "environment": (0.001, 0.001, [0.9, 0.99], 1e-15),
    },
    "sdi-paper-3dgs": {
        "means": (1.6e-4 * 3.5, 1.6e-6 * 3.5, [0.9, 0.999], 1e-15),
        "scales": (0.005, 0.001, [0.9, 0.999], 1e-15),
        "quats": (0.001, 0.0002, [0.9, 0.999], 1e-15),
        "opacities": (0.05, 0.05, [0.9, 0.999], 1e-15),
        "sh0": (0.005, 0.003, [0.9, 0.999], 1e-15),
    },
}


def test_its_optimisers_are_the_published_ones(run: Path) -> None:
    # The first step has the first rate and the last one the last; these are saved after steps 10 and 20.
    for path, progress in zip(list_checkpoints(RunFolder(run).checkpoints), (9 / 19, 1.0), strict=True):
        saved = state_of(load_checkpoint(path))["optimizers"]
        groups = {name: optimizer["param_groups"] for name, optimizer in saved.items()}
        found = {name: (group["lr"], list(group["betas"]), group["eps"]) for name, [group] in groups.items()}
        expected = {
            name: (pytest.approx(first * (last / first) ** progress, rel=1e-9), betas, eps)
            for name, (first, last, betas, eps) in OPTIMISERS[run.name].items()
        }
        assert found == expected


def test_it_is_rendered_and_exported(run: Path, tmp_path: Path) -> None:
    field = run.name == "sdi-paper-ngp"
    small = ["--frames", "2", "--views", "2", "--size", "32", "--device", "cpu"]
    assert main(["render", str(run), *small, "--out", str(tmp_path / "pictures")]) == 0
    sheet = Image.open(tmp_path / "pictures" / "contact_sheet.png")
    assert np.asarray(sheet.convert("L")).std() > 0.0
    out = tmp_path / ("corgi.glb" if field else "corgi.splat")
    mesh = ["--mesh.resolution", "16", "--mesh.level", "2"] if field else []
    assert main(["export", str(run), "--out", str(out), *mesh]) == 0
    assert out.stat().st_size > 500
