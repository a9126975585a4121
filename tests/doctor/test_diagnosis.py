"""The machine as the doctor sees it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sdi_gs.doctor.diagnosis import Diagnosis, diagnose, gsplat_is_built, kernel_cache, nvcc, report_lines

PRESETS = {"cpu": ("toybox-ideal", "toybox-ideal"), "cuda": ("sd21-base", "sd21-base")}


def examined() -> Diagnosis:
    return diagnose(presets_by_device=PRESETS)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a card, but without a compiler and without a built gsplat."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    properties = SimpleNamespace(name="a card", total_memory=24 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    monkeypatch.setattr("torch.version.cuda", "12.8")
    monkeypatch.setattr("sdi_gs.doctor.diagnosis.nvcc", lambda: None)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))


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
    assert (told.device.name, told.device.memory_gib, told.device.torch_cuda) == ("a card", 24.0, "12.8")


def test_a_card_without_a_compiler_for_gsplat_is_a_problem(card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    [fix] = problems(examined(), "there is no nvcc")
    assert "CUDA toolkit 12.8" in fix
    monkeypatch.setattr("sdi_gs.doctor.diagnosis.nvcc", lambda: "/usr/bin/nvcc")
    assert problems(examined(), "there is no nvcc") == []


def test_a_gsplat_that_was_built_before_needs_no_compiler(card: None, tmp_path: Path) -> None:
    assert not gsplat_is_built()
    library = tmp_path / "py311_cu128/gsplat_cuda/gsplat_cuda.so"
    library.parent.mkdir(parents=True)
    library.touch()
    assert gsplat_is_built()
    assert problems(examined(), "there is no nvcc") == []


def test_a_card_that_torch_cannot_use_is_a_problem(no_cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("sdi_gs.doctor.diagnosis.shutil.which", lambda name: f"/usr/bin/{name}")
    [fix] = problems(examined(), "torch is a CPU build")
    assert "--index-url" in fix


def test_the_compiler_is_looked_for_in_cuda_home_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "bin/nvcc"
    compiler.parent.mkdir()
    compiler.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert nvcc() == str(compiler)


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
    monkeypatch.setattr("sdi_gs.rasterize.kernels.compositing.composite_backward", uncached)
    told = examined()
    assert not told.kernel_cache.compiled
    assert problems(told, "numba may write nowhere") == ["set NUMBA_CACHE_DIR to a folder of yours"]


def test_the_report_says_how_to_mend_what_is_wrong(card: None) -> None:
    text = "\n".join(report_lines(examined()))
    assert "device      cuda (a card, 24 GiB); torch is built for CUDA 12.8" in text
    assert "problem: gsplat compiles its CUDA kernels on first use" in text
    assert "fix: install the CUDA toolkit 12.8" in text
    assert "nothing is missing" not in text
