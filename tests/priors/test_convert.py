"""Files with whole models become folders of safetensors: MVDream's pickle in its published layout, and others."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from original_layout import use_toy_architecture, write_checkpoint
from published_mvdream import TEXT, Published, published_weights
from torch import Tensor

from sdi_gs.cameras import orbit_cameras
from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import MVDREAM, load_prior
from sdi_gs.priors.checkpoint_files import CAMERA_MLP, UNET
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.multiview import camera_numbers
from sdi_gs.priors.noise_schedules import scaled_linear_schedule


@pytest.fixture
def model(pristine_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toy model; its architecture and tokenizer stand for the published ones."""
    use_toy_architecture(pristine_models["epsilon"], monkeypatch, vae_size=128)
    return pristine_models["epsilon"]


@pytest.fixture(scope="module")
def published(pristine_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The tensors of MVDream's file: the U-Net by its own names, VAE, text encoder, and the schedule's buffers."""
    others = write_checkpoint(pristine_models["epsilon"], tmp_path_factory.mktemp("file") / "others.safetensors")
    networks = {f"{UNET}{name}": value for name, value in published_weights().items()}
    networks |= {name: value for name, value in others.items() if not name.startswith(UNET)}
    levels = scaled_linear_schedule().alphas_cumprod
    betas = torch.cat([1.0 - levels[:1], 1.0 - levels[1:] / levels[:-1]])
    return networks | {"betas": betas.float(), "alphas_cumprod": levels.float()}


@pytest.fixture
def tensors(published: dict[str, Tensor], model: Path) -> dict[str, Tensor]:
    """Those of the file, where the toy's architecture stands for the published one."""
    return dict(published)


def saved(content: Any, file: Path, **options: Any) -> Path:
    torch.save(content, file, **options)
    return file


def converted(file: Path, folder: Path) -> Path:
    assert main(["priors", "convert", str(file), str(folder)]) == 0
    return folder


def test_the_folder_of_mvdreams_file_predicts_what_the_transcription_does(
    tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = converted(saved(tensors, tmp_path / "sd-v2.1-base-4view.pt"), tmp_path / "out" / "mvdream")
    said = capsys.readouterr()
    assert said.out == f"{folder}\n"
    assert "predicts epsilon (by its embedding of cameras, MVDream's)" in said.err
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert (prior.views_per_group, prior.image_size, prior.prediction_type) == (4, 256, "epsilon")
    draws, turns = torch.Generator().manual_seed(0), torch.arange(4.0) * 90.0
    cameras = orbit_cameras(turns + 20.0, 0 * turns + 15.0, 0 * turns + 2.0, 0 * turns + 40.0, width=8, height=8)
    latents, text = torch.randn(8, 4, 8, 8, generator=draws), torch.randn(8, 5, TEXT, generator=draws)
    found = prior.predict_noise(latents, 640, text, cameras)
    expected = Published(published_weights())(latents, 640, text, camera_numbers(cameras).repeat(2, 1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_encoder_and_text_are_those_of_the_file(model: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    folder = converted(saved(tensors, tmp_path / "model.pt"), tmp_path / "mvdream")
    one, other = (load_latent_diffusion(path, device="cpu", dtype=torch.float32) for path in (model, folder))
    texts = ["a blue robot", ""]
    assert torch.equal(one.embed_prompts(texts), other.embed_prompts(texts))
    assert torch.equal(one.schedule.alphas_cumprod, other.schedule.alphas_cumprod)
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    modes = [prior.vae.encode(picture).latent_dist.mode() for prior in (one, other)]
    assert torch.equal(*modes)


@pytest.mark.parametrize(
    "way",
    [
        lambda tensors, path: saved({"state_dict": tensors, "global_step": 3}, path / "model.ckpt"),
        lambda tensors, path: saved(tensors, path / "model.pt", _use_new_zipfile_serialization=False),
        lambda tensors, path: saved({name: value.half() for name, value in tensors.items()}, path / "half.pt"),
    ],
    ids=["nested", "legacy", "half"],
)
def test_other_forms_of_the_same_file_give_the_same_weights(
    tensors: dict[str, Tensor], tmp_path: Path, way: Callable[..., Path]
) -> None:
    tensors = {name: value.half().float() for name, value in tensors.items() if name != "alphas_cumprod"}
    plain = converted(saved(tensors, tmp_path / "plain.pt"), tmp_path / "plain")
    other = converted(way(tensors, tmp_path), tmp_path / "other")
    one, two = (load_latent_diffusion(path, device="cpu", dtype=torch.float32).unet for path in (plain, other))
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_four_views_of_1_5_are_converted_too(model: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    older = write_checkpoint(model, tmp_path / "others.safetensors", family="1.x")
    text = {name: value for name, value in older.items() if name.startswith("cond_stage_model.")}
    text["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    rest = {name: value for name, value in tensors.items() if not name.startswith("cond_stage_model.")}
    folder = converted(saved(rest | text, tmp_path / "sd-v1.5-4view.pt"), tmp_path / "folder")
    prior, other = (load_latent_diffusion(path, device="cpu", dtype=torch.float32) for path in (folder, model))
    assert prior.views_per_group == 4
    assert torch.equal(prior.embed_prompts(["blue"]), other.embed_prompts(["blue"]))


def test_a_safetensors_file_of_single_views_becomes_a_folder_too(model: Path, tmp_path: Path) -> None:
    write_checkpoint(model, tmp_path / "model.safetensors", family="1.x")
    folder = converted(tmp_path / "model.safetensors", tmp_path / "folder")
    one, other = (load_latent_diffusion(path, device="cpu", dtype=torch.float32) for path in (model, folder))
    latents, text = torch.randn(2, 4, 8, 8), one.embed_prompts(["blue", ""])
    assert torch.equal(one.predict_noise(latents, 500, text), other.predict_noise(latents, 500, text))


def test_the_folder_names_its_origin_and_is_listed_and_checked(
    tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tensors, tmp_path / "model.pt")
    folder = converted(file, tmp_path / "mvdream")
    digest = sha256(file.read_bytes()).hexdigest()
    assert f"sha256 of model.pt: {digest}" in capsys.readouterr().err
    origin = json.loads((folder / "converted.json").read_text())
    assert origin == {"file": "model.pt", "bytes": file.stat().st_size, "sha256": digest}
    assert main(["priors", "list", str(folder)]) == main(["priors", "check", str(folder)]) == 0
    assert "denoises 4 views of one object together" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "mvdream"]


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(name)}


def added(name: str, value: Any) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda tensors: tensors | {name: value}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without(UNET), "is no checkpoint of Stable Diffusion"),
        (without("first_stage_model."), "has no VAE"),
        (without("cond_stage_model."), "has no text encoder"),
        (without(f"{CAMERA_MLP}2."), "lacks 2 weights of the unet"),
        (without(f"{UNET}middle_block.1.norm."), "lacks 2 weights of the unet"),
        (added(f"{CAMERA_MLP}0.weight", torch.zeros(128, 12)), r"linear_1.weight of its unet is \(128, 12\) and not"),
        (added(f"{UNET}out.2.bias", torch.zeros(5)), r"out.bias of its unet is \(5,\) and not \(4,\)"),
        (added(f"{UNET}out.2.bias", torch.full((4,), torch.nan)), "out.bias are not finite"),
        (added("alphas_cumprod", torch.linspace(1.0, 0.0, 1000)), "was trained on other noise levels"),
        (added("lora_unet_down.weight", torch.zeros(2, 2)), "is a LoRA"),
        (added("epoch", 3), "holds no weights: a table of tensors is expected, and 'epoch' is int"),
        (added("wide", torch.zeros(1).expand(10**12)), "'wide' is no plain tensor"),
        (added("sparse", torch.eye(3).to_sparse()), "'sparse' is no plain tensor"),
        (added("empty", torch.zeros(3, device="meta")), "'empty' is no plain tensor"),
        (added("harm", Harm()), "it holds 'posix.mkdir', and whatever is no tensor may run code"),
        (lambda _: [1, 2], "holds no weights: a table of tensors is expected, got list"),
        (lambda _: {}, "holds no weights: a table of tensors is expected, got dict"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line_and_leaves_nothing(
    tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Tensor]], Any],
    line: str,
) -> None:
    file = saved(change(tensors), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    refused(["priors", "convert", str(file), str(tmp_path / "mvdream")], line, capsys)
    assert list(tmp_path.iterdir()) == [file]


def refused(command: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("sdi-gs: ")
    assert re.search(line, last), last


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"PK\x03\x04", "is cut short, damaged or of another kind"),
        (b"\x80\x02}q\x00.", "is cut short, damaged or of another kind"),
        (b"", "is cut short, damaged or of another kind"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"<!doctype html>", "is a web page"),
    ],
)
def test_files_that_are_no_pickles_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, line: str
) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    refused(["priors", "convert", str(tmp_path / "model.pt"), str(tmp_path / "out")], line, capsys)
    assert not (tmp_path / "out").exists()


def test_a_pickle_under_another_name_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    refused(["priors", "convert", str(file), str(tmp_path / "out")], "a pickle by its content: name it .*[.]pt", capsys)


def test_nothing_is_overwritten_and_an_empty_folder_is_taken(
    tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = saved(tensors, tmp_path / "model.pt"), tmp_path / "mvdream"
    folder.mkdir()
    converted(file, folder)
    refused(["priors", "convert", str(file), str(folder)], "exists and is never overwritten", capsys)
    refused(["priors", "convert", str(tmp_path / "no.pt"), str(tmp_path / "x")], "there is no such file", capsys)
    refused(["priors", "convert", str(file)], "convert needs a file and a new folder", capsys)
    refused(["priors", "fetch", "mvdream", "there"], "fetch takes one name: leave there out", capsys)
    refused(["priors", "convert", str(file), str(tmp_path / "x"), "--json"], "convert prints a path", capsys)


def test_a_disk_without_room_and_an_interruption_leave_nothing(
    tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, before = saved(tensors, tmp_path / "model.pt"), None
    before = sorted(tmp_path.iterdir())
    command = ["priors", "convert", str(file), str(tmp_path / "mvdream")]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # pyright: ignore
        refused(command, "and 0.0 MB are free there: make room", capsys)
    with monkeypatch.context() as patch:
        patch.setattr("sdi_gs.priors.convert.inspect_folder", interrupt)
        assert main(command) == 130
    assert sorted(tmp_path.iterdir()) == before


# MVDream by its name in the catalogue.


@pytest.fixture
def served(hub: Any, tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    """MVDream's repository on the hub, with its file at toy size."""
    repository = tmp_path / "repository"
    repository.mkdir()
    hub.repositories["MVDream/MVDream"] = repository
    return saved(tensors, repository / "sd-v2.1-base-4view.pt")


def test_mvdream_is_fetched_converted_once_and_loaded(
    served: Path, hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["priors", "list", "mvdream"]) == main(["priors", "check", "mvdream"]) == 0
    said = capsys.readouterr().out
    assert "from MVDream/MVDream@d14ac9d78c48c266005729f2d5633f6c265da467, sd-v2.1-base-4view.pt" in said
    assert "sha256 compared: none, the published sums are unknown" in said
    assert "mvdream: not on this machine; sdi-gs priors fetch mvdream downloads MVDream/MVDream@d14" in said
    assert hub.downloads() == []
    assert main(["priors", "fetch", "mvdream"]) == 0
    told = capsys.readouterr()
    folder = Path(told.out.strip())
    assert "its tensors alone are read" in told.err
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()
    asked = len(hub.asked)
    assert main(["priors", "fetch", "mvdream"]) == main(["priors", "list", "mvdream"]) == 0
    assert f"on disk: {folder}" in capsys.readouterr().out
    config = preset("toybox-ideal-4view", prior="mvdream", prompt="a corgi")
    prior = load_prior(config)
    assert (prior.name, prior.knows_cameras, prior.image_size) == ("MVDream/MVDream", True, 256)
    assert main(["priors", "check", "mvdream"]) == 0
    assert "denoises 4 views of one object together" in capsys.readouterr().out
    assert len(hub.asked) == asked


def test_mvdream_with_another_sum_or_without_a_hub_is_one_line(
    served: Path, hub: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [source] = MVDREAM.sources
    summed = replace(MVDREAM, sources=(replace(source, known_sha256={served.name: "0" * 64}),))
    with monkeypatch.context() as patch:
        patch.setattr("sdi_gs.priors.listing.entry_named", lambda _: summed)
        refused(["priors", "fetch", "mvdream"], "is damaged or not the published file", capsys)
    del hub.repositories["MVDream/MVDream"]
    shutil.rmtree(Path(huggingface_hub.constants.HF_HUB_CACHE))
    refused(["priors", "fetch", "mvdream"], "no mvdream: no MVDream/MVDream.* from the hub", capsys)


def test_a_run_under_mvdream_needs_groups_and_cameras_before_anything_is_fetched(hub: Any) -> None:
    for changes, says in (
        ({"cameras.views_per_group": 1}, "mvdream denoises 4 views of one object together"),
        ({"guidance.views": "words"}, "mvdream needs to know the cameras"),
    ):
        with pytest.raises(UserError, match=says):
            load_prior(preset("toybox-ideal-4view", {"prior": "mvdream", "prompt": "a corgi", **changes}))
    assert hub.asked == []
