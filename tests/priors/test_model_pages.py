"""The commands on the pages about models run as they are printed, on toy models in place of the published ones."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layout import save_tensors, use_toy_architecture, write_checkpoint
from page_commands import commands
from safetensors.torch import load_file
from sources import ROOT

from sdi_gs.commands.main import main
from sdi_gs.priors import fetch
from sdi_gs.priors.catalog import CATALOG

# Of a machine, not of a model.
OTHERS = ["doctor"]
# Under a network of four views, whose presets tests/commands/test_four_views.py runs.
FOUR_VIEWS = ("mvdream", "mvdream-sdi")
# What a CPU needs to be done in seconds; all else is the page's.
SHORT = {
    "--device": "cpu",
    "--steps": "2",
    "--views-per-step": "1",
    "--gaussians.num-initial": "100",
    "--outputs.turntable-frames": "0",
    "--outputs.turntable-size": "32",
    "--ngp.grid.log2-table-size": "8",
    "--ngp.samples-per-ray": "16",
}


@pytest.fixture
def folder(hub: Any, pristine_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all files that the pages name, beside a hub with all repositories."""
    model = pristine_models["epsilon"]
    use_toy_architecture(model, monkeypatch)
    (tmp_path / "path" / "to").mkdir(parents=True)
    shutil.copytree(model, tmp_path / "path" / "to" / "folder")
    for name in ("model", "path/to/file", "path/to/v2-1_512-ema-pruned"):
        write_checkpoint(model, tmp_path / f"{name}.safetensors")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{layer}.lora_down.weight": torch.ones(2, 32), f"{layer}.lora_up.weight": torch.ones(32, 2)}
    torch.save({"state_dict": load_file(tmp_path / "model.safetensors")}, tmp_path / "model.ckpt")
    save_tensors(factors, tmp_path / "style.safetensors")
    save_tensors({"emb_params": torch.ones(2, 16)}, tmp_path / "my-cat.safetensors")
    hub.repositories["owner/name"] = model
    for entry in CATALOG:
        for source in entry.sources:
            hub.repositories[source.repo_id] = pristine_models[entry.prediction_type]
    # The toy's files have other sums than the published ones.
    monkeypatch.setattr(fetch, "check_sums", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shortened(words: list[str], out: Path) -> list[str]:
    if words[0] != "train":
        return words
    # The toy's images are an eighth as wide; the preset's renders grow to the published width.
    renders = ["--render.sizes", "16", "32", "64"] if "sd21-ngp" in words else []
    if "--steps" in words:
        at = words.index("--steps")
        words = [*words[:at], *words[at + 2 :]]
    more = SHORT | ({} if "--dry-run" in words else {"--output-dir": str(out)})
    return [*words, *renders, *(part for name, value in more.items() if name not in words for part in (name, value))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the text encoder of:UserWarning")
@pytest.mark.parametrize("page", ["docs/sd21.md", "docs/models.md"])
def test_the_commands_of_a_page_run(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = [
        words
        for words in commands((ROOT / page).read_text())
        if words[0] not in OTHERS and not set(words) & set(FOUR_VIEWS)
    ]
    assert len(printed) >= 4
    ends = {}
    for index, words in enumerate(printed):
        capsys.readouterr()
        code = main(shortened(words, folder / f"run-{index}"))
        ends[shlex.join(words)] = (code, capsys.readouterr().err)
    assert not any(code for code, _ in ends.values()), "\n".join(f"{words}: {end}" for words, end in ends.items())
    trained = [words for words in printed if words[0] == "train" and "--dry-run" not in words]
    assert len(list(folder.glob("run-*/summary.json"))) == len(trained)
