"""Networks of four views: against a transcription of MVDream's published forward pass, and as folders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_mvdream import TEXT, Published, diffusers_unet, published_weights
from tiny_pipeline import SCHEDULERS, write_model

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.checkpoint_files import CAMERA_MLP, UNET, views_at
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.multiview import camera_numbers
from sdi_gs.priors.tuning import set_attention
from sdi_gs.runs.finish import finish
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.saving import save_state
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig


@pytest.mark.parametrize("attention", ["sdpa", "plain"])
@pytest.mark.parametrize("timestep", [1, 640])
def test_the_network_is_the_published_one(attention: Any, timestep: int) -> None:
    weights, draws = published_weights(), torch.Generator().manual_seed(1)
    unet = diffusers_unet(weights)
    set_attention(unet, attention)
    # Two branches of one group.
    latents = torch.randn(8, 4, 8, 8, generator=draws)
    text, cameras = torch.randn(8, 5, TEXT, generator=draws), torch.randn(8, 16, generator=draws)
    expected = Published(weights)(latents, timestep, text, cameras)
    found = unet(latents, timestep, encoder_hidden_states=text, class_labels=cameras).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_every_view_answers_to_the_others_of_its_group_and_to_no_other_group() -> None:
    unet, draws = diffusers_unet(published_weights()), torch.Generator().manual_seed(2)
    set_attention(unet, "sdpa")
    text, cameras = torch.randn(8, 5, TEXT, generator=draws), torch.randn(8, 16, generator=draws)
    latents = torch.randn(8, 4, 8, 8, generator=draws)
    changed = latents.clone()
    changed[1] += 1.0
    before, after = (
        unet(given, 300, encoder_hidden_states=text, class_labels=cameras).sample for given in (latents, changed)
    )
    moved = (before - after).flatten(1).abs().amax(dim=1)
    assert all(moved[:4] > 1e-4)
    torch.testing.assert_close(before[4:], after[4:])


def test_camera_numbers_are_those_of_the_published_matrices() -> None:
    azimuth, elevation = torch.tensor([0.0, 30.0, 200.0]), torch.tensor([0.0, 20.0, -10.0])
    cameras = orbit_cameras(azimuth, elevation, 0 * azimuth + 2.7, 0 * azimuth + 40.0, width=8, height=8)
    for row, (turn, height) in enumerate(zip(np.radians(azimuth.numpy()), np.radians(elevation.numpy()), strict=True)):
        place = np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)])
        forward = -place
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack([right, np.cross(right, forward), -forward, place], axis=1)
        np.testing.assert_allclose(camera_numbers(cameras)[row].numpy(), matrix.flatten(), atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in the folder layout whose U-Net takes four views and their cameras."""
    return write_model(tmp_path_factory.mktemp("models") / "four-views", SCHEDULERS["epsilon"], four_views=True)


def settings(folder: Path, **values: Any) -> RunConfig:
    given: dict[str, Any] = {
        "prior": str(folder),
        "steps": 20,
        "views_per_step": 4,
        "cameras.views_per_group": 4,
        "guidance.views": "cameras",
        "gaussians.num_initial": 60,
        "outputs.turntable_frames": 0,
        "outputs.preview_every": 0,
        "prompt_background": False,
    }
    return preset("smoke", given | values, prompt="blue")


def group(*firsts: float) -> CameraBatch:
    azimuth = torch.tensor([first + turn for first in firsts for turn in (0.0, 90.0, 180.0, 270.0)])
    return orbit_cameras(azimuth, 0 * azimuth + 10.0, 0 * azimuth + 3.0, 0 * azimuth + 40.0, width=64, height=64)


def test_a_folder_answers_by_its_cameras_branch_after_branch(folder: Path) -> None:
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    assert (prior.views_per_group, prior.knows_cameras) == (4, True)
    latents = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    embeddings = prior.embed_prompts(["blue"] * 8 + [""] * 8)
    together = prior.predict_noise(latents, 500, embeddings, group(0.0, 40.0))
    for first, turn in ((0, 0.0), (4, 40.0), (8, 0.0), (12, 40.0)):
        rows = slice(first, first + 4)
        alone = prior.predict_noise(latents[rows], 500, embeddings[rows], group(turn))
        torch.testing.assert_close(together[rows], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together, prior.predict_noise(latents, 500, embeddings, group(40.0, 0.0)), atol=1e-3)
    with pytest.raises(UserError, match="needs to know the cameras"):
        prior.predict_noise(latents, 500, embeddings)
    with pytest.raises(UserError, match="takes 4 views at equal turns together, got 3 in 6 rows"):
        prior.predict_noise(latents[:6], 500, embeddings[:6], group(0.0).rows(slice(3)))


@pytest.mark.parametrize("option", [{"cuda_graphs": True}, {"unet_engine": "openvino"}])
def test_engines_of_single_views_are_refused(folder: Path, option: dict[str, Any]) -> None:
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    with pytest.raises(UserError, match="is for networks of single views"):
        prior.configure(ComputeConfig(**option))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"guidance.views": "words"}, "four-views needs to know the cameras"),
        ({"cameras.views_per_group": 1}, "four-views denoises 4 views .* cameras.views_per_group is 1"),
    ],
)
def test_a_run_without_groups_is_refused_before_loading(folder: Path, values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_prior(settings(folder, **values))


def finished(config: RunConfig, path: Path, *, stop: int | None = None) -> bytes:
    trainer, run = prepare_run(config, folder=path)
    if stop is not None:
        assert not train(trainer, run, should_stop=lambda: trainer.step >= stop)
        save_state(trainer, run)
        trainer, run = prepare_resume(path)
        assert trainer.step == stop
    assert train(trainer, run)
    finish(trainer, run, started=time.perf_counter())
    return run.splats.read_bytes()


def test_a_stopped_run_under_a_folder_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    config = settings(folder)
    assert finished(config, tmp_path / "whole") == finished(config, tmp_path / "stopped", stop=9)


def test_a_single_file_is_known_by_its_embedding_of_cameras(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name, views in ((f"{CAMERA_MLP}0.weight", 4), (f"{UNET}time_embed.0.weight", 1)):
        save_file({name: torch.zeros(2, 2)}, tmp_path / "model.safetensors")
        assert views_at(tmp_path / "model.safetensors") == views
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    assert views_at(tmp_path / "model.safetensors") == views_at(tmp_path / "none") == 1
    assert views_at(folder) == 4


def test_listing_and_checking_name_the_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["priors", "list", str(folder)]) == 0
    assert "denoises 4 views of one object together: --cameras.views-per-group 4" in capsys.readouterr().out
    assert main(["priors", "check", str(folder)]) == 0
    assert "4 views of one object together: --guidance.views cameras" in capsys.readouterr().out
