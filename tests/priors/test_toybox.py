"""The trained toybox prior: a folder of this package that the stock pipeline and ours read alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toybox_training.autoencoder import VaeTrainingConfig, build_vae
from toybox_training.denoiser import UnetTrainingConfig, build_networks
from toybox_training.folder import write_folder
from toybox_training.vocabulary import write_tokenizer

from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import UserError
from sdi_gs.guidance.guided_predictor import GuidedPredictor
from sdi_gs.guidance.prompts import Conditions, PromptConditions
from sdi_gs.guidance.schedule import add_noise, predicted_clean
from sdi_gs.priors import catalog, listing
from sdi_gs.priors.catalog import TOYBOX, is_instrument, load_prior
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.settings.run import RunConfig

MAX_BYTES = 20e6
"""What the folder of the package may weigh."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training writes, untrained and small."""
    from transformers import CLIPTokenizer

    root = tmp_path_factory.mktemp("toybox")
    write_tokenizer(root / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    networks = build_networks(UnetTrainingConfig(block_channels=(8, 64), text_width=16, text_layers=1), tokenizer)
    vae = build_vae(VaeTrainingConfig(block_channels=(8, 8, 8)))
    write_folder(root / "prior", vae=vae, unet=networks["unet"], text_encoder=networks["text_encoder"])
    return root / "prior"


@pytest.fixture
def package_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has the package's weights be those of another folder."""

    def put(folder: Path) -> None:
        entry = replace(TOYBOX, packaged=folder)
        entries = tuple(entry if known is TOYBOX else known for known in catalog.CATALOG)
        for module in (catalog, listing):
            monkeypatch.setattr(module, "CATALOG", entries)

    return put


@pytest.fixture
def prior(trained: Path, package_with: Callable[[Path], None]) -> LatentDiffusionPrior:
    package_with(trained)
    loaded = load_prior(RunConfig(prior="toybox"), device="cpu")
    assert isinstance(loaded, LatentDiffusionPrior)
    return loaded


def test_it_is_loaded_in_float32_for_the_renders_that_runs_make(prior: LatentDiffusionPrior) -> None:
    assert (prior.name, prior.image_size, prior.prediction_type) == ("toybox", 64, TOYBOX.prediction_type)
    assert {network.dtype for network in (prior.unet, prior.vae, prior.text_encoder)} == {torch.float32}
    assert prior.encode_images(torch.rand(2, 64, 64, 3), torch.Generator().manual_seed(0)).shape == (2, 4, 16, 16)


def test_the_stock_pipeline_samples_from_the_same_folder_what_ours_does(
    trained: Path, prior: LatentDiffusionPrior
) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(trained, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    texts, scale = ["a red ball, front view, white background", "a blue robot"], 3.0
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    images = pipeline(texts, guidance_scale=scale, num_inference_steps=4, latents=latents, output_type="pt").images
    conditions = Conditions(
        prompt_embeddings=prior.embed_prompts(texts), negative_embeddings=prior.embed_prompts(["", ""])
    )
    predict = GuidedPredictor(prior, conditions)
    for timestep in (751, 501, 251, 1):
        noise = predict(latents, timestep, scale)
        clean = predicted_clean(latents, noise, prior.schedule.alpha_cumprod(timestep))
        latents = add_noise(clean, noise, prior.schedule.alpha_cumprod(timestep - 250))
    torch.testing.assert_close(prior.decode_latents(latents), images.permute(0, 2, 3, 1), atol=1e-4, rtol=0.0)
    # The text has its part in it.
    assert (images[0] - images[1]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a blue dragon", 'does not know the word "dragon" in "a blue dragon"'),
        ("a red car and a blue robot", "more than one object"),
        ("something blue", "something"),
        ("blue", "names no object"),
        ("a robot on a green background", "background green"),
    ],
)
def test_it_refuses_what_it_would_only_guess_at(prior: LatentDiffusionPrior, prompt: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        PromptConditions(prior, prompt, backgrounds=("white", "gray", "black"))


def test_it_understands_every_text_that_a_run_makes_of_a_prompt(prior: LatentDiffusionPrior) -> None:
    config = preset_named("toybox").config
    conditions = PromptConditions(prior, "a house with a purple roof", backgrounds=config.backgrounds)
    assert conditions.negative_embeddings(1).shape == (1, prior.tokenizer.model_max_length, 16)
    front, back = (conditions.prompt_embeddings([side], ["gray"]) for side in ("front view", "back view"))
    assert (front - back).abs().max() > 1e-3


def test_the_folder_given_by_its_path_takes_any_words(trained: Path) -> None:
    by_path: Any = load_prior(RunConfig(prior=str(trained)), device="cpu")
    assert torch.isfinite(by_path.embed_prompts(["a blue dragon"])).all()


def test_a_run_with_it_goes_from_the_sentence_to_the_summary(
    trained: Path, package_with: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    package_with(trained)
    monkeypatch.chdir(tmp_path)
    options = ["--steps", "2", "--gaussians.num-initial", "100", "--outputs.turntable-frames", "0"]
    assert main(["train", "--prior", "toybox", "--prompt", "a red ball", "--device", "cpu", *options]) == 0
    summary = json.loads((tmp_path / "outputs/a-red-ball-1/summary.json").read_text())
    assert (summary["prior"], summary["prior_is_an_instrument"], summary["step"]) == ("toybox", True, 2)


def test_only_the_toybox_priors_are_instruments() -> None:
    names = ("toybox", "toybox-ideal", "sd21-base", "sd21", "toybox/of-somebody")
    assert [is_instrument(name) for name in names] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("removed", "lacks"),
    [
        (".", "tokenizer"),
        ("unet/config.json", "unet"),
        ("vae/diffusion_pytorch_model.safetensors", "weights"),
    ],
)
def test_missing_weights_are_one_line_with_two_ways_on(
    removed: str,
    lacks: str,
    trained: Path,
    package_with: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "prior"
    if removed != ".":
        shutil.copytree(trained, broken)
        (broken / removed).unlink()
    package_with(broken)
    for ask in (["priors", "fetch", "toybox"], ["train", "--prior", "toybox", "--prompt", "a blue robot"]):
        assert main([*ask, *(["--device", "cpu"] if ask[0] == "train" else [])]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        for word in (f"{broken} lacks its {lacks}", "install the package again", "toybox-ideal"):
            assert word in said
    assert main(["priors", "list", "toybox"]) == 0
    assert "not there, though it comes with this package" in capsys.readouterr().out


def test_the_list_says_what_it_is_where_it_is_and_whose(
    trained: Path, package_with: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    package_with(trained)
    assert main(["priors", "list", "toybox"]) == 0
    said = capsys.readouterr().out
    for word in ("this project's own", "an instrument", "licence Apache-2.0", f"in the package: {trained}", " MB"):
        assert word in said
    assert main(["priors", "fetch", "toybox"]) == 0
    assert capsys.readouterr().out.strip() == str(trained)


def test_what_the_package_carries_is_whole_and_small() -> None:
    folder = TOYBOX.packaged
    assert folder is not None
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert size <= MAX_BYTES
    # Whole, or not there at all.
    assert size == 0 or TOYBOX.packaged_folder() == folder
