"""Checkpoints: exact, atomic, and refused when damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.runs.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    pack_state,
    save_checkpoint,
    unpack_state,
)
from sdi_gs.training.generators import restore_generator

META = {"prompt": "a blue robot", "lr": 0.1 + 0.2, "counts": [1, 2], "nested": {"none": None, "on": True}}


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "means": torch.randn(7, 3, generator=generator),
        "double": torch.randn(2, dtype=torch.float64, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "mask": torch.tensor([True, False]),
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two good checkpoints."""
    for step in (100, 200):
        save_checkpoint(tmp_path, step, some_tensors(step), META)
    return tmp_path


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = some_tensors()
    path = save_checkpoint(tmp_path, 300, tensors, META)
    back = load_checkpoint(path)
    assert path == tmp_path / "step_000300"
    assert back.step == 300
    assert back.meta == META
    assert set(back.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        assert back.tensors[name].shape == tensor.shape
        assert bits(back.tensors[name]) == bits(tensor)
    assert set(load_file(path / "tensors.safetensors")) == set(tensors)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", 1, some_tensors(), META)
    second = save_checkpoint(tmp_path / "b", 1, some_tensors(), META)
    for name in ("tensors.safetensors", "checkpoint.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_tensors_that_share_memory_or_skip_through_it_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    leaf = torch.nn.Parameter(torch.ones(2))
    path = save_checkpoint(tmp_path, 1, {"base": base, "turned": base.T, "leaf": leaf}, {})
    back = load_checkpoint(path).tensors
    assert torch.equal(back["turned"], base.T)
    assert torch.equal(back["leaf"], torch.ones(2))


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, some_tensors(), {}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_000003", "step_000004"]
    save_checkpoint(tmp_path, 5, some_tensors(), {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000005"]


def test_a_rewound_run_forgets_the_future_it_left(run: Path) -> None:
    save_checkpoint(run, 150, some_tensors(), {})
    assert [path.name for path in list_checkpoints(run)] == ["step_000100", "step_000150"]


def test_a_step_saved_again_takes_the_place_of_the_first(run: Path) -> None:
    save_checkpoint(run, 200, some_tensors(7), {})
    assert torch.equal(load_checkpoint(run / "step_000200").tensors["means"], some_tensors(7)["means"])


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        save_checkpoint(tmp_path, step, {}, {})
    assert latest_checkpoint(tmp_path).name == "step_1000000"


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="no checkpoint in"):
            latest_checkpoint(folder)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def edit_header(path: Path, **changes: object) -> None:
    file = path / "checkpoint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGES = {
    "flipped bit in the tensors": (lambda path: flip_a_bit(path / "tensors.safetensors"), "safetensors is damaged"),
    "tensors cut short": (lambda path: cut_short(path / "tensors.safetensors"), "safetensors is damaged"),
    "tensors missing": (lambda path: (path / "tensors.safetensors").unlink(), "cannot read .*safetensors"),
    "header cut short": (lambda path: cut_short(path / "checkpoint.json"), r"json is damaged \(not JSON\)"),
    "header missing": (lambda path: (path / "checkpoint.json").unlink(), "cannot read .*json"),
    "header is a list": (lambda path: (path / "checkpoint.json").write_text("[]"), "json is not of a sdi-gs"),
    "another program's": (lambda path: edit_header(path, format="other"), "json is not of a sdi-gs"),
    "a later version's": (lambda path: edit_header(path, format_version=9), "format version 9, this program"),
    "settings changed": (lambda path: edit_header(path, meta={"lr": 1}), "json is damaged"),
    "another step's": (lambda path: edit_header(path, step=7), "is of step 7"),
    "empty folder": (lambda path: [file.unlink() for file in path.iterdir()], "cannot read .*json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_earlier_checkpoint_offered(run: Path, damage: str) -> None:
    do, message = DAMAGES[damage]
    do(run / "step_000200")
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(latest_checkpoint(run))
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith(f"delete {run / 'step_000200'} to go on from step_000100, which is whole")

    shutil.rmtree(run / "step_000200")
    assert load_checkpoint(latest_checkpoint(run)).step == 100


def test_without_a_whole_checkpoint_a_new_start_is_advised(run: Path) -> None:
    for name in ("step_000100", "step_000200"):
        flip_a_bit(run / name / "tensors.safetensors")
    with pytest.raises(UserError, match="no earlier checkpoint of the run is whole, so start it anew"):
        load_checkpoint(run / "step_000200")


def test_a_folder_under_another_name_is_refused(run: Path) -> None:
    (run / "step_000200").rename(run / "best")
    with pytest.raises(UserError, match="is of step 200, which is not what its folder says"):
        load_checkpoint(run / "best")


CRASH = """
import os, sys
from pathlib import Path
import torch
from sdi_gs.runs.checkpoint import save_checkpoint

def die(*_):
    os._exit(9)

os.{call} = die
save_checkpoint(Path(sys.argv[1]), 300, {{"means": torch.ones(3)}}, {{}})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("call", "latest"), [("fsync", 200), ("rename", 300)])
def test_a_crash_before_the_last_move_leaves_the_earlier_checkpoint(run: Path, call: str, latest: int) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH.format(call=call), str(run)], check=False)
    assert done.returncode == 9
    # Before its move the new one is whole, and is found as well.
    assert load_checkpoint(latest_checkpoint(run)).step == latest
    assert load_checkpoint(run / "step_000200").step == 200
    # The next save clears away what the crash left.
    save_checkpoint(run, 300, some_tensors(), {})
    assert sorted(path.name for path in run.iterdir()) == ["step_000200", "step_000300"]


def test_an_interrupt_while_saving_leaves_nothing_of_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(run, 300, some_tensors(), {})
    assert sorted(path.name for path in run.iterdir()) == ["step_000100", "step_000200"]


def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoints(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left on the disk while writing .*step_000300: free some"):
        save_checkpoint(run, 300, some_tensors(), {})
    assert sorted(path.name for path in run.iterdir()) == ["step_000100", "step_000200"]


def adam_on(params: Mapping[str, Tensor]) -> torch.optim.Adam:
    groups = [{"params": [param], "lr": 0.1 / (i + 1), "name": name} for i, (name, param) in enumerate(params.items())]
    return torch.optim.Adam(groups, betas=(0.8, 0.99), eps=1e-15)


def take_steps(params: Mapping[str, Tensor], adam: torch.optim.Adam, generator: torch.Generator, steps: int) -> None:
    for _ in range(steps):
        adam.zero_grad()
        sum((param * torch.randn(param.shape, generator=generator)).sum() for param in params.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
        adam.step()


def test_optimisation_goes_on_bit_equal_from_a_checkpoint(tmp_path: Path) -> None:
    params = {name: torch.nn.Parameter(torch.ones(5, 3)) for name in ("means", "scales")}
    adam, generator = adam_on(params), torch.Generator().manual_seed(3)
    take_steps(params, adam, generator, 4)
    tensors, packed = pack_state(adam.state_dict(), "adam")
    rng = {"rng": generator.get_state()}
    path = save_checkpoint(tmp_path, 4, {**params, **tensors, **rng}, {"adam": packed})
    take_steps(params, adam, generator, 3)

    saved = load_checkpoint(path)
    resumed = {name: torch.nn.Parameter(saved.tensors[name]) for name in params}
    resumed_adam, resumed_generator = adam_on(resumed), torch.Generator()
    resumed_adam.load_state_dict(unpack_state(saved.tensors, saved.meta["adam"]))
    restore_generator(resumed_generator, saved.tensors["rng"])
    take_steps(resumed, resumed_adam, resumed_generator, 3)
    for name, param in params.items():
        assert torch.equal(resumed[name], param)


def test_packing_keeps_every_kind_of_container_and_key(tmp_path: Path) -> None:
    tree = {
        "state": {0: {"step": torch.tensor(2.0)}, 1: {}},
        "groups": [{"betas": (0.9, 0.999), "on": True, "name": "means", "none": None}],
        "tensor": "a string",
        "empty": (),
    }
    tensors, packed = pack_state(tree)
    assert set(tensors) == {"state/0/step"}
    back = unpack_state(tensors, json.loads(json.dumps(packed)))
    assert back["state"][0].pop("step") == tree["state"][0].pop("step")
    assert back == tree
    assert isinstance(back["groups"][0]["betas"], tuple)


def test_a_bare_tensor_packs_under_the_given_name() -> None:
    tensors, packed = pack_state(torch.ones(2), "grad2d")
    assert set(tensors) == {"grad2d"}
    assert torch.equal(unpack_state(tensors, packed), torch.ones(2))


def test_what_cannot_be_packed_is_named() -> None:
    with pytest.raises(TypeError, match="a/b is a set"):
        pack_state({"a": {"b": {1}}})
    with pytest.raises(ValueError, match="'x/y'"):
        pack_state({"x/y": 1})


def test_a_random_state_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit a cpu generator"):
        restore_generator(torch.Generator(), torch.zeros(16, dtype=torch.uint8))
