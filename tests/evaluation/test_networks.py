"""The learned metrics' networks: tiny random ones in the published layouts give the numbers of their references."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_scorers import (
    image_reward_state,
    image_rewards,
    open_clip_embeddings,
    open_clip_state,
    random_pictures,
    transformers_clip,
    write_hps,
    write_image_reward,
)
from torch import Tensor

from sdi_gs.commands.main import main
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.clip_iqa import ANCHORS, iqa
from sdi_gs.evaluation.networks.clip import ClipNetwork, load_clip
from sdi_gs.evaluation.networks.files import NetworkFiles, network_files
from sdi_gs.evaluation.networks.image_reward import load_image_reward
from sdi_gs.evaluation.networks.kept import Networks
from sdi_gs.evaluation.networks.pixels import network_input
from sdi_gs.priors.clip_tokenizer import END, clip_tokenizer
from sdi_gs.settings.scoring import NetworkOptions

TEXTS = ["a red ball", "a blue robot on a chair, high detail", *(text for pair in ANCHORS.values() for text in pair)]


def files_at(path: Path) -> NetworkFiles:
    found = network_files(str(path))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformers_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> ClipNetwork:
    return load_clip(files_at(clip_folder))


def library_clip(folder: Path) -> tuple[Any, Any]:
    """The same network and its processor by transformers alone."""
    import transformers
    from transformers import CLIPModel, CLIPProcessor

    # transformers 5 has Pillow's processor under a name of its own.
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    images = kind(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CLIPModel.from_pretrained(folder), CLIPProcessor(images, clip_tokenizer(pad_token=END))


def clip_for_torchmetrics(folder: Path) -> tuple[Any, Any]:
    """The same with features as transformers 4 returned them: torchmetrics 1.9 cannot read those of transformers 5."""
    model, processor = library_clip(folder)
    for name in ("get_image_features", "get_text_features"):
        method = getattr(model, name)
        setattr(model, name, lambda *inputs, own=method: getattr(own(*inputs), "pooler_output", own(*inputs)))
    return model, processor


def as_tensors(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def test_clip_embeddings_are_those_of_transformers(clip: ClipNetwork, clip_folder: Path) -> None:
    model, processor = library_clip(clip_folder)
    pictures = random_pictures()
    inputs = processor(images=list(as_tensors(pictures)), text=TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs)
    torch.testing.assert_close(clip.pictures(pictures), expected.image_embeds, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(clip.texts(TEXTS), expected.text_embeds, atol=1e-5, rtol=0.0)


def test_clip_score_is_torchmetrics(clip: ClipNetwork, clip_folder: Path) -> None:
    functional = pytest.importorskip("torchmetrics.functional.multimodal", exc_type=ImportError)
    pictures = random_pictures()
    expected = functional.clip_score(
        list(as_tensors(pictures)),
        [TEXTS[0]] * len(pictures),
        model_name_or_path=lambda: clip_for_torchmetrics(clip_folder),
    )
    found = 100.0 * (clip.pictures(pictures) @ clip.texts(TEXTS[:1])[0]).mean()
    torch.testing.assert_close(found, expected.squeeze(), atol=1e-4, rtol=0.0)


def test_clip_iqa_is_torchmetrics(clip: ClipNetwork, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("torchmetrics.functional.multimodal.clip_iqa", exc_type=ImportError)
    monkeypatch.setattr(module, "_get_clip_iqa_model_and_processor", lambda _: clip_for_torchmetrics(clip_folder))
    pictures = random_pictures()
    # The processor divides by 255 itself, so that these are the values to give it.
    expected = module.clip_image_quality_assessment(
        as_tensors(pictures), "openai/clip-vit-base-patch16", prompts=tuple(ANCHORS)
    )
    found = iqa(clip.pictures(pictures), clip.texts(TEXTS[2:]))
    for column, name in enumerate(ANCHORS):
        torch.testing.assert_close(found[:, column], expected[name], atol=1e-5, rtol=0.0)


def test_clip_iqa_is_the_softmax_of_each_pair() -> None:
    pictures = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    anchors = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    for column in range(3):
        better, worse = (100.0 * (pictures @ anchors[2 * column + which]) for which in (0, 1))
        expected = 1.0 / (1.0 + torch.exp(worse - better))
        torch.testing.assert_close(iqa(pictures, anchors)[:, column], expected, atol=1e-6, rtol=0.0)


def test_openclips_layout_is_openclips_network(tmp_path: Path) -> None:
    network = load_clip(files_at(write_hps(tmp_path / "HPS_v2_compressed.pt")))
    pictures = random_pictures()
    words = torch.zeros(1, 77, dtype=torch.long)
    ids = clip_tokenizer(pad_token=END)(TEXTS[:1]).input_ids[0]
    words[0, : len(ids)] = torch.tensor(ids)
    expected = open_clip_embeddings(open_clip_state(), network_input(pictures, 32), words)
    torch.testing.assert_close(network.pictures(pictures), expected[0], atol=1e-5, rtol=0.0)
    torch.testing.assert_close(network.texts(TEXTS[:1]), expected[1], atol=1e-5, rtol=0.0)
    assert network.layout == "OpenCLIP"


@pytest.mark.parametrize("pickled", [False, True])
def test_image_reward_is_its_authors_network(tmp_path: Path, pickled: bool) -> None:
    network = load_image_reward(files_at(write_image_reward(tmp_path / "reward", pickled=pickled)))
    pictures = random_pictures()
    # [CLS] a red rob ##ot [SEP], padded to 35.
    words, mask = torch.zeros(1, 35, dtype=torch.long), torch.zeros(1, 35, dtype=torch.long)
    words[0, :6], mask[0, :6] = torch.tensor([2, 5, 6, 9, 10, 3]), 1
    expected = image_rewards(image_reward_state(), network_input(pictures, 32), words, mask)
    found = network.scores(pictures, "A red robot")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)
    assert expected.std() > 1e-3


def test_pixels_are_resized_as_published(clip_folder: Path) -> None:
    _, processor = library_clip(clip_folder)
    pictures = random_pictures()
    expected = processor.image_processor(list(as_tensors(pictures)), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(network_input(pictures, 32), expected, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("role", ["clip", "hps"])
def test_weights_of_another_layout_are_refused_in_one_line(tmp_path: Path, role: str) -> None:
    save_file({"encoder.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    networks = Networks(NetworkOptions(clip=str(tmp_path), hps=str(tmp_path)))
    with pytest.raises(UserError, match=r"weights in another layout than CLIP's .*: its first entry is encoder.weight"):
        networks.clip("clip" if role == "clip" else "hps")


def test_an_image_reward_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    folder = write_image_reward(tmp_path)
    state = image_reward_state()
    del state["blip.text_encoder.encoder.layer.1.output.dense.bias"]
    save_file(state, folder / "ImageReward.safetensors")
    with pytest.raises(UserError, match=r"another layout than ImageReward's: it has no encoder.layer.1.output.dense"):
        load_image_reward(files_at(folder))
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"has no vocab.txt beside it"):
        load_image_reward(files_at(folder))


def test_a_clip_of_other_widths_than_its_config_is_refused(tmp_path: Path, clip_folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    text = (tmp_path / "config.json").read_text().replace('"projection_dim": 16', '"projection_dim": 8')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"another layout than CLIP's .*size mismatch"):
        load_clip(files_at(tmp_path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harmed",)

    torch.save({"state_dict": Harm()}, tmp_path / "HPS.pt")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_clip(files_at(tmp_path / "HPS.pt"))
    assert not (tmp_path / "harmed").exists()


def test_networks_that_are_not_here_name_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    networks = Networks(NetworkOptions(hps="owner/hps"))
    assert networks.why_not("clip") == "no weights of clip-b32 here: sdi-gs priors fetch clip-b32"
    assert networks.why_not("hps") == "no weights of owner/hps here: hf download owner/hps"
    with pytest.raises(UserError, match="no weights of clip-b32"):
        networks.clip("clip")
    with pytest.raises(UserError, match="is no network for scores"):
        Networks(NetworkOptions(clip="clip-b64")).why_not("clip")


@pytest.mark.parametrize("has_safe", [True, False])
def test_fetch_takes_the_files_that_are_used_and_no_pickle_beside_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_safe: bool
) -> None:
    names = ["config.json", "pytorch_model.bin", "tf_model.h5", *(["model.safetensors"] if has_safe else [])]
    about = SimpleNamespace(sha="a" * 40, siblings=[SimpleNamespace(rfilename=name) for name in names])
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: about)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repo_id, **options: asked.append({"id": repo_id, **options}) or tmp_path,
    )
    assert main(["priors", "fetch", "clip-b32"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    [call] = asked
    assert call["id"] == "openai/clip-vit-base-patch32"
    kept = [
        name
        for name in names
        if any(fnmatch(name, pattern) for pattern in call["allow_patterns"])
        and not any(fnmatch(name, pattern) for pattern in call["ignore_patterns"])
    ]
    assert kept == ["config.json", "model.safetensors" if has_safe else "pytorch_model.bin"]


def test_the_manifest_records_files_and_their_sums(clip_folder: Path) -> None:
    networks = Networks(NetworkOptions(clip=str(clip_folder), prompt_template="a photo of {prompt}"))
    networks.clip("clip")
    [record] = networks.records()
    assert (record["role"], record["id"], record["revision"]) == ("clip", str(clip_folder), None)
    assert record["prompt_template"] == "a photo of {prompt}"
    assert record["picture_size"] == 32
    [(name, digest)] = record["sha256"].items()
    import hashlib

    assert digest == hashlib.sha256((clip_folder / name).read_bytes()).hexdigest()
