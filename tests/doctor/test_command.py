"""``sdi-gs doctor --build`` and what a training does where nothing is compiled yet, as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdi_gs.commands.main import main
from sdi_gs.errors import UserError
from sdi_gs.gsplat_build.build import BuildPlan, Built
from sdi_gs.gsplat_build.toolchain import Toolchain

Machine = Callable[..., Toolchain]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> list[BuildPlan]:
    """A machine that lacks nothing, where compiling takes no time; lists what was compiled."""
    plans: list[BuildPlan] = []

    def compile_at_once(plan: BuildPlan, facts: Toolchain, *, show: Callable[[int, int], None]) -> Built:
        plans.append(plan)
        show(26, 26)
        return Built(
            library="/cache/csrc.so",
            gsplat=facts.gsplat,
            torch=facts.torch,
            cuda="13.0",
            python=facts.python,
            archs=plan.archs,
            nvcc=plan.toolkit.release,
            compiler=plan.toolkit.source,
            host_compiler="13.3.0",
            jobs=plan.jobs,
            seconds=120.0,
            cpu_seconds=600.0,
            peak_mib_of_a_compiler=1100,
            symbols=("CameraModelType", "adam"),
        )

    monkeypatch.setattr("sdi_gs.gsplat_build.build.examine_toolchain", machine)
    monkeypatch.setattr("sdi_gs.gsplat_build.build.build_gsplat", compile_at_once)
    return plans


def test_it_tells_what_is_compiled_how_far_it_is_and_where_it_went(
    compiled: list[BuildPlan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--build"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "compiling gsplat 1.5.3 for torch 2.13.0+cu130 and 8.9 with nvcc 13.0 (PyPI), 8 at once",
        "compiling gsplat  26/26 files  0 s",
        "2 symbols import; 120 s, 1100 MiB at most",
    ]
    assert told.out == "/cache/csrc.so\n"


def test_it_compiles_for_the_architectures_that_are_asked_for(compiled: list[BuildPlan]) -> None:
    assert main(["doctor", "--build", "--arch", "8.0;9.0"]) == 0
    assert [plan.archs for plan in compiled] == [("8.0", "9.0")]


def test_it_speaks_to_programs_in_one_object(compiled: list[BuildPlan], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--build", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["symbols"] == ["CameraModelType", "adam"]


@pytest.mark.parametrize(
    ("options", "changes", "line"),
    [
        (["--build"], {"torch_cuda": None, "torch": "2.13.0+cpu"}, "sdi-gs: torch 2.13.0+cpu is a CPU build"),
        (["--build"], {"cards": (), "torch_archs": ()}, "sdi-gs: no NVIDIA card answers: name its architecture"),
        (["--build", "--arch", "ada"], {}, "sdi-gs: --arch 'ada' is not a list of compute capabilities"),
        (["--build"], {"driver_cuda": "12.4"}, "sdi-gs: driver 580.95.05 knows CUDA up to 12.4"),
        (["--arch", "8.9"], {}, "sdi-gs: --arch says what to compile for: add --build"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    options: list[str],
    changes: dict[str, Any],
    line: str,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sdi_gs.gsplat_build.build.examine_toolchain", lambda: machine(**changes))
    assert main(["doctor", *options]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


def test_a_training_that_gsplat_cannot_be_compiled_for_stops_before_it_leaves_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*, use: Callable[[], bool]) -> None:
        raise UserError("gsplat must be compiled, and there is no CUDA compiler: pip install 'sdi-gs[cuda]'")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a card")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (24 * 2**30, 24 * 2**30))
    monkeypatch.setattr("sdi_gs.gsplat_build.build.ensure_built", refuse)
    assert main(["train", "--prompt", "a blue robot"]) == 2
    assert "there is no CUDA compiler" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


OLD_DRIVER = {"driver_cuda": "12.4", "torch_archs": ()}


@pytest.fixture
def old_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A card that torch cannot use, because its driver is older than torch's CUDA."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("sdi_gs.devices.card_on_bus", lambda: True)
    monkeypatch.setattr("sdi_gs.devices.examine_toolchain", lambda: machine(**OLD_DRIVER))


def test_a_device_that_the_driver_is_too_old_for_is_refused_with_what_mends_it(
    old_driver: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--prompt", "a blue robot", "--device", "cuda"]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(
        "sdi-gs: device 'cuda' is not there, torch finds 0 CUDA devices: driver 580.95.05 knows CUDA"
    )
    assert "update the driver to 580.65.06 or newer" in said


def test_a_training_that_falls_back_to_the_processor_says_why(
    old_driver: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--prompt", ""]) == 2
    said = capsys.readouterr().err.splitlines()[0]
    assert "device cpu: no CUDA device can be used (driver 580.95.05 knows CUDA up to 12.4" in said
