"""Kinds of folders, files and repositories that people have: each loads right, or ends in its own one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.check import PriorReport, check_prior
from sdi_gs.priors.hub_names import HubName, hub_name
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.layout import NETWORKS
from sdi_gs.settings.run import RunConfig

Build = Callable[[Path], object]
SUPPORTED = "text-to-image models of Stable Diffusion 1.x and 2.x in their layout are supported"


def edited(file: str, **changes: Any) -> Build:
    def build(folder: Path) -> None:
        path = folder / file
        stored = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({key: value for key, value in (stored | changes).items() if value is not ...}))

    return build


def scheduler(**changes: Any) -> Build:
    return edited("scheduler/scheduler_config.json", **changes)


def removed(name: str) -> Build:
    def build(folder: Path) -> None:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return build


def every_file(change: Callable[[Path], object]) -> Build:
    return lambda folder: [change(file) for network in NETWORKS for file in (folder / network).glob("*.safetensors")]


def as_fp16(file: Path) -> None:
    halves = {name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()}
    save_file(halves, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    file.unlink()


def as_pickle(file: Path) -> None:
    name = "pytorch_model.bin" if file.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


def sharded(folder: Path) -> None:
    [file] = (folder / "unet").glob("*.safetensors")
    tensors = load_file(file)
    names = sorted(tensors)
    weight_map = {}
    for index, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        shard = f"diffusion_pytorch_model-0000{index}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / "unet" / shard, metadata={"format": "pt"})
        weight_map |= {name: shard for name in part}
    size = sum(value.nbytes for value in tensors.values())
    index_file = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    file.unlink()


def other_unet(**changes: Any) -> Build:
    """Another U-Net with random weights, saved as diffusers does."""

    def build(folder: Path) -> None:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        stored = json.loads((folder / "unet" / "config.json").read_text())
        own: dict[str, Any] = {key: value for key, value in stored.items() if not key.startswith("_")} | changes
        unet: Any = UNet2DConditionModel(**own)
        unet.save_pretrained(folder / "unet")

    return build


def with_safety_checker(folder: Path) -> None:
    """As 1.x is published: a checker in pickles, an extractor, and the whole model once more in a single file."""
    for name in ("safety_checker/pytorch_model.bin", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not read")
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text("{}")


def with_pickle_twins(folder: Path) -> None:
    for network in NETWORKS:
        (folder / network / "diffusion_pytorch_model.bin").write_bytes(b"not read")


def as_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3463726504\n")


def inside_another(folder: Path) -> None:
    shutil.move(folder, folder.with_name("inner"))
    shutil.move(folder.with_name("inner"), folder / "inner")


def emptied_but_for(name: str) -> Build:
    def build(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        if name:
            (folder / name).write_bytes(b"not read")

    return build


def several(*builds: Build) -> Build:
    return lambda folder: [build(folder) for build in builds]


# The kind, how it is made of a sound folder of 2.1-base, and the line that refuses it, or None.
FOLDERS: dict[str, tuple[Build, str | None]] = {
    "as published": (lambda _: None, None),
    "without an index": (removed("model_index.json"), None),
    "half precision only": (every_file(as_fp16), None),
    "sharded": (sharded, None),
    "saved with Euler": (scheduler(_class_name="EulerDiscreteScheduler", timestep_spacing="linspace"), None),
    "v, trailing, zero terminal SNR": (
        scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        None,
    ),
    "trained betas": (scheduler(trained_betas=[0.001] * 1000, beta_start=..., beta_end=..., beta_schedule=...), None),
    "distilled by its scheduler": (scheduler(_class_name="LCMScheduler"), None),
    "distilled, as SD-Turbo": (scheduler(_class_name="EulerDiscreteScheduler", timestep_spacing="trailing"), None),
    "distilled by its U-Net": (other_unet(time_cond_proj_dim=8), None),
    "as 1.5 is published": (with_safety_checker, None),
    "pickles beside safetensors": (with_pickle_twins, None),
    "image to image": (edited("model_index.json", _class_name="StableDiffusionImg2ImgPipeline"), None),
    "pickles only": (every_file(as_pickle), "the text_encoder in .* no .safetensors, only pytorch_model.bin, a pickle"),
    "no betas": (
        scheduler(beta_start=..., beta_end=..., beta_schedule=...),
        "PNDMScheduler has no beta_start, no beta_end, no beta_schedule, so that its noise levels are unknown",
    ),
    "flow": (
        scheduler(_class_name="FlowMatchEulerDiscreteScheduler"),
        "FlowMatchEulerDiscreteScheduler belongs to a flow model",
    ),
    "unknown prediction": (scheduler(prediction_type="flow"), "prediction_type 'flow' is unknown.*--prior-type"),
    "SDXL": (
        edited("model_index.json", _class_name="StableDiffusionXLPipeline"),
        f"is a StableDiffusionXLPipeline, which cannot be used: {SUPPORTED}",
    ),
    "SDXL without an index": (
        several(removed("model_index.json"), edited("text_encoder_2/config.json", architectures=["CLIPTextModel"])),
        r"has a text_encoder_2 \(CLIPTextModel\), which cannot be used",
    ),
    "SD3": (
        edited("model_index.json", _class_name="StableDiffusion3Pipeline"),
        "is a StableDiffusion3Pipeline, which cannot be used",
    ),
    "FLUX without an index": (
        several(
            removed("model_index.json"),
            removed("unet"),
            edited("transformer/config.json", _class_name="FluxTransformer2DModel"),
        ),
        r"has a transformer \(FluxTransformer2DModel\), which cannot be used",
    ),
    "DeepFloyd IF": (
        several(edited("model_index.json", _class_name="IFPipeline"), removed("vae")),
        "is a IFPipeline, which cannot be used",
    ),
    "inpainting": (
        edited("model_index.json", _class_name="StableDiffusionInpaintPipeline"),
        "is a StableDiffusionInpaintPipeline, which cannot be used",
    ),
    "upscaling": (
        edited("model_index.json", _class_name="StableDiffusionUpscalePipeline"),
        "is a StableDiffusionUpscalePipeline, which cannot be used",
    ),
    "instruct-pix2pix without an index": (
        several(removed("model_index.json"), other_unet(in_channels=8)),
        "its unet has in_channels 8, its vae needs 4",
    ),
    "ControlNet beside it": (
        edited("controlnet/config.json", _class_name="ControlNetModel"),
        r"has a controlnet \(ControlNetModel\), which cannot be used",
    ),
    "pointers of Git LFS": (every_file(as_pointer), "text_encoder.* is a pointer of Git LFS.*git lfs pull"),
    "in a folder of its own": (inside_another, r"lacks its tokenizer \(no tokenizer/tokenizer.json\)"),
    "an empty folder": (emptied_but_for(""), r"lacks its tokenizer \(no tokenizer/tokenizer.json\)"),
    "single files alone": (
        emptied_but_for("dreamshaper_8.safetensors"),
        "has no unet/ but single files: give the path of one, such as .*model/dreamshaper_8.safetensors",
    ),
    "TAESD": (
        edited("vae/config.json", _class_name="AutoencoderTiny"),
        "the vae in .* is AutoencoderTiny, where AutoencoderKL is needed",
    ),
    "no vae": (removed("vae"), r"lacks its vae \(no vae/config.json\): complete the folder"),
    "tokenizer without merges": (removed("tokenizer/merges.txt"), "the tokenizer in .* cannot be loaded"),
    "scheduler that is a list": (
        lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("[]"),
        "the scheduler in .* cannot be loaded .*not a JSON object",
    ),
}


def one_line(attempt: Callable[[], object], line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        attempt()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_loads_right_or_ends_in_its_own_line(model_copy: Callable[..., Path], kind: str) -> None:
    build, line = FOLDERS[kind]
    folder = model_copy()
    build(folder)
    config = RunConfig(prior=str(folder))
    if line is not None:
        one_line(lambda: load_prior(config, device="cpu"), line)
        one_line(lambda: check_prior(str(folder)), line)
        return
    prior: Any = load_prior(config, device="cpu")
    noise = prior.predict_noise(torch.ones(1, 4, 8, 8), 500, prior.embed_prompts(["blue"]))
    assert noise.isfinite().all()
    # No schedule is read as another one. At zero terminal SNR the published levels' roots .525674 (of timestep 500),
    # .999575 (0) and .068264 (999) are shifted to end at 0 and scaled to begin where they did.
    shifted = ((0.525674 - 0.068264) * 0.999575 / (0.999575 - 0.068264)) ** 2
    expected = {"trained betas": 0.999**501, "v, trailing, zero terminal SNR": shifted}.get(kind, 0.276333)
    assert prior.schedule.alpha_cumprod(500) == pytest.approx(expected, abs=2e-4)
    assert prior.prediction_type == ("v_prediction" if kind.startswith("v,") else "epsilon")
    report = check_prior(str(folder))
    assert isinstance(report, PriorReport)
    assert (report.prediction_type, report.image_size) == (prior.prediction_type, prior.image_size)
    assert torch.equal(report.schedule.alphas_cumprod, prior.schedule.alphas_cumprod)
    warned = [note for note in report.notes if note.startswith("warning:")]
    assert len(warned) == kind.startswith("distilled")
    assert prior.notes == tuple(report.notes)


@pytest.mark.parametrize("name", ["sd-turbo", "LCM_Dreamshaper_v7", "Hyper-SD15", "bk-sdm-distilled", "tcd model"])
def test_a_folder_named_after_few_steps_is_warned_of(model_copy: Callable[..., Path], name: str) -> None:
    folder = model_copy()
    notes = load_prior(RunConfig(prior=str(folder.rename(folder.with_name(name)))), device="cpu").notes  # pyright: ignore[reportAttributeAccessIssue]
    assert [note for note in notes if "looks like a distilled model" in note and "in its name" in note] == list(notes)
    assert len(notes) == 1


@pytest.mark.parametrize("name", ["turboprop-planes", "hypersdf", "model", "anything-v5", "xlcmx"])
def test_other_names_are_not(model_copy: Callable[..., Path], name: str) -> None:
    folder = model_copy()
    assert load_prior(RunConfig(prior=str(folder.rename(folder.with_name(name)))), device="cpu").notes == ()  # pyright: ignore[reportAttributeAccessIssue]


# Repositories on a hub on this machine.


@pytest.mark.parametrize("form", ["a/model", "a/model@{commit}", "{hub}/a/model", "{hub}/a/model/tree/main"])
def test_every_form_of_a_name_on_the_hub_loads(
    hub: Any, pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    hub.repositories["a/model"] = pristine_models["v_prediction"]
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    name = form.format(hub="http://mirror.example", commit=hub.commit("a/model"))
    prior = load_prior(RunConfig(prior=name), device="cpu")
    assert isinstance(prior, LatentDiffusionPrior) and prior.prediction_type == "v_prediction"
    if "@" in form:
        assert any(hub.commit("a/model") in path for path in hub.asked)


def test_a_half_precision_repository_loads_and_a_mixed_one_is_fetched_once(
    hub: Any, model_copy: Callable[..., Path]
) -> None:
    folder = model_copy()
    [unet] = (folder / "unet").glob("*.safetensors")
    shutil.copyfile(unet, folder / "unet" / "kept")
    every_file(as_fp16)(folder)
    (folder / "unet" / "kept").rename(unet)
    hub.repositories["a/model"] = folder
    assert load_prior(RunConfig(prior="a/model"), device="cpu").image_size == 64
    fetched = {Path(path).name for path in hub.downloads() if path.endswith(".safetensors")}
    assert fetched == {unet.name, "model.fp16.safetensors", "diffusion_pytorch_model.fp16.safetensors"}
    assert not any("unet" in path and "fp16" in path for path in hub.downloads())


@pytest.mark.parametrize(
    ("build", "line"),
    [
        (every_file(as_pickle), "a/model has no safetensors of its text_encoder, only text_encoder/pytorch_model.bin"),
        (edited("model_index.json", _class_name="FluxPipeline"), "a/model is a FluxPipeline, which cannot be used"),
    ],
)
def test_a_repository_of_another_kind_is_refused_before_its_weights_are_fetched(
    hub: Any, model_copy: Callable[..., Path], build: Build, line: str
) -> None:
    folder = model_copy()
    build(folder)
    hub.repositories["a/model"] = folder
    one_line(lambda: load_prior(RunConfig(prior="a/model"), device="cpu"), line)
    assert not any(path.endswith((".safetensors", ".bin")) for path in hub.downloads())


def test_a_repository_of_single_files_names_one_of_them(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "style.safetensors").write_bytes(b"")
    hub.repositories["a/model"] = tmp_path / "files"
    one_line(lambda: load_prior(RunConfig(prior="a/model"), device="cpu"), "a/model/resolve/main/style.safetensors")


def test_a_repository_named_after_few_steps_is_warned_of(hub: Any, pristine_models: dict[str, Path]) -> None:
    hub.repositories["stabilityai/sd-turbo"] = pristine_models["epsilon"]
    prior: Any = load_prior(RunConfig(prior="stabilityai/sd-turbo"), device="cpu")
    assert ['"turbo" in its name' in note for note in prior.notes] == [True]


def test_a_repository_is_fetched_without_what_is_not_used(hub: Any, model_copy: Callable[..., Path]) -> None:
    folder = model_copy()
    with_safety_checker(folder)
    with_pickle_twins(folder)
    [unet] = (folder / "unet").glob("*.safetensors")
    shutil.copyfile(unet, unet.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    hub.repositories["a/model"] = folder
    load_prior(RunConfig(prior="a/model"), device="cpu")
    fetched = {path.split("/", 5)[5] for path in hub.downloads()}
    assert {name for name in fetched if name.endswith(".safetensors")} == {
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert not any(name.endswith((".bin", ".ckpt")) or name.startswith(("safety", "feature")) for name in fetched)


def test_a_gated_repository_says_how_to_log_in(hub: Any) -> None:
    hub.closed.add("a/model")
    one_line(lambda: load_prior(RunConfig(prior="a/model"), device="cpu"), "private or gated.*hf auth login.*HF_TOKEN")


def test_a_check_of_a_repository_fetches_no_weights(hub: Any, pristine_models: dict[str, Path]) -> None:
    hub.repositories["a/model"] = pristine_models["epsilon"]
    report = check_prior("a/model")
    assert isinstance(report, PriorReport)
    assert (report.image_size, report.size_bytes) == (64, None)
    assert not any(path.endswith(".safetensors") for path in hub.downloads())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubName(repo_id="owner/name")),
        ("owner/name@refs/pr/3", HubName(repo_id="owner/name", revision="refs/pr/3")),
        ("https://huggingface.co/owner/name/", HubName(repo_id="owner/name")),
        ("https://hf.co/owner/name/tree/fp16", HubName(repo_id="owner/name", revision="fp16")),
        (
            "https://huggingface.co/owner/name/blob/main/a%20b/x.safetensors?download=true",
            HubName(repo_id="owner/name", revision="main", file="a b/x.safetensors"),
        ),
        ("https://civitai.com/models/4384", None),
        ("https://huggingface.co/owner", None),
        ("../name", None),
        ("a/b/c", None),
    ],
)
def test_names_on_the_hub_are_read(text: str, expected: HubName | None) -> None:
    assert hub_name(text) == expected


def test_an_address_elsewhere_says_what_to_do() -> None:
    one_line(lambda: load_prior(RunConfig(prior="https://civitai.com/models/4384"), device="cpu"), "download the file")
