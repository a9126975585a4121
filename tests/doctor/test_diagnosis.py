"""The machine as the doctor sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from sdi_gs.doctor.diagnosis import Diagnosis, diagnose, kernel_cache, report_lines
from sdi_gs.gsplat_build.toolchain import Toolchain

PRESETS = {"cpu": ("toybox-ideal", "toybox-ideal"), "cuda": ("sd21-base", "sd21-base")}


def examined() -> Diagnosis:
    return diagnose(presets_by_device=PRESETS)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, machine: Callable[..., Toolchain]) -> None:
    """A machine with a card, but without a compiler and without a built gsplat."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    properties = SimpleNamespace(name="a card", total_memory=24 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (12 * 2**30, 24 * 2**30))
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("sdi_gs.doctor.diagnosis.examine_toolchain", lambda: machine(toolkits=()))


def problems(diagnosis: Diagnosis, about: str) -> list[str]:
    return [problem.fix for problem in diagnosis.problems if about in problem.what]


def test_a_diagnosis_is_plain_json() -> None:
    told = examined().as_json()
    assert json.loads(json.dumps(told)) == told


def test_every_requirement_is_listed_with_its_version() -> None:
    packages = {package.name: package for package in examined().packages}
    assert {"torch", "gsplat", "numba", "diffusers", "tyro", "viser"} <= set(packages)
    assert "pytest" not in packages, "extras are nobody's requirement"
    assert packages["torch"].version == metadata.version("torch")
    assert packages["gsplat"].tested == "<1.6,>=1.5.3"


@pytest.mark.parametrize(
    ("installed", "what"), [("0.1", "numba 0.1 is outside"), (None, "numba is not installed")], ids=["old", "none"]
)
def test_a_package_that_is_missing_or_untested_is_a_problem_with_a_fix(
    installed: str | None, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name != "numba":
            return real(name)
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("sdi_gs.doctor.diagnosis.metadata.version", version)
    [fix] = problems(examined(), what)
    assert fix.startswith("pip install 'numba")


def test_a_tree_that_is_not_installed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("sdi_gs.doctor.diagnosis.metadata.requires", requires)
    assert problems(examined(), "is not installed, only on the path") == ["pip install -e ."]


def test_without_cuda_numba_renders_and_toybox_is_asked(no_cuda: None) -> None:
    told = examined()
    assert (told.rasterizer, told.prior, told.preset) == ("numba", "toybox-ideal", "toybox-ideal")
    assert told.device.kind == "cpu"
    assert told.device.torch_threads == torch.get_num_threads()
    assert "no CUDA device was found" in told.rasterizer_reason


def test_with_cuda_gsplat_renders_and_stable_diffusion_is_asked(card: None) -> None:
    told = examined()
    assert (told.rasterizer, told.prior, told.preset) == ("gsplat", "sd21-base", "sd21-base")
    assert (told.device.name, told.device.memory_gib, told.device.torch_cuda) == ("a card", 24.0, "13.0")


def test_what_the_toolchain_lacks_is_among_the_problems(card: None) -> None:
    [fix] = problems(examined(), "there is no CUDA compiler")
    assert "sdi-gs[cuda]" in fix


def test_without_the_package_of_ffmpeg_the_report_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdi_gs.doctor.diagnosis.find_spec", lambda name: None)
    assert examined().ffmpeg is None


def test_a_missing_ffmpeg_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_ffmpeg_exe() -> str:
        raise RuntimeError("none")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", get_ffmpeg_exe)
    told = examined()
    assert told.ffmpeg is None
    assert problems(told, "no ffmpeg")


def test_the_folder_of_compiled_kernels_is_known() -> None:
    cache = kernel_cache()
    assert cache.path is not None
    assert cache.writable


def test_kernels_that_no_folder_takes_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    uncached = SimpleNamespace(stats=SimpleNamespace(cache_path=None))
    monkeypatch.setattr("sdi_gs.rasterize.kernels.compositing_backward.composite_backward", uncached)
    told = examined()
    assert not told.kernel_cache.compiled
    assert problems(told, "numba may write nowhere") == ["set NUMBA_CACHE_DIR to a folder of yours"]


def test_the_report_says_what_will_happen_and_how_to_mend_what_is_wrong(card: None) -> None:
    text = "\n".join(report_lines(examined()))
    assert "device      cuda (a card, 24 GiB); torch is built for CUDA 13.0" in text
    assert "driver      580.95.05, up to CUDA 13.0; cards: NVIDIA GeForce RTX 4090 (sm_89)" in text
    assert "gsplat      cannot be compiled yet: no compiled code fits torch 2.13.0+cu130" in text
    assert "tiers       what --tier auto takes, of 12.0 GiB of free memory:" in text
    assert "predicted   sd21-base: tier 24 (two views at a time in the VAE)" in text
    assert "problem: gsplat must be compiled, and there is no CUDA compiler" in text
    assert "fix: pip install 'sdi-gs[cuda]'" in text
    assert "nothing is missing" not in text
