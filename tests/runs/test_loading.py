"""Scenes loaded from runs, checkpoints and files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from sdi_gs.errors import UserError
from sdi_gs.representations.initial_gaussians import kind_of_start
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loading import load
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.splats.contents import Contents, contents_of


def test_a_run_is_loaded_from_its_latest_checkpoint_and_its_file_holds_the_same(whole: RunFolder) -> None:
    from_run, from_file = load(whole.path), load(whole.splats)
    assert from_run.run is not None
    assert from_run.run.step == 8
    assert from_run.prompt == "a blue robot"
    assert from_file.run is None
    assert from_file.prompt is None
    run_splats, file_splats = from_run.splats(), from_file.splats()
    assert len(run_splats) == len(file_splats)
    for name, atol in (("means", 1e-6), ("log_scales", 0.0), ("opacity_logit", 0.0), ("sh_dc", 0.0)):
        left, right = getattr(run_splats, name), getattr(file_splats, name)
        torch.testing.assert_close(left, right, rtol=0.0, atol=atol)


@pytest.mark.parametrize("file", ["", "tensors.safetensors", "checkpoint.json"])
def test_a_checkpoint_that_is_named_is_the_one_that_is_loaded(whole: RunFolder, file: str) -> None:
    named = load(whole.checkpoints / "step_000006" / file)
    assert named.run is not None
    assert named.run.step == 6
    assert named.prompt == "a blue robot"
    assert named.run.folder.path.samefile(whole.path)
    last = load(whole.path).splats()
    assert not torch.equal(named.splats().means, last.means)


def test_a_checkpoint_outside_its_run_is_refused(whole: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(whole.checkpoints / "step_000006", tmp_path / "step_000006")
    with pytest.raises(UserError, match="is not a run: it has no config.yaml"):
        load(tmp_path / "step_000006")


def test_what_is_no_source_of_splats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist: give a run folder, a checkpoint of one, a \.ply"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not a run"):
        load(tmp_path)


def test_runs_and_checkpoints_are_known_by_their_files(whole: RunFolder) -> None:
    checkpoint = whole.checkpoints / "step_000008"
    kinds = {path: contents_of(path).kind for path in (whole.path, checkpoint, checkpoint / "tensors.safetensors")}
    assert list(kinds.values()) == ["run", "checkpoint", "checkpoint"]
    assert contents_of(whole.splats).kind == "splats"
    assert contents_of(whole.config) == Contents(
        kind="other", seen="a file of a run", advice=f"give the run's folder, {whole.path}"
    )
    for path in kinds:
        assert kind_of_start(GaussiansConfig(init_from=str(path))) == "run"
    with pytest.raises(UserError, match=f"it is a file of a run; give the run's folder, {whole.path}"):
        kind_of_start(GaussiansConfig(init_from=str(whole.config)))
