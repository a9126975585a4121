"""The VAE's losses, its folded normalisation and its two phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toybox_training.autoencoder import (
    STATISTICS_STREAM,
    DecoderTask,
    VaeTask,
    VaeTrainingConfig,
    build_vae,
    decode,
    encode,
    measure_vae,
    normalise_latents,
    pixel_weights,
    random_crops,
    reconstruction_loss,
    vae_of,
)
from toybox_training.examples import ExamplesConfig, draw_examples
from toybox_training.loop import averaged_weights, batch_generator, train

from sdi_gs.toybox.splits import split_seed

pytestmark = pytest.mark.slow


def test_latents_are_a_quarter_of_the_picture_along_each_axis(small_vae: VaeTrainingConfig) -> None:
    vae = build_vae(small_vae)
    images = torch.rand(2, 3, 64, 64)
    latents = encode(vae, images)
    assert latents.shape == (2, 4, 16, 16)
    assert decode(vae, latents).shape == images.shape
    assert vae.config.scaling_factor == 1.0


def test_normalised_latents_have_unit_variance_and_decode_to_the_same_pictures(small_vae: VaeTrainingConfig) -> None:
    vae = build_vae(small_vae)
    images, _ = draw_examples(ExamplesConfig(), 64, split_seed("prior", STATISTICS_STREAM)).render()
    with torch.no_grad():
        raw = vae.encode(images * 2.0 - 1.0).latent_dist
        before = vae.decode(raw.mean).sample
        former = normalise_latents(vae, ExamplesConfig(), count=64)
        posterior = vae.encode(images * 2.0 - 1.0).latent_dist
        after = vae.decode(posterior.mean).sample
    # The statistics were taken in bfloat16.
    torch.testing.assert_close(posterior.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.03, rtol=0.0)
    torch.testing.assert_close(posterior.mean.std(dim=(0, 2, 3)), torch.ones(4), atol=0.03, rtol=0.0)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    # The posterior's width shrinks with its mean.
    expected = raw.std / torch.tensor(former["std"])[:, None, None]
    torch.testing.assert_close(posterior.std, expected, atol=1e-4, rtol=1e-4)


def test_an_error_counts_most_on_small_parts_then_on_objects_then_around_them() -> None:
    images = torch.ones(1, 3, 64, 64)
    images[:, :, 16:48, 16:48] = 0.5
    images[:, :, 30:32, 30:32] = 1.0
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[:, :, 16:48, 16:48] = 1.0
    weights = pixel_weights(images, alpha)[0, 0]
    assert weights[31, 31] > 1.5 * weights[40, 24] > 1.5 * weights[4, 4]
    assert weights.mean().item() == pytest.approx(1.0)


def test_the_loss_is_zero_without_error_and_larger_for_chroma_than_for_luminance() -> None:
    even = torch.ones(1, 1, 8, 8)
    assert reconstruction_loss(torch.zeros(1, 3, 8, 8), even).item() == 0.0
    grey = torch.full((1, 3, 8, 8), 0.1)
    tint = grey * torch.tensor([1.0, -2.0, 1.0])[:, None, None] / 2.0**0.5
    assert tint.square().sum().item() == pytest.approx(grey.square().sum().item())
    assert reconstruction_loss(tint, even) > 1.5 * reconstruction_loss(grey, even)


def test_an_error_of_constant_grey_costs_what_the_formula_says() -> None:
    error = torch.full((2, 3, 8, 8), 0.1)
    # L1 + 10 squares, low-passed L1 + 4 squares; no slopes.
    expected = (0.1 + 10 * 0.01) + (0.1 + 4 * 0.01)
    assert reconstruction_loss(error, torch.ones(2, 1, 8, 8)).item() == pytest.approx(expected, rel=1e-5)


def test_the_probe_begins_as_the_best_linear_read_out(small_vae: VaeTrainingConfig) -> None:
    task = VaeTask(small_vae)
    _, numbers = task.loss(0.0, 0, batch_generator(0, 0))
    probe: Any = task.networks["probe"]
    start = numbers["probe"]
    with torch.no_grad():
        probe.weight.mul_(0.5)
    assert task.loss(0.0, 0, batch_generator(0, 0))[1]["probe"] > start


def test_crops_are_cut_from_their_own_picture_and_reach_all_corners() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    images = torch.stack([torch.stack([rows, columns, torch.full((6, 6), float(k))]) for k in range(200)])
    crops = random_crops(images, 4, torch.Generator().manual_seed(0))
    assert crops.shape == (200, 3, 4, 4)
    assert torch.equal(crops[:, 2, 0, 0], torch.arange(200.0))
    torch.testing.assert_close(crops[:, :, 3, 3] - crops[:, :, 0, 0], torch.tensor([3.0, 3.0, 0.0]).expand(200, 3))
    assert crops[:, :2, 0, 0].unique(dim=0).shape == (9, 2)


def test_a_step_depends_on_its_number_alone(small_vae: VaeTrainingConfig) -> None:
    first, second = VaeTask(small_vae), VaeTask(small_vae)
    first.loss(0.0, 7, batch_generator(0, 7))
    third, same, fourth = (
        task.loss(0.0, step, batch_generator(0, step))[0].item() for task, step in ((first, 3), (second, 3), (first, 4))
    )
    # Sums of the same numbers may differ in their last bit with where the tensors happen to lie in memory.
    assert third == pytest.approx(same, rel=1e-6)
    assert fourth != pytest.approx(same, rel=1e-6)


def test_training_writes_a_sheet_and_numbers_per_colour(tmp_path: Path, small_vae: VaeTrainingConfig) -> None:
    assert train(small_vae.loop, VaeTask(small_vae), tmp_path, resume=False) is not None
    assert (tmp_path / "sheets/000003.png").stat().st_size > 1000
    vae = vae_of(averaged_weights(tmp_path), small_vae)
    scores, images, decoded = measure_vae(vae, count=40)
    errors = -10.0 * (decoded - images).square().mean(dim=(1, 2, 3)).log10()
    assert scores["psnr"] == pytest.approx(errors.mean().item(), rel=1e-4)
    assert len(scores["colour_error"]) == 10
    assert all(0.0 < error < 1.0 for error in scores["colour_error"].values())


def test_the_decoder_learns_alone(tmp_path: Path, small_vae: VaeTrainingConfig) -> None:
    vae = build_vae(small_vae)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    task = DecoderTask(small_vae, vae)
    averaged = train(small_vae.loop, task, tmp_path, resume=False)
    assert averaged is not None
    whole = task.assembled(averaged).state_dict()
    assert whole.keys() == before.keys()
    changed = {name.split(".")[0] for name, value in whole.items() if not torch.equal(value, before[name])}
    assert changed == {"decoder", "post_quant_conv"}
