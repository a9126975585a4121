"""Single files in the original layout: the same bits as the folder that they came from, or one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layout import save_tensors, use_toy_architecture, write_checkpoint
from safetensors.torch import load_file
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.check import PriorReport, check_prior
from sdi_gs.priors.checkpoint_files import inspect_checkpoint
from sdi_gs.priors.checkpoint_loading import prediction_of, published_architecture
from sdi_gs.priors.clip_tokenizer import clip_merges, clip_tokenizer
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.parts import AddOns
from sdi_gs.priors.published import older_config, published_config
from sdi_gs.settings.run import RunConfig

NORM = "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.norm1.bias"


def load(path: Path, **add_ons: Any) -> Any:
    return load_latent_diffusion(path, add_ons=AddOns(**add_ons), device="cpu", dtype=torch.float32)


@pytest.fixture
def folder(pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy model; its architecture and tokenizer stand for the published ones."""
    model = pristine_models["epsilon"]
    use_toy_architecture(model, monkeypatch)
    return model


def outputs(prior: Any) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    embeddings = prior.embed_prompts(["a blue robot", ""])
    images = prior.encode_images(torch.rand(1, 64, 64, 3, generator=generator), torch.Generator().manual_seed(1))
    return embeddings, prior.predict_noise(latents, 500, embeddings), images


@pytest.mark.parametrize("family", ["1.x", "2.x"])
def test_a_file_and_its_folder_give_the_same_bits(folder: Path, tmp_path: Path, family: str) -> None:
    file = tmp_path / "model.safetensors"
    write_checkpoint(folder, file, family=family)
    one, other = load(folder), load(file)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(one), outputs(other), strict=True))
    assert torch.equal(one.schedule.alphas_cumprod, other.schedule.alphas_cumprod)
    assert (one.image_size, one.prediction_type) == (other.image_size, other.prediction_type)
    assert one.schedule.initial_alpha_cumprod == other.schedule.initial_alpha_cumprod


def test_names_without_the_level_that_some_trainers_leave_out_are_read(folder: Path, tmp_path: Path) -> None:
    tensors = write_checkpoint(folder, tmp_path / "whole.safetensors", family="1.x")
    short = {name.replace("transformer.text_model.", "transformer."): value for name, value in tensors.items()}
    file = save_tensors(short, tmp_path / "short.safetensors")
    assert torch.equal(outputs(load(folder))[0], outputs(load(file))[0])


def test_the_running_average_is_used_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    tensors = write_checkpoint(folder, tmp_path / "ema.safetensors")
    start = "model.diffusion_model."
    networks = {name: value for name, value in tensors.items() if name.startswith(start)}
    averages = {f"model_ema.diffusion_model{name[len(start) :].replace('.', '')}": v for name, v in networks.items()}
    noise = {name: value + 1.0 for name, value in networks.items()}
    file = save_tensors(tensors | noise | averages, tmp_path / "both.safetensors")
    assert torch.equal(outputs(load(folder))[1], outputs(load(file))[1])
    assert any("running average (EMA)" in note for note in load(file).notes)


def test_a_file_on_the_hub_loads_by_its_address(hub: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    (tmp_path / "repository").mkdir()
    write_checkpoint(folder, tmp_path / "repository" / "model.safetensors")
    hub.repositories["a/files"] = tmp_path / "repository"
    for way in ("resolve", "blob"):
        address = f"http://mirror.example/a/files/{way}/main/model.safetensors"
        prior = load_prior(RunConfig(prior=address), device="cpu")
        assert torch.equal(outputs(prior)[1], outputs(load(folder))[1])
    with pytest.raises(UserError, match="a/files@main, model.ckpt is a pickle"):
        load_prior(RunConfig(prior="http://mirror.example/a/files/blob/main/model.ckpt"), device="cpu")


# What it predicts: by the user, by the file, by the rule.


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
        ({"ss_v_parameterization": "True"}, "v_prediction"),
    ],
)
def test_the_metadata_decide_what_is_predicted(
    folder: Path, tmp_path: Path, metadata: dict[str, str], expected: str
) -> None:
    file = tmp_path / "model.safetensors"
    write_checkpoint(folder, file, metadata=metadata)
    assert inspect_checkpoint(file).stated_type == (expected, "its metadata")
    assert load(file).prediction_type == expected
    assert load(file, prediction_type="sample").prediction_type == "sample"


def test_markers_and_the_file_beside_it_decide_too(folder: Path, tmp_path: Path) -> None:
    tensors = write_checkpoint(folder, tmp_path / "plain.safetensors")
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    marked = load(save_tensors(tensors | marks, tmp_path / "marked.safetensors"))
    assert marked.prediction_type == "v_prediction"
    assert marked.schedule.alpha_cumprod(998) < 1e-5
    (tmp_path / "plain.yaml").write_text('model:\n  params:\n    parameterization: "v"\n    linear_start: 0.00085\n')
    assert load(tmp_path / "plain.safetensors").prediction_type == "v_prediction"


@pytest.mark.parametrize(("spread", "family", "expected"), [(0.05, "2.x", "epsilon"), (0.2, "2.x", "v_prediction")])
def test_without_a_statement_comfyuis_rule_decides(
    folder: Path, tmp_path: Path, spread: float, family: str, expected: str
) -> None:
    tensors = write_checkpoint(folder, tmp_path / "plain.safetensors", family=family)
    signs = torch.ones_like(tensors[NORM])
    signs[::2] = -1.0
    file = inspect_checkpoint(save_tensors(tensors | {NORM: spread * signs}, tmp_path / "rule.safetensors"))
    assert file.norm_of_rule == NORM
    decided, reason = prediction_of(file, load_file(file.path), asked=None)
    assert decided == expected
    assert f"{spread:.3f}" in reason
    assert "--prior-type" in reason


def test_a_file_of_1x_without_a_statement_predicts_epsilon(folder: Path, tmp_path: Path) -> None:
    tensors = write_checkpoint(folder, tmp_path / "plain.safetensors", family="1.x")
    file = save_tensors(tensors | {NORM: torch.arange(float(len(tensors[NORM])))}, tmp_path / "rule.safetensors")
    assert load(file).prediction_type == "epsilon"


def test_a_check_reads_no_weights_and_finds_the_same(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_checkpoint(folder, file, metadata={"modelspec.prediction_type": "v", "modelspec.resolution": "128x128"})
    loaded, report = load(file), check_prior(str(file))
    assert isinstance(report, PriorReport)
    assert (report.prediction_type, report.image_size) == (loaded.prediction_type, loaded.image_size)
    assert report.image_size == 128
    assert "v_prediction (by its metadata)" in "\n".join(report.lines())


# What is refused.


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(name)}


def renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


def added(name: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: tensors | {name: torch.zeros(*shape)}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without("first_stage_model."), "has no VAE"),
        (without("cond_stage_model."), "has no text encoder"),
        (without("model."), "is no checkpoint of Stable Diffusion"),
        (without("model.diffusion_model.middle_block.1.norm."), "lacks 2 weights of the unet"),
        (without("first_stage_model.quant_conv."), "lacks 2 weights of the vae"),
        (without("cond_stage_model.model.ln_final."), "lacks 2 weights of the text_encoder"),
        (added("model.diffusion_model.out.2.bias", 5), r"out.bias of its unet is \(5,\) and not \(4,\)"),
        (added("model.diffusion_model.input_blocks.0.0.weight", 32, 9, 3, 3), "an inpainting checkpoint"),
        (added("model.diffusion_model.input_blocks.0.0.weight", 32, 8, 3, 3), "an instruct-pix2pix checkpoint"),
        (added("model.diffusion_model.input_blocks.0.0.weight", 32, 5, 3, 3), "a depth checkpoint"),
        (renamed("cond_stage_model.", "conditioner.embedders.0."), "a checkpoint of Stable Diffusion XL"),
        (added("model.diffusion_model.joint_blocks.0.x.weight", 2, 2), "a checkpoint of Stable Diffusion 3"),
        (added("model.diffusion_model.double_blocks.0.x.weight", 2, 2), "a checkpoint of FLUX"),
        (added("control_model.time_embed.0.weight", 2, 2), "a ControlNet"),
    ],
)
def test_other_files_are_refused_by_what_they_are(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], line: str
) -> None:
    tensors = write_checkpoint(folder, tmp_path / "whole.safetensors")
    file = save_tensors(change(tensors), tmp_path / "changed.safetensors")
    for attempt in (load, lambda path: check_prior(str(path))):
        with pytest.raises(UserError, match=line) as caught:
            attempt(file)
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("v1-5.ckpt", b"PK\x03\x04", "a pickle, which can run code when it is opened"),
        ("renamed.safetensors", b"PK\x03\x04" + bytes(200), "a pickle, which can run code when it is opened"),
        ("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("page.safetensors", b"<!doctype html><html></html>", "is a web page"),
        ("quantised.safetensors", b"GGUF" + bytes(100), "a GGUF file"),
        ("empty.safetensors", b"", "is no safetensors file, or is cut short"),
        ("noise.safetensors", bytes(range(256)), "is no safetensors file, or is cut short"),
        ("list.safetensors", (2).to_bytes(8, "little") + b"[]", "its header cannot be read"),
        ("nothing.safetensors", (2).to_bytes(8, "little") + b"{}", "contains no tensors"),
    ],
)
def test_files_that_are_no_safetensors_are_refused_by_what_they_are(
    tmp_path: Path, name: str, content: bytes, line: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=line) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_is_refused_before_it_is_read(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_checkpoint(folder, file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match="bytes where its header announces"):
        load(file)


# What comes with the package.


def test_the_bundled_tokenizer_is_clips() -> None:
    """The ids that CLIP's own repository prints for these words."""
    tokenizer: Any = clip_tokenizer(pad_token="!")
    assert tokenizer("a photo of a cat").input_ids == [49_406, 320, 1125, 539, 320, 2368, 49_407]
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.model_max_length) == (49_408, 0, 77)


def test_the_bundled_merges_are_those_of_openclip() -> None:
    import gzip

    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        pytest.skip("needs CLIP's BPE file: pip install --no-deps open_clip_torch")
    packed = Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    assert clip_merges() == lines[1 : 49_152 - 256 - 2 + 1]


def test_each_family_has_its_published_architecture() -> None:
    base, v, older = (
        published_architecture("2.x", "epsilon"),
        published_architecture("2.x", "v_prediction"),
        published_architecture("1.x", "epsilon"),
    )
    assert (base.unet, v.unet) == (published_config("unet_512"), published_config("unet_768"))
    assert older.unet == older_config("unet")
    widths = [one.unet["cross_attention_dim"] for one in (base, v, older)]
    assert widths == [one.text_encoder["hidden_size"] for one in (base, v, older)] == [1024, 1024, 768]
    assert (base.pad_token, older.pad_token) == ("!", "<|endoftext|>")
