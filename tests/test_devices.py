"""Which device is picked, why, and what picking one loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdi_gs import devices
from sdi_gs.devices import device_reason, pick_device, why_no_cuda
from sdi_gs.errors import UserError


def test_the_best_device_is_picked_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=found: found)
        assert pick_device(None) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "says"), [("gpu", "means nothing"), ("meta", "is not supported"), ("cuda:7", "torch finds 0 CUDA devices")]
)
def test_a_device_that_cannot_be_used_is_one_line(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(devices, "why_no_cuda", lambda: None)
    with pytest.raises(UserError, match=says) as refused:
        pick_device(name)
    assert repr(name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_machine_without_a_card_is_not_kept_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def examined() -> None:
        raise AssertionError("the toolchain was examined")

    monkeypatch.setattr(devices, "card_on_bus", lambda: False)
    monkeypatch.setattr(devices, "driver_cuda_version", lambda: None)
    monkeypatch.setattr(devices, "examine_toolchain", examined)
    assert why_no_cuda() is None
    assert device_reason(torch.device("cpu"), asked=False) == "no CUDA device found"
    assert device_reason(torch.device("cpu"), asked=True) == "as asked"


TRAIN = """
import sys
from sdi_gs.commands.main import main

options = ["--preset", "smoke", "--steps", "2", "--gaussians.num-initial", "50", "--outputs.turntable-frames", "0"]
assert main(["train", "--prompt", "a red ball", *options]) == 0
print(*sorted(name for name in sys.modules if name.startswith("sdi_gs.doctor")))
"""


@pytest.mark.slow
def test_a_training_without_a_card_loads_no_part_of_the_doctor(tmp_path: Path) -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=tmp_path, env=hidden, capture_output=True, text=True, check=True
    )
    assert (tmp_path / "outputs/a-red-ball-1/splats.ply").is_file()
    assert done.stdout.splitlines()[-1] == ""
