"""A run with a LoRA and a learned word, from the command to the resumed run: recorded, and only with the same files."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from command_line import QUICK, files_in, refusal
from original_layout import save_tensors
from small_runs import BYTES_THAT_REPEAT, assert_same_results
from tiny_pipeline import SCHEDULERS, write_model

from sdi_gs.commands.main import main
from sdi_gs.priors.catalog import load_prior
from sdi_gs.runs.folder import RunFolder
from sdi_gs.settings.run import RunConfig

LAYERS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (32, 32),
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (16, 16),
}
STEPS, HALF = 4, 2


def write_lora(file: Path, seed: int) -> Path:
    """A LoRA of U-Net and text encoder, in kohya's layout and strong enough to be seen in four steps."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for layer, (out, inner) in LAYERS.items():
        tensors[f"{layer}.lora_down.weight"] = torch.randn(2, inner, generator=generator)
        tensors[f"{layer}.lora_up.weight"] = torch.randn(out, 2, generator=generator)
        tensors[f"{layer}.alpha"] = torch.tensor(2.0)
    return save_tensors(tensors, file)


def write_word(file: Path, seed: int) -> Path:
    """A textual inversion of two vectors, of the text encoder's width."""
    return save_tensors({"emb_params": torch.randn(2, 16, generator=torch.Generator().manual_seed(seed))}, file)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a LoRA and a learned word; nobody writes to it."""
    folder = tmp_path_factory.mktemp("files")
    with torch.random.fork_rng():
        write_model(folder / "model", SCHEDULERS["epsilon"], words=True)
    write_lora(folder / "style.safetensors", seed=0)
    write_word(folder / "my-cat.safetensors", seed=1)
    return folder


def train(files: Path, folder: Path, *more: str) -> Path:
    """Run four steps whose prompt has the learned word in it."""
    prior = ["--preset", "smoke", "--prior", str(files / "model"), "--prompt", "my-cat as a statue", "--device", "cpu"]
    length = ["--steps", str(STEPS), "--outputs.checkpoint-every", str(HALF), "--outputs.turntable-size", "32"]
    assert main(["train", *prior, *QUICK, *length, "--output-dir", str(folder), *more]) == 0
    return folder


def add_ons(files: Path) -> list[str]:
    return ["--lora", f"{files / 'style.safetensors'}:0.5", "--embedding", str(files / "my-cat.safetensors")]


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with both files; nobody writes to it."""
    return train(files, tmp_path_factory.mktemp("runs") / "cat", *add_ons(files))


@pytest.fixture
def stopped(run: Path, tmp_path: Path) -> Path:
    """The same run as it is when the power fails after half of its steps."""
    folder = tmp_path / "stopped"
    shutil.copytree(run, folder)
    shutil.rmtree(folder / f"checkpoints/step_{STEPS:06d}")
    for path in [*folder.glob("*.p*"), *folder.glob("*.mp4"), *folder.glob("*.json")]:
        path.unlink()
    return folder


def test_the_files_are_recorded_with_their_weights_and_sums(run: Path, files: Path) -> None:
    sums = {
        name: sha256((files / name).read_bytes()).hexdigest() for name in ("style.safetensors", "my-cat.safetensors")
    }
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["lora"] == [f"{files / 'style.safetensors'}:0.5"]
    assert config["embedding"] == [str(files / "my-cat.safetensors")]
    assert config["prior_sums"] == list(sums.values())
    assert json.loads((run / "summary.json").read_text())["prior_files"] == [
        {"file": str(files / "style.safetensors"), "sha256": sums["style.safetensors"], "weight": 0.5},
        {"file": str(files / "my-cat.safetensors"), "sha256": sums["my-cat.safetensors"]},
    ]


def test_each_file_changes_what_is_made(run: Path, files: Path, tmp_path: Path) -> None:
    made = {(run / "splats.ply").read_bytes()}
    for index, names in enumerate(([], add_ons(files)[:2], add_ons(files)[2:])):
        made.add((train(files, tmp_path / str(index), *names) / "splats.ply").read_bytes())
    assert len(made) == 4


def test_a_stopped_run_goes_on_with_the_same_bits(run: Path, stopped: Path) -> None:
    assert main(["train", "--resume", str(stopped), "--device", "cpu"]) == 0
    assert_same_results(RunFolder(run), RunFolder(stopped), BYTES_THAT_REPEAT)


@pytest.mark.parametrize("name", ["style.safetensors", "my-cat.safetensors"])
def test_a_file_that_changed_since_is_refused_and_nothing_is_lost(
    stopped: Path, files: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(stopped)
    kept = tmp_path / name
    (files / name).rename(kept)
    try:
        gone = refusal(["train", "--resume", str(stopped), "--device", "cpu"], capsys)
        (write_lora if name.startswith("style") else write_word)(files / name, seed=7)
        changed = refusal(["train", "--resume", str(stopped), "--device", "cpu"], capsys)
    finally:
        kept.replace(files / name)
    assert f"there is no file {files / name}" in gone
    assert f"{files / name} changed since this run's config was written" in changed
    assert files_in(stopped) == before


def test_another_weight_is_another_run(stopped: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--lora", f"{files / 'style.safetensors'}:0.7"]
    assert "lora is [" in refusal(["train", "--resume", str(stopped), *other, "--device", "cpu"], capsys)


def test_without_its_lora_a_model_has_its_own_bits(files: Path) -> None:
    plain, styled, again = (
        load_prior(RunConfig(prior=str(files / "model"), lora=names), device="cpu")
        for names in ((), (str(files / "style.safetensors"),), ())
    )
    latents = torch.ones(1, 4, 8, 8)
    given, with_lora, without = (
        prior.predict_noise(latents, 500, prior.embed_prompts(["a cat"])) for prior in (plain, styled, again)
    )
    assert torch.equal(given, without)
    assert not torch.equal(given, with_lora)


# What a dry run finds before anything is loaded.


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--lora", "nix.safetensors"], "there is no file nix.safetensors: check --lora"),
        (["--lora", "{files}/my-cat.safetensors"], "my-cat.safetensors is no LoRA"),
        (["--lora", "{files}/wide.safetensors"], r"the LoRA changes (64, 64)"),
        (["--embedding", "{files}/style.safetensors"], "style.safetensors is no textual inversion"),
        (["--embedding", "{files}/long.safetensors"], "vectors of 768 numbers, the model's text encoder needs 16"),
        (["--prior", "toybox-ideal", "--lora", "{files}/style.safetensors"], "toybox-ideal has none"),
        (["--prior", "{files}/unbetaed"], "has no beta_start, no beta_end"),
    ],
)
def test_a_dry_run_refuses_what_does_not_fit(
    files: Path, given: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    wide = {f"{layer}.lora_down.weight": torch.ones(2, 64), f"{layer}.lora_up.weight": torch.ones(64, 2)}
    save_tensors(wide, tmp_path / "wide.safetensors")
    save_tensors({"emb_params": torch.ones(1, 768)}, tmp_path / "long.safetensors")
    shutil.copytree(files / "model", tmp_path / "unbetaed")
    (tmp_path / "unbetaed" / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}')
    for name in ("style.safetensors", "my-cat.safetensors"):
        shutil.copyfile(files / name, tmp_path / name)
    model = [] if "--prior" in given else ["--prior", str(files / "model")]
    options = [part.format(files=tmp_path) for part in given]
    assert line in refusal(
        ["train", "--preset", "smoke", "--prompt", "x", *model, *options, "--dry-run", "--device", "cpu"], capsys
    )


def test_a_dry_run_prints_the_notes_on_a_model_and_its_lora(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(files / "style.safetensors", tmp_path / "Hyper-SD15-8steps.safetensors")
    shutil.copytree(files / "model", tmp_path / "model")
    config = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"timestep_spacing": "linspace"}))
    given = ["--prior", str(tmp_path / "model"), "--lora", str(tmp_path / "Hyper-SD15-8steps.safetensors")]
    assert main(["train", "--preset", "smoke", "--prompt", "x", *given, "--dry-run", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert '# timestep_spacing "linspace" is taken as "leading"' in printed
    assert "# warning: Hyper-SD15-8steps.safetensors looks like a LoRA for sampling in few steps" in printed
    assert yaml.safe_load(printed)["lora"] == [str(tmp_path / "Hyper-SD15-8steps.safetensors")]
