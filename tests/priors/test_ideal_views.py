"""toybox-ideal-4view, against a mixture over an explicit list of stacked renders in float64; runs under it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.configs.presets import preset
from sdi_gs.errors import UserError
from sdi_gs.priors.camera_windows import CameraWindows
from sdi_gs.priors.catalog import load_prior, require_known_prompt
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.runs.dry_run import run_lines
from sdi_gs.runs.finish import finish
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.saving import save_state
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BackgroundName
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values
from sdi_gs.toybox.classes import CLASSES, COLOURS
from sdi_gs.toybox.objects import sample_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.splits import split_seed
from sdi_gs.training.trainer import Trainer

SMALL = IdealPriorConfig(image_size=16, renders_per_window=8, azimuth_window_deg=40.0, elevation_window_deg=20.0)
TINY = {
    "ideal_prior.image_size": 16,
    "ideal_prior.renders_per_window": 8,
    "ideal_prior.azimuth_window_deg": 60.0,
    "steps": 6,
    "gaussians.num_initial": 40,
    "replay.steps_per_target": 1,
    "guidance.noise": "inversion",
    "guidance.guidance_scale": 2.0,
    "guidance.random_fraction": 0.0,
    "outputs.turntable_frames": 0,
    "outputs.checkpoint_every": 3,
    "outputs.preview_every": 0,
}


def prior_of(config: IdealPriorConfig) -> IdealPrior:
    return IdealPrior(config, name="toybox-ideal-4view", views_per_group=4)


def around(*firsts: tuple[float, float], size: int = 16) -> CameraBatch:
    """Groups of four cameras from their first azimuth and their elevation on."""
    azimuth = torch.tensor([first + turn for first, _ in firsts for turn in (0.0, 90.0, 180.0, 270.0)])
    elevation = torch.tensor([height for _, height in firsts for _ in range(4)])
    return orbit_cameras(azimuth, elevation, 0 * azimuth + 3.3, 0 * azimuth + 40.0, width=size, height=size)


def stacked_renders(
    config: IdealPriorConfig,
    named: tuple[str | None, str | None],
    background: BackgroundName,
    first: float,
    elevation: float,
) -> Tensor:
    """The explicit list: [M, 4, 3, h, w] in float64, an object from four sides each, at turns within the window.

    One object after the other, from the definition: it stands in one of four equal turns against the cameras.
    """
    cameras = CameraWindows(config, 4).cameras
    rng, count = split_seed("prior", config.seed), len(cameras) // 4
    class_name, colour = named
    objects = [
        sample_object(
            class_name or CLASSES[rng.integers(len(CLASSES))],  # pyright: ignore[reportArgumentType]
            colour or list(COLOURS)[rng.integers(len(COLOURS))],
            rng,
        )
        for _ in range(count)
    ]
    stacks = []
    for index, thing in enumerate(objects):
        for turn in range(4):
            azimuth = cameras.azimuth_deg[index].item() + 90.0 * turn
            height = cameras.elevation_deg[index].item()
            off = (azimuth - first + 180.0) % 360.0 - 180.0
            if abs(off) > config.azimuth_window_deg / 2 or abs(height - elevation) > config.elevation_window_deg / 2:
                continue
            views = around((azimuth, height), size=config.image_size)
            render = render_scenes([(thing,)] * 4, views, background=BACKGROUND_COLOURS[background])
            blocks = render.rgb.double().unflatten(1, (-1, config.pool)).unflatten(3, (-1, config.pool))
            stacks.append(2.0 * blocks.mean(dim=(2, 4)).permute(0, 3, 1, 2) - 1.0)
    return torch.stack(stacks)


def joint_noise(stacks: Tensor, noised: Tensor, level: float, width: float) -> Tensor:
    """The noise of four views [4, 3, h, w] under a mixture of stacks, each of which is one point."""
    variance = level * width**2 + 1.0 - level
    distances = torch.stack([(noised.double() - math.sqrt(level) * stack).square().sum() for stack in stacks])
    mean = torch.einsum("m,mvchw->vchw", torch.softmax(-distances / (2.0 * variance), dim=0), stacks)
    return math.sqrt(1.0 - level) / variance * (noised.double() - math.sqrt(level) * mean)


@pytest.mark.parametrize("timestep", [50, 600])
@pytest.mark.parametrize(("prompt", "named"), [("a red chair", ("chair", "red")), ("", (None, None))])
@pytest.mark.parametrize(
    ("config", "first", "elevation"),
    [
        (SMALL, 33.0, 12.0),
        # A window across the seam of the rows, and one that holds every turn.
        (SMALL, 355.0, 38.0),
        (replace(SMALL, azimuth_window_deg=360.0, renders_per_window=24), 100.0, 10.0),
    ],
    ids=["inside", "across the seam", "any turn"],
)
def test_the_noise_is_that_of_the_list_of_stacked_renders(
    config: IdealPriorConfig,
    first: float,
    elevation: float,
    prompt: str,
    named: tuple[str | None, str | None],
    timestep: int,
) -> None:
    prior, background = prior_of(config), ("white" if prompt else "black")
    text = f"{prompt}, white background" if prompt else "black background"
    embeddings = prior.embed_prompts([text] * 4) if prompt else on_black(prior)
    latents = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = prior.predict_noise(latents, timestep, embeddings, around((first, elevation)))
    stacks = stacked_renders(config, named, background, first, elevation)
    assert len(stacks) >= 4
    expected = joint_noise(stacks, latents, prior.schedule.alpha_cumprod(timestep), config.component_std)
    torch.testing.assert_close(noise.double(), expected, atol=2e-4, rtol=1e-3)


def on_black(prior: IdealPrior) -> Tensor:
    """Embeddings [4, 1, E] of any object on black: the last block of an embedding is its background."""
    named, open_ = prior.embed_prompts(["a red chair, black background", "a red chair"])
    return (named - open_).expand(4, 1, -1)


def test_groups_and_branches_are_independent_of_each_other() -> None:
    prior, cameras = prior_of(SMALL), around((10.0, 20.0), (60.0, 0.0))
    embeddings = prior.embed_prompts(["a red mug, white background"] * 8 + [""] * 8)
    latents = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    together = prior.predict_noise(latents, 400, embeddings, cameras)
    for index in range(4):
        rows, views = slice(4 * index, 4 * index + 4), slice(4 * (index % 2), 4 * (index % 2) + 4)
        alone = prior.predict_noise(latents[rows], 400, embeddings[rows], cameras.rows(views))
        assert torch.equal(together[rows], alone)


@pytest.mark.parametrize(
    "cameras",
    [
        around((10.0, 20.0)).rows(slice(3)),
        around((10.0, 20.0), (60.0, 0.0)).rows(slice(2, 6)),
        orbit_cameras(
            torch.tensor([0.0, 80.0, 180.0, 270.0]),
            *(torch.full((4,), value) for value in (5.0, 3.3, 40.0)),
            width=16,
            height=16,
        ),
    ],
    ids=["three", "parts of two groups", "not orthogonal"],
)
def test_views_that_are_no_group_are_refused(cameras: CameraBatch) -> None:
    prior, count = prior_of(SMALL), len(cameras)
    with pytest.raises(UserError, match="toybox-ideal-4view takes 4 views at equal turns and one elevation together"):
        prior.predict_noise(torch.zeros(count, 3, 8, 8), 300, prior.embed_prompts(["a red mug"] * count), cameras)


def test_without_cameras_it_is_refused() -> None:
    prior = prior_of(SMALL)
    with pytest.raises(UserError, match="needs the cameras of its views: use --guidance.views cameras"):
        prior.predict_noise(torch.zeros(4, 3, 8, 8), 300, prior.embed_prompts(["a red mug"] * 4))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"cameras.views_per_group": 1}, "denoises 4 views of one object together, and cameras.views_per_group is 1"),
        ({"guidance.views": "words"}, "toybox-ideal-4view needs to know the cameras of its views"),
    ],
)
def test_a_run_that_does_not_draw_groups_is_refused_before_loading(values: dict[str, object], says: str) -> None:
    config = preset("toybox-ideal-4view", values, prompt="a blue robot")
    with pytest.raises(UserError, match=says):
        require_known_prompt(config)
    with pytest.raises(UserError, match=says):
        Trainer(config, prior_of(SMALL))


def test_views_that_are_no_whole_groups_are_one_line() -> None:
    with pytest.raises(UserError, match="views_per_step must be a multiple of cameras.views_per_group, 4, got 6"):
        preset("toybox-ideal-4view", prompt="a blue robot", views_per_step=6)


def test_a_style_is_refused() -> None:
    config = preset("toybox-ideal-4view", prompt="a patchwork blue robot")
    with pytest.raises(UserError, match="patchwork"):
        require_known_prompt(config)


def test_the_dry_run_shows_the_groups() -> None:
    config = RunConfig(prompt="a mug", prior="sd21-base", cameras=replace(RunConfig().cameras, views_per_group=4))
    assert "steps     400 of 4 views, in groups of 4 at equal turns" in run_lines(config, None)
    assert "steps     400 of 4 views" in run_lines(RunConfig(prompt="a mug", prior="sd21-base"), None)


def finished(config: RunConfig, folder: Path, *, stop: int | None = None) -> bytes:
    """The result of a run under the prior; stopped after some steps and continued from its checkpoint, if asked."""
    trainer, run = prepare_run(config, folder=folder)
    if stop is not None:
        assert not train(trainer, run, should_stop=lambda: trainer.step >= stop)
        save_state(trainer, run)
        trainer, run = prepare_resume(folder)
        assert trainer.step == stop
    assert train(trainer, run)
    finish(trainer, run, started=time.perf_counter())
    return run.splats.read_bytes()


@pytest.mark.parametrize("views", [4, 8])
def test_a_stopped_run_ends_with_the_same_bytes(tmp_path: Path, views: int) -> None:
    config = with_values(preset("toybox-ideal-4view", TINY, prompt="a red mug"), {"views_per_step": views})
    assert load_prior(config).name == "toybox-ideal-4view"
    assert finished(config, tmp_path / "whole") == finished(config, tmp_path / "stopped", stop=3)


def test_fewer_views_at_once_keep_the_groups_whole_and_the_bytes(tmp_path: Path) -> None:
    config = preset("toybox-ideal-4view", TINY, prompt="a red mug", views_per_step=8)
    whole, grouped = ({}, {"compute.views_at_once": 1})
    targets = []
    for number, values in enumerate((whole, grouped)):
        trainer, _ = prepare_run(with_values(config, values), folder=tmp_path / str(number))
        trainer.train_step()
        assert trainer.last_views is not None
        targets.append(trainer.last_views.target)
    assert torch.equal(*targets)
