"""Runs under a prior of four views, from the command to every exported format (their page: tests/viewer).

They run under a random model of toy size in the layout that MVDream's file is converted to. What is smaller than in the
presets is so for the time of a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_runs import BYTES_THAT_REPEAT, assert_same_results, without_its_end
from tiny_pipeline import SCHEDULERS, write_model

from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.runs.export_formats import export_formats
from sdi_gs.runs.folder import RunFolder
from sdi_gs.settings.tree import config_from_dict, differing_keys

STEPS = 20
SMALLER: dict[str, dict[str, Any]] = {
    "mvdream-sdi": {"gaussians.num_initial": 300},
    "mvdream": {"ngp.grid.log2_table_size": 12, "ngp.samples_per_ray": 64, "render.sizes": (16, 64)},
}
OUTPUTS = {
    "outputs.checkpoint_every": 10,
    "outputs.preview_every": 10,
    "outputs.turntable_frames": 2,
    "outputs.turntable_size": 32,
}


def options(name: str) -> list[str]:
    words = []
    for key, value in (SMALLER[name] | OUTPUTS).items():
        words += [f"--{key.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    with torch.random.fork_rng():
        return write_model(folder, SCHEDULERS["epsilon"], words=True, four_views=True)


@pytest.fixture(scope="module", params=list(SMALLER))
def run(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a preset, in a folder of its name; nobody writes to it."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    given = ["--prior", str(model), "--prompt", "a corgi", "--steps", str(STEPS), "--device", "cpu"]
    assert main(["train", "--preset", folder.name, *given, *options(folder.name), "--output-dir", str(folder)]) == 0
    return folder


def test_it_is_the_presets_run_but_for_its_sizes(run: Path) -> None:
    ran = config_from_dict(yaml.safe_load((run / "config.yaml").read_text()))
    changed = set(differing_keys(ran, preset(run.name, prompt="a corgi")))
    assert changed == {"prior", "steps", *SMALLER[run.name], *OUTPUTS}
    steps = RunFolder(run).read_steps()
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    if run.name == "mvdream":
        assert set().union(*(step["losses"] for step in steps)) == {"distillation"}
        for index, step in enumerate(steps):
            progress = min(index / (0.8 * STEPS), 1.0)
            low, high = (int(1000 * (0.98 + (end - 0.98) * progress)) for end in (0.02, 0.5))
            assert low <= step["t"] <= high
    losses = [step["losses"]["distillation"] for step in steps]
    assert losses[-1] < 0.1 * losses[0]


def test_a_stopped_run_goes_on_with_the_same_bits(run: Path, tmp_path: Path) -> None:
    stopped = without_its_end(run, tmp_path / run.name)
    assert main(["train", "--resume", str(stopped), "--device", "cpu"]) == 0
    files = [file for file in BYTES_THAT_REPEAT if run.name == "mvdream-sdi" or file != "splats.ply"]
    assert_same_results(RunFolder(run), RunFolder(stopped), files)


def test_it_is_exported_in_every_format(run: Path, tmp_path: Path) -> None:
    # Two names end in .ply, and two in .glb.
    apart = {"ply-mesh": "mesh.ply", "gltf-splats": "splats.glb"}
    mesh = ["--mesh.resolution", "16", "--mesh.level", "2"]
    fit = [] if run.name == "mvdream-sdi" else ["--fit-steps", "2"]
    together = [row.name for row in export_formats() if row.name not in apart]
    for formats, name, more in (
        (together, "corgi", [*mesh, *fit]),
        (["ply-mesh"], "mesh.ply", mesh),
        (["gltf-splats"], "splats.glb", fit),
    ):
        assert main(["export", str(run), "--format", *formats, "--out", str(tmp_path / name), *more]) == 0
    found = {path.name for path in tmp_path.iterdir()}
    assert found >= {apart.get(row.name, f"corgi{row.suffix or '-inria'}") for row in export_formats()}
    assert all(path.stat().st_size > 100 for path in tmp_path.iterdir() if path.is_file())
