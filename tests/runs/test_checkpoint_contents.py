"""Checkpoints with the right checksums and the wrong contents: refused in one line, with everything as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from small_runs import config, start, whole_run

from sdi_gs.errors import UserError
from sdi_gs.runs.checkpoint import pack_state, unpack_state
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loading import load
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume
from sdi_gs.runs.saving import save_state

Edit = Callable[[dict[str, Any], dict[str, Any]], None]
"""Changes the unpacked state and the rest of the checkpoint's JSON."""


def rewrite(checkpoint: Path, edit: Edit) -> None:
    """Change a checkpoint and sign it anew, as another program could."""
    header = json.loads((checkpoint / "checkpoint.json").read_bytes())
    meta = header["meta"]
    state = unpack_state(load_file(checkpoint / "tensors.safetensors"), meta.pop("state"))
    edit(state, meta)
    tensors, packed = pack_state(state)
    meta.setdefault("state", packed)
    data = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    header["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    header["meta_sha256"] = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    (checkpoint / "tensors.safetensors").write_bytes(data)
    (checkpoint / "checkpoint.json").write_text(json.dumps(header))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that keeps targets and noise, abandoned after its checkpoint of step 6; nobody writes to it."""
    folder = tmp_path_factory.mktemp("runs") / "crashed"
    whole_run(folder, replace(config(), replay=replace(config().replay, steps_per_target=2, views=8)))
    run = RunFolder(folder)
    shutil.rmtree(run.checkpoints / "step_000008")
    run.summary.unlink()
    return run


def put(*path: Any, value: Any) -> Edit:
    def edit(state: dict[str, Any], meta: dict[str, Any]) -> None:
        *owners, last = path
        place: Any = meta if owners[:1] == ["meta"] else state
        for key in owners[1:] if owners[:1] == ["meta"] else owners:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value(place[last]) if callable(value) else value

    return edit


def with_one(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def edit(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = number
        return tensor

    return edit


SHOWN: dict[str, tuple[Edit, str]] = {
    "no means": (put("gaussians", "means", value=None), "means is missing"),
    "means of another count": (put("gaussians", "means", value=lambda t: t[:-1]), "must have the shape (157"),
    "no Gaussians": (put("gaussians", "means", value=lambda t: t[:0]), "gaussians/means holds no Gaussians"),
    "means of doubles": (put("gaussians", "means", value=lambda t: t.double()), "means must be float32, found float64"),
    "a colour that is not finite": (put("gaussians", "sh0", value=with_one(float("nan"))), "sh0 holds 1 values that"),
    "a tensor too many": (put("gaussians", value={"means": torch.ones(2, 3), "x": torch.ones(2)}), "holds x, which"),
    "means that are a number": (put("gaussians", "means", value=3), "means must be a tensor, found a whole number"),
    "another representation": (put("gaussians", value=None), "holds no gaussians"),
    "another step": (put("step", value=5), "its state is of step 5, its file of step 6"),
    "a step that is a switch": (put("step", value=True), "step must be a whole number"),
    "no settings": (put("meta", "config", value=None), "config is missing"),
    "settings that are a list": (put("meta", "config", value=[1]), "config must be a table, found a list"),
    "a setting of no use": (put("meta", "config", "representation", value="mesh"), "representation is 'mesh'"),
    "no state": (put("meta", "state", value="nothing"), "state must be a table, found a text"),
}
"""Found by whatever loads the checkpoint."""

RESUMED: dict[str, tuple[Edit, str]] = {
    "no optimiser": (put("optimizers", "quats", value=None), "optimizers must hold means, opacities"),
    "averages of another count": (
        put("optimizers", "means", "state", 0, "exp_avg", value=lambda t: t[1:]),
        "optimizers/means/state/0/exp_avg must have the shape",
    ),
    "squares below 0": (
        put("optimizers", "means", "state", 0, "exp_avg_sq", value=lambda t: t - 9.0),
        "negative",
    ),
    "no averages": (
        put("optimizers", "means", "state", 0, "exp_avg", value=None),
        "must hold step, exp_avg",
    ),
    "another Adam": (put("optimizers", "means", "param_groups", 0, "amsgrad", value=True), "another amsgrad"),
    "betas of 1": (put("optimizers", "means", "param_groups", 0, "betas", value=(1.0, 1.0)), "another betas"),
    "a rate that is a text": (put("optimizers", "means", "param_groups", 0, "lr", value="fast"), "another lr"),
    "a step that is a text": (put("optimizers", "means", "state", 0, "step", value="many"), "must be a count of steps"),
    "another strategy": (put("densify", value={"binoms": torch.ones(51, 51)}), "densify must hold grad2d, count"),
    "gradients of another count": (put("densify", "grad2d", value=torch.ones(3)), "densify/grad2d must have the shape"),
    "no generator": (put("host_generator", value=None), "host_generator is missing"),
    "another generator": (
        put("host_generator", value=torch.zeros(3, dtype=torch.uint8)),
        "does not fit a cpu",
    ),
    "noise of other latents": (
        put("carried_noise", value=torch.ones(1, 3, 5, 5)),
        "noise must be of latents",
    ),
    "noise of no latents": (put("carried_noise", value=torch.ones(3)), "carried_noise must have the shape"),
    "no targets": (put("replay", "rounds", value=[]), "has no kept targets"),
    "targets of other latents": (
        put("replay", "rounds", 0, "target", value=lambda t: t[..., :-1]),
        "replay/rounds",
    ),
    "a background too few": (put("replay", "rounds", 0, "background", value=lambda t: t[1:]), "rounds/0/background"),
    "cameras without a lens": (
        put("replay", "rounds", 0, "cameras", "intrinsics", value=None),
        "0/cameras must",
    ),
    "pictures of no width": (
        put("replay", "rounds", 0, "cameras", "width", value=0),
        "width must be at least 1",
    ),
    "a timestep that is a list": (put("replay", "timestep", value=[1]), "replay/timestep must be a whole number"),
    "changes that are none": (put("meta", "changes", value=[{"step": 1}]), "changes/changed is missing"),
    "changes of one value": (put("meta", "changes", value=[{"step": 1, "changed": {"a": [1]}}]), "two values"),
    "a scene that is a number": (put("meta", "scene", value=3), "scene must be a text"),
    "other settings at the start": (
        put("meta", "started_with", "steps", value=9),
        "is not what the checkpoint",
    ),
    "settings at the start that are none": (put("meta", "started_with", "steps", value="x"), "steps is 'x'"),
}
"""Found before a run goes on."""


def files(run: RunFolder) -> dict[str, bytes]:
    return {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [*SHOWN, *RESUMED])
def test_wrong_contents_are_named_and_nothing_moves(crashed: RunFolder, tmp_path: Path, name: str) -> None:
    edit, says = (SHOWN | RESUMED)[name]
    run = RunFolder(shutil.copytree(crashed.path, tmp_path / "run"))
    rewrite(run.checkpoints / "step_000006", edit)
    before = files(run)
    for use in [prepare_resume, load] if name in SHOWN else [prepare_resume]:
        with pytest.raises(UserError) as refused:
            use(run.path)
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
    assert files(run) == before


def test_a_checkpoint_that_is_signed_anew_without_a_change_goes_on(crashed: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(crashed.path, tmp_path / "run"))
    rewrite(run.checkpoints / "step_000006", lambda state, meta: None)
    trainer, _ = prepare_resume(run.path)
    assert trainer.train_step().step == 7


FIELD: dict[str, tuple[Edit, str]] = {
    "no table": (put("ngp", "params", "field.table", value=None), "not that of a field of this size"),
    "a table that is not finite": (put("ngp", "params", "field.table", value=with_one(float("inf"))), "not finite"),
    "another grid": (
        put("ngp", "occupancy", value=torch.ones(3, 3, 3)),
        "must have the shape (32, 32, 32)",
    ),
    "levels beyond the grid": (put("ngp", "num_levels", value=99), "ngp/num_levels must be 0 to 8, found 99"),
    "no levels": (put("ngp", "num_levels", value=0), "ngp/num_levels must be at least 1"),
    "updates in the future": (put("ngp", "steps_since_update", value=16), "steps_since_update must be 0 to 15"),
}


@pytest.fixture(scope="module")
def field_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A field's run, abandoned after two steps; nobody writes to it."""
    settings = replace(config(), representation="ngp", steps=4)
    trainer, run = start(tmp_path_factory.mktemp("runs") / "field", settings)
    train(trainer, run, should_stop=lambda: trainer.step >= 2)
    save_state(trainer, run)
    return run


@pytest.mark.parametrize("name", FIELD)
def test_a_field_of_wrong_contents_is_named(field_run: RunFolder, tmp_path: Path, name: str) -> None:
    edit, says = FIELD[name]
    run = RunFolder(shutil.copytree(field_run.path, tmp_path / "run"))
    rewrite(run.checkpoints / "step_000002", edit)
    for use in (prepare_resume, load):
        with pytest.raises(UserError) as refused:
            use(run.path)
        assert says in str(refused.value)
