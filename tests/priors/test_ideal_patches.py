"""The closed-form prior of styled objects: cameras, open properties, view words, and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch
from sdi_gs.errors import UserError
from sdi_gs.priors import ideal_patches
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.ideal import IdealPrior
from sdi_gs.priors.ideal_patches import IdealPatchPrior
from sdi_gs.priors.patch_mixture import TWO_SHADES
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.classes import CLASSES, COLOURS
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.patches import PatchRender, draw_shades, nearest_shades, render_patches
from sdi_gs.toybox.views import toybox_cameras

SIZE = 16
SMALL = IdealPriorConfig(image_size=SIZE, renders_per_view=12, unconditional_renders=40)
CAMERAS = toybox_cameras(torch.tensor([10.0, 100.0, 190.0]), torch.tensor([15.0, -5.0, 70.0]), size=SIZE)
ROBOT = "a patchwork blue robot, gray background"
# None of its parts is so dark that its two shades look alike.
CHAIR = "a patchwork yellow chair, gray background"


@pytest.fixture(scope="module")
def prior() -> IdealPatchPrior:
    return IdealPatchPrior(SMALL, "patchwork")


def member(class_name: str, colour: str, background: str, cameras: CameraBatch, seed: int) -> Tensor:
    """Return the images [V, H, W, 3] of a random member."""
    item = canonical_object(class_name, colour, "patchwork")  # pyright: ignore[reportArgumentType]
    light = draw_shades("patchwork", np.random.default_rng(seed))
    shown = BACKGROUND_COLOURS[background]  # pyright: ignore[reportArgumentType]
    return render_patches([item] * len(cameras), cameras).shaded(light, shown)


def mean_given(prior: IdealPatchPrior, noised: Tensor, timestep: int, text: str, camera: CameraBatch) -> Tensor:
    """Return the mean of the mixture's centres [3, H, W] given noised latents [1, 3, H, W]."""
    level, std = prior.schedule.alpha_cumprod(timestep), prior.config.styled_std
    noise = prior.predict_noise(noised, timestep, prior.embed_prompts([text]), camera)[0]
    variance = level * std**2 + 1.0 - level
    return (noised[0] - variance / math.sqrt(1.0 - level) * noise) / math.sqrt(level)


def test_under_much_noise_the_mean_of_all_members_is_left(prior: IdealPatchPrior) -> None:
    renders = render_patches([canonical_object("robot", "blue", "patchwork")] * 3, CAMERAS)
    expected = 2.0 * renders.mean(BACKGROUND_COLOURS["gray"]).permute(0, 3, 1, 2) - 1.0
    for view in range(3):
        mean = mean_given(prior, torch.zeros(1, 3, SIZE, SIZE), 999, ROBOT, CAMERAS.rows(slice(view, view + 1)))
        assert (mean - expected[view]).abs().max() < 0.15


def test_under_little_noise_a_members_patches_come_back() -> None:
    # At 64 pixels, for in small pictures most patches are slivers that do not show.
    prior = IdealPatchPrior(IdealPriorConfig(), "patchwork")
    a = prior.schedule.alpha_cumprod(30)
    cameras = toybox_cameras(CAMERAS.azimuth_deg, CAMERAS.elevation_deg, size=64)
    clean = prior.encode_images(member("chair", "yellow", "gray", cameras, 3))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noised = math.sqrt(a) * clean + math.sqrt(1.0 - a) * noise
    renders = render_patches([canonical_object("chair", "yellow", "patchwork")] * 3, cameras)
    mid = prior.encode_images(renders.mean(BACKGROUND_COLOURS["gray"]))
    for view in range(3):
        one = slice(view, view + 1)
        mean = mean_given(prior, noised[one], 30, CHAIR, cameras.rows(one))
        assert (mean - clean[view]).square().sum() < (mid[view] - clean[view]).square().sum() / 50.0


def test_every_view_and_branch_gets_its_own_camera(prior: IdealPatchPrior) -> None:
    noised = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    embeddings = prior.embed_prompts([ROBOT] * 3 + ["a patchwork red chair, white background"] * 3)
    together = prior.predict_noise(noised, 400, embeddings, CAMERAS)
    for row in range(6):
        one, camera = slice(row, row + 1), CAMERAS.rows(slice(row % 3, row % 3 + 1))
        assert torch.equal(together[one], prior.predict_noise(noised[one], 400, embeddings[one], camera))


def test_the_empty_prompt_is_the_mixture_of_all_objects_colours_and_backgrounds(
    prior: IdealPatchPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ideal_patches, "OPEN_SHADES", TWO_SHADES)
    camera, timestep, std = CAMERAS.rows(slice(0, 1)), 600, SMALL.styled_std
    level = prior.schedule.alpha_cumprod(timestep)
    noised = math.sqrt(level) * prior.encode_images(member("car", "red", "white", camera, 5)) + math.sqrt(
        1.0 - level
    ) * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    texts = [
        f"a patchwork {colour} {name}, {ground} background"
        for name in CLASSES
        for colour in COLOURS
        for ground in BACKGROUND_NAMES
    ]
    parts = torch.stack([mean_given(prior, noised, timestep, text, camera) for text in texts]).flatten(1).double()
    whole = mean_given(prior, noised, timestep, "", camera).flatten().double()
    logs = torch.tensor([_log_density(prior, noised, text, camera, level, std) for text in texts], dtype=torch.float64)
    torch.testing.assert_close(torch.softmax(logs, dim=0) @ parts, whole, rtol=0.0, atol=2e-3)


def test_the_empty_prompt_knows_patches_of_any_shade(prior: IdealPatchPrior) -> None:
    camera, level = CAMERAS.rows(slice(0, 1)), prior.schedule.alpha_cumprod(30)
    middle = render_patches([canonical_object("chair", "yellow", "patchwork")], camera).mean(BACKGROUND_COLOURS["gray"])
    noised = math.sqrt(level) * prior.encode_images(middle)
    grey = noised[0] / math.sqrt(level)
    error = [(mean_given(prior, noised, 30, text, camera) - grey).abs().mean() for text in (CHAIR, "")]
    # A pattern of light and dark has patches in between only on average, where both are equally likely.
    tilted = noised + 0.05 * (noised - noised.amin())
    kept, pushed = (mean_given(prior, tilted, 30, text, camera) for text in ("", CHAIR))
    assert max(error) < 0.02
    assert (pushed - grey).abs().mean() > 2.0 * (kept - grey).abs().mean()


def _log_density(
    prior: IdealPatchPrior, noised: Tensor, text: str, camera: CameraBatch, level: float, std: float
) -> float:
    """Return log p of noised latents up to a constant: one object, its cells summed over both shades each."""
    words = text.replace(",", "").split()
    name, colour, ground = words[3], words[2], words[4]
    item = canonical_object(name, colour, "patchwork")  # pyright: ignore[reportArgumentType]
    renders = render_patches([item], camera)
    variance, error = level * std**2 + 1.0 - level, []
    everywhere = torch.ones(10_000, dtype=torch.bool)
    shown = BACKGROUND_COLOURS[ground]  # pyright: ignore[reportArgumentType]
    for light in (everywhere, ~everywhere):
        clean = prior.encode_images(renders.shaded(light, shown)).double()
        error.append((noised.double() - math.sqrt(level) * clean).square().sum(dim=1)[0] / (2.0 * variance))
    cells, total = renders.cells[0], 0.0
    total -= error[0][cells < 0].sum().item()
    for cell in cells[cells >= 0].unique():
        sums = torch.stack([-error[shade][cells == cell].sum() for shade in range(2)])
        total += (torch.logsumexp(sums, dim=0) - math.log(2.0)).item()
    return total


def test_samples_are_members(prior: IdealPatchPrior) -> None:
    latents = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    embeddings, schedule = prior.embed_prompts([ROBOT] * 3), prior.schedule
    grid = [*range(980, 0, -40), -1]
    for begin, end in zip(grid, grid[1:], strict=False):
        level, following = schedule.alpha_cumprod(begin), schedule.alpha_cumprod(end)
        noise = prior.predict_noise(latents, begin, embeddings, CAMERAS)
        clean = (latents - math.sqrt(1.0 - level) * noise) / math.sqrt(level)
        latents = math.sqrt(following) * clean + math.sqrt(1.0 - following) * noise
    shown = prior.decode_latents(latents)
    renders = render_patches([canonical_object("robot", "blue", "patchwork")] * 3, CAMERAS)
    for view in range(3):
        one = slice(view, view + 1)
        own = PatchRender(**{name: tensor[one] for name, tensor in vars(renders).items()})
        # ``nearest_shades`` compares over white; what a background adds is the same for every member.
        grey = torch.tensor(BACKGROUND_COLOURS["gray"])
        over_white = shown[one] + (1.0 - own.alpha) * (1.0 - grey)
        nearest = own.shaded(nearest_shades(over_white, own, "patchwork"), grey)
        # Members in pixels, half as wide as in latents.
        assert (shown[one] - nearest).square().mean().sqrt() < 0.75 * SMALL.styled_std


@pytest.mark.parametrize("word", VIEW_WORDS)
def test_view_words_are_mixtures_of_their_side(prior: IdealPatchPrior, word: str) -> None:
    noised = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(6))
    text = f"a patchwork blue robot, {word}, white background"
    first = prior.predict_noise(noised, 400, prior.embed_prompts([text]))
    assert first.isfinite().all()
    assert torch.equal(
        first, IdealPatchPrior(SMALL, "patchwork").predict_noise(noised, 400, prior.embed_prompts([text]))
    )
    blend = 0.5 * prior.embed_prompts([text]) + 0.5 * prior.embed_prompts([text.replace(word, "back view")])
    assert prior.predict_noise(noised, 400, blend).isfinite().all()


def test_the_style_of_the_prompt_chooses_the_prior() -> None:
    styled = load_prior(RunConfig(prior="toybox-ideal", prompt="a striped red car", ideal_prior=SMALL))
    assert isinstance(styled, IdealPatchPrior) and styled.style == "striped"
    plain = load_prior(RunConfig(prior="toybox-ideal", prompt="a red car", ideal_prior=SMALL))
    assert isinstance(plain, IdealPrior)
    with pytest.raises(UserError, match="names no object"):
        styled.embed_prompts(["striped"])
    with pytest.raises(UserError, match="patchwork.*striped prior"):
        styled.embed_prompts(["a patchwork red car"])
