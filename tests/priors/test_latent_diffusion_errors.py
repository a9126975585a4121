"""What is said of models that are missing, broken, of another kind, or out of reach."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from sdi_gs.errors import UserError
from sdi_gs.priors.fetch import SourceUnavailableError
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.layout import CONFIG_FILES

COMPONENTS = ["tokenizer", "text_encoder", "unet", "vae", "scheduler"]
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
CopyModel = Callable[..., Path]


def complaint(source: str | Path, **options: Any) -> str:
    """The one line that loading ends with."""
    with pytest.raises(UserError) as caught:
        load_latent_diffusion(source, device="cpu", dtype=torch.float32, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_missing_component_is_named(model_copy: CopyModel, component: str) -> None:
    folder = model_copy()
    for file in (folder / component).iterdir():
        file.unlink()
    line = complaint(folder)
    assert f"lacks its {component}" in line
    assert "HF_ENDPOINT" in line


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_with_a_broken_config_is_named(model_copy: CopyModel, component: str) -> None:
    folder = model_copy()
    present = [folder / component / file for file in CONFIG_FILES[component] if (folder / component / file).exists()]
    present[0].write_text('{"half a')
    assert f"the {component} in {folder} cannot be loaded" in complaint(folder)


@pytest.mark.parametrize("component", WEIGHTS)
def test_truncated_weights_are_named(model_copy: CopyModel, component: str) -> None:
    folder = model_copy()
    weights = folder / component / WEIGHTS[component]
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"the {component} in {folder} cannot be loaded" in complaint(folder)


@pytest.mark.parametrize("component", WEIGHTS)
def test_absent_weights_are_named(model_copy: CopyModel, component: str) -> None:
    folder = model_copy()
    (folder / component / WEIGHTS[component]).unlink()
    assert f"the {component} in {folder} cannot be loaded" in complaint(folder)


@pytest.mark.parametrize("component", WEIGHTS)
def test_a_file_without_all_weights_is_refused_rather_than_filled_at_random(
    model_copy: CopyModel, component: str
) -> None:
    folder = model_copy()
    weights = folder / component / WEIGHTS[component]
    tensors = load_file(weights)
    tensors.pop(max(tensors))
    save_file(tensors, weights, metadata={"format": "pt"})
    assert f"the {component} in {folder} lacks 1 weights" in complaint(folder)


def test_half_precision_twins_serve_where_there_is_nothing_else(model_copy: CopyModel) -> None:
    folder = model_copy()
    for component, file in WEIGHTS.items():
        weights = folder / component / file
        weights.rename(weights.with_name(file.replace(".safetensors", ".fp16.safetensors")))
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert prior.image_size == 64


def test_an_unknown_prediction_type_is_refused(model_copy: CopyModel) -> None:
    folder = model_copy("v_prediction")
    edit_json(folder / "scheduler" / "scheduler_config.json", prediction_type="flow")
    assert "epsilon, v_prediction, sample" in complaint(folder)


def test_a_schedule_that_ends_in_pure_noise_is_used_and_said_so(model_copy: CopyModel) -> None:
    folder = model_copy("v_prediction")
    edit_json(folder / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert prior.predict_noise(torch.ones(1, 4, 8, 8), 999, prior.embed_prompts(["blue"])).isfinite().all()
    assert any("rescale_betas_zero_snr: timestep 999" in note for note in prior.notes)


def test_an_inpainting_unet_is_refused(model_copy: CopyModel) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    folder = model_copy()
    stored: dict[str, Any] = json.loads((folder / "unet" / "config.json").read_text())
    public = {key: value for key, value in stored.items() if not key.startswith("_")}
    unet: Any = UNet2DConditionModel(**public | dict[str, Any](in_channels=9))
    unet.save_pretrained(folder / "unet")
    assert "its unet has in_channels 9, its vae needs 4" in complaint(folder)


def test_a_text_encoder_of_another_model_is_refused(model_copy: CopyModel) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = model_copy()
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.hidden_size = 32
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    assert "its unet has cross_attention_dim 16, its text_encoder needs 32" in complaint(folder)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "v2-1_512-ema-pruned.safetensors"
    checkpoint.touch()
    assert "is no safetensors file, or is cut short" in complaint(checkpoint)
    assert "is no safetensors file, or is cut short" in complaint(str(checkpoint))


@pytest.mark.parametrize("source", ["stable-diffusion", "a/b/c", "owner/na me", Path("owner/name")])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(source: str | Path) -> None:
    assert "neither a folder nor a hub id" in complaint(source)


def test_an_id_that_the_cache_lacks_says_what_to_do_offline() -> None:
    line = complaint("nobody/no-such-model", revision="0" * 40, local_files_only=True)
    assert "no-such-model from the hub at revision 000" in line
    assert "HF_ENDPOINT" in line


@pytest.mark.usefixtures("hub")
def test_an_id_that_the_hub_lacks_says_what_to_do() -> None:
    with pytest.raises(SourceUnavailableError, match=r"no nobody/no-such-model from the hub \(Repo.*404.*HF_ENDPOINT"):
        load_latent_diffusion("nobody/no-such-model", device="cpu", dtype=torch.float32)


def test_a_hub_id_loads_from_the_snapshot_of_its_revision(
    pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None, bool]] = []

    def snapshot(repo_id: str, *, revision: str | None, local_files_only: bool, **_: Any) -> str:
        asked.append((repo_id, revision, local_files_only))
        return str(pristine_models["v_prediction"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=None))
    prior = load_latent_diffusion("owner/name", revision="abc", device="cpu", dtype=torch.float32)
    assert asked == [("owner/name", "abc", False)]
    assert (prior.name, prior.prediction_type) == ("owner/name", "v_prediction")


def test_only_what_is_needed_is_downloaded(pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of 2.1-base: one copy of each component's weights, and no pickles."""
    needed = {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    surplus = {
        ".gitattributes",
        "README.md",
        "feature_extractor/preprocessor_config.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "v2-1_512-ema-pruned.ckpt",
        "v2-1_512-ema-pruned.safetensors",
        "v2-1_512-nonema-pruned.safetensors",
        "vae/diffusion_pytorch_model.fp16.bin",
    }
    chosen: set[str] = set()

    def snapshot(repo_id: str, *, allow_patterns: list[str], ignore_patterns: list[str], **_: Any) -> str:
        files = sorted(needed | surplus)
        chosen.update(filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(pristine_models["epsilon"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=None))
    load_latent_diffusion("owner/name", device="cpu", dtype=torch.float32)
    assert chosen == needed
