"""The closed-form prior at a camera, against a mixture that is put together by brute force in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.errors import UserError
from sdi_gs.priors import ideal
from sdi_gs.priors.camera_windows import CameraWindows, require_known_cameras
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.priors import IdealPriorConfig

SMALL = IdealPriorConfig(image_size=16, renders_per_window=8, azimuth_window_deg=40.0, elevation_window_deg=20.0)
POLES = replace(SMALL, elevation_deg=(-90.0, 90.0))


def looking_from(*angles: tuple[float, float]) -> CameraBatch:
    azimuth, elevation = torch.tensor(angles).T
    return orbit_cameras(azimuth, elevation, 0.0 * azimuth + 3.3, 0.0 * azimuth + 40.0, width=16, height=16)


class RecordingPrior(IdealPrior):
    """Keeps every set of renders with its cameras, as they were drawn."""

    def __init__(self, config: IdealPriorConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(config)
        self.drawn: list[tuple[Any, CameraBatch, Any]] = []
        original = ideal.render_scenes

        def recording(scenes: Any, cameras: CameraBatch, **options: Any) -> Any:
            render = original(scenes, cameras, **options)
            self.drawn.append((scenes, cameras, render))
            return render

        monkeypatch.setattr(ideal, "render_scenes", recording)


def brute_force(
    config: IdealPriorConfig,
    cameras: CameraBatch,
    render: Any,
    noised: Tensor,  # [3, h, w]
    angles: tuple[float, float],
    backgrounds: tuple[str, ...],
    level: float,
) -> Tensor:
    """The noise from the definition, one render after the other: within the window or not, then a softmax."""
    centres = []
    for index in range(len(cameras)):
        turn = math.radians(cameras.azimuth_deg[index].item() - angles[0])
        # The angle between two directions, whatever the number of turns between them.
        apart = math.degrees(math.atan2(abs(math.sin(turn)), math.cos(turn)))
        if apart > config.azimuth_window_deg / 2:
            continue
        if abs(cameras.elevation_deg[index].item() - angles[1]) > config.elevation_window_deg / 2:
            continue
        colour = torch.tensor(BACKGROUND_COLOURS[backgrounds[index % len(backgrounds)]]).double()  # pyright: ignore[reportArgumentType]
        image = render.rgb[index].double() + (1.0 - render.alpha[index].double()) * colour
        blocks = image.unflatten(0, (8, 2)).unflatten(2, (8, 2)).mean(dim=(1, 3))
        centres.append(2.0 * blocks.permute(2, 0, 1) - 1.0)
    assert centres
    variance = level * config.component_std**2 + 1.0 - level
    distances = torch.stack([(noised.double() - math.sqrt(level) * centre).square().sum() for centre in centres])
    shares = torch.softmax(-distances / (2.0 * variance), dim=0)
    mean = sum(share * centre for share, centre in zip(shares, centres, strict=True))
    return math.sqrt(1.0 - level) / variance * (noised.double() - math.sqrt(level) * mean)


@pytest.mark.parametrize("timestep", [1, 300, 800])
@pytest.mark.parametrize("prompt", ["a red chair, white background", "a robot, black background", ""])
@pytest.mark.parametrize(
    ("config", "angles"),
    [
        (SMALL, [(90.0, 15.0), (211.0, -3.0)]),
        # Windows across 0 and 360 degrees, and azimuths beyond a turn.
        (SMALL, [(0.0, 10.0), (359.0, 10.0), (5.0, 10.0), (-350.0, 10.0), (725.0, 10.0)]),
        (SMALL, [(100.0, -10.0), (100.0, 40.0)]),
        (POLES, [(30.0, 90.0), (355.0, 85.0), (180.0, -90.0)]),
        (replace(SMALL, azimuth_window_deg=360.0), [(0.0, 20.0), (123.0, 20.0)]),
        (replace(SMALL, elevation_window_deg=180.0), [(60.0, 20.0)]),
    ],
    ids=["inside", "around zero", "ends of the range", "poles", "any azimuth", "any elevation"],
)
def test_the_noise_is_that_of_the_renders_in_the_window(
    config: IdealPriorConfig,
    angles: list[tuple[float, float]],
    prompt: str,
    timestep: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prior = RecordingPrior(config, monkeypatch)
    latents = torch.randn(len(angles), 3, 8, 8, generator=torch.Generator().manual_seed(4))
    noise = prior.predict_noise(latents, timestep, prior.embed_prompts([prompt] * len(angles)), looking_from(*angles))
    ((_, cameras, render),) = prior.drawn
    level = prior.schedule.alpha_cumprod(timestep)
    named = tuple(name for name in BACKGROUND_NAMES if name in prompt) or tuple(BACKGROUND_NAMES)
    for row, camera in enumerate(angles):
        expected = brute_force(config, cameras, render, latents[row], camera, named, level)
        torch.testing.assert_close(noise[row].double(), expected, atol=2e-4, rtol=1e-3)


def test_rows_are_branches_of_the_views() -> None:
    prior, cameras = IdealPrior(SMALL), looking_from((20.0, 0.0), (200.0, 30.0))
    embeddings = prior.embed_prompts(["a red mug, white background"] * 2 + [""] * 2)
    latents = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    together = prior.predict_noise(latents, 400, embeddings, cameras)
    for row in range(4):
        view = slice(row % 2, row % 2 + 1)
        alone = prior.predict_noise(latents[row, None], 400, embeddings[row, None], cameras.rows(view))
        torch.testing.assert_close(together[row], alone[0])
    swapped = prior.predict_noise(latents, 400, embeddings, looking_from((200.0, 30.0), (20.0, 0.0)))
    assert not torch.allclose(together, swapped, atol=1e-2)


def test_a_camera_takes_the_place_of_the_view_word() -> None:
    prior, cameras = IdealPrior(SMALL), looking_from((180.0, 10.0))
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    front, none = prior.embed_prompts(["a red mug, front view", "a red mug"])
    answers = [prior.predict_noise(latents, 400, embedding[None], cameras) for embedding in (front, none)]
    assert torch.equal(*answers)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, renders_per_window=8, azimuth_window_deg=5.0), POLES])
def test_every_window_of_the_range_holds_about_its_number_of_renders(config: IdealPriorConfig) -> None:
    windows, half = CameraWindows(config), 0.5 * config.elevation_window_deg
    counts = []
    low, high = config.elevation_deg
    for azimuth in range(0, 360, 3):
        for elevation in torch.linspace(low, high, 11).tolist():
            near = windows.near(azimuth, elevation)
            whole = min(elevation + half, 90.0) - max(elevation - half, -90.0)
            counts.append(int((~near.is_far).sum()) / whole * 2.0 * half)
    # Evenly spread: independent draws of 8 would leave one window in 3000 empty, and some with 20.
    assert min(counts) >= 3.0
    assert max(counts) <= 14.0
    assert sum(counts) / len(counts) == pytest.approx(config.renders_per_window, rel=0.05)


def test_windows_are_views_of_one_set_of_centres() -> None:
    prior = IdealPrior(SMALL)
    embedding = prior.embed_prompts(["a red mug, white background"])[0, 0]
    first, second = (
        prior._mixtures_near(embedding[None], prior._windows.near(azimuth, 10.0))[0] for azimuth in (90.0, 95.0)
    )
    assert first.centres.untyped_storage().data_ptr() == second.centres.untyped_storage().data_ptr()


def test_the_same_seed_gives_the_same_windows_and_another_others() -> None:
    def cameras(seed: int) -> Tensor:
        return CameraWindows(replace(SMALL, seed=seed)).cameras.world_from_camera

    assert torch.equal(cameras(0), cameras(0))
    assert not torch.equal(cameras(0), cameras(1))


@pytest.mark.parametrize("elevation", [-10.2, 40.2])
def test_an_elevation_without_renders_is_refused(elevation: float) -> None:
    prior = IdealPrior(SMALL)
    says = f"^a camera at elevation {elevation} degrees is beyond .*-10.0 to 40.0: set ideal_prior.elevation_deg"
    with pytest.raises(UserError, match=says):
        prior.predict_noise(
            torch.zeros(1, 3, 8, 8), 300, prior.embed_prompts(["a red mug"]), looking_from((0.0, elevation))
        )


@pytest.mark.parametrize(
    ("cameras", "says"),
    [
        (
            {"distance": (2.6, 3.3)},
            "cameras.distance must be within toybox-ideal's .* 3.3 to 3.3, got 2.6 to 3.3: ",
        ),
        (
            {"distance": (1.0, 1.0), "relative_distance": True},
            "cameras.distance must be within .*, got 2.74748 to 2.74748: ",
        ),
        ({"fov_y_deg": (40.0, 50.0)}, "cameras.fov_y_deg must be within .*, 40 to 40, got 40 to 50"),
        ({"elevation_deg": (-10.0, 45.0)}, "cameras.elevation_deg must be .*: change it, or ideal_prior.elevation_deg"),
    ],
)
def test_cameras_that_are_not_rendered_are_refused_before_the_run(cameras: dict[str, Any], says: str) -> None:
    usual = CameraConfig(elevation_deg=(-10.0, 40.0))
    require_known_cameras(SMALL, usual)
    with pytest.raises(UserError, match=says):
        require_known_cameras(SMALL, replace(usual, **cameras))


def test_too_many_renders_are_refused() -> None:
    with pytest.raises(ValueError, match="^renders_per_window must be at most 1000000 .*, got 7920000"):
        IdealPriorConfig(renders_per_window=10_000, azimuth_window_deg=5.0, elevation_window_deg=5.0)
