"""Cached latents, who shares a caption with whom, and the mean that a noised latent leaves open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from toybox_training.autoencoder import VaeTrainingConfig, build_vae
from toybox_training.examples import ExamplesConfig
from toybox_training.latents import (
    Companions,
    LatentSet,
    encode_examples,
    load_latents,
    names_everything,
    posterior_means,
)


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = LatentSet(latents=torch.randn(5, 4, 2, 2).half(), attributes=torch.arange(20).view(5, 4))
    made.save(tmp_path / "a/set.pt")
    read = load_latents(tmp_path / "a/set.pt")
    assert torch.equal(read.latents, made.latents)
    assert torch.equal(read.attributes, made.attributes)


def test_companions_share_all_that_the_caption_says() -> None:
    rng = np.random.default_rng(0)
    attributes = torch.from_numpy(rng.integers(0, 3, size=(400, 4)))
    companions = Companions(attributes)
    for asked in ((1, 2, 0, 1), (1, None, 0, 1), (2, 0, None, None), (None, None, None, None)):
        rows = companions.draw(asked, 12, rng)
        assert len(rows) == 12
        for column, value in enumerate(asked):
            if value is not None:
                assert (attributes[rows, column] == value).all()
    everything = companions.draw((None, None, None, None), 400, rng)
    assert sorted(everything.tolist()) == list(range(400))


def test_a_small_cell_is_repeated() -> None:
    companions = Companions(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))
    rows = companions.draw((0, 0, 0, 0), 6, np.random.default_rng(0))
    assert sorted(rows.tolist()) == [0, 0, 0, 1, 1, 1]


def test_what_a_caption_leaves_out_is_open() -> None:
    assert names_everything([3, 4, 1, 2], (True, False, True)) == (3, 4, None, 2)


def test_the_mean_of_two_candidates_is_bayes_rule() -> None:
    own, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[[-1.0, 0.5]]])
    noised, level = torch.tensor([[0.2, 0.4]]), torch.tensor([0.3])
    likelihood = [
        np.exp(-0.5 * ((noised[0].double() - 0.3**0.5 * centre.double()) ** 2).sum().item() / 0.7)
        for centre in (own[0], other[0, 0])
    ]
    share = likelihood[0] / sum(likelihood)
    expected = share * own[0] + (1.0 - share) * other[0, 0]
    torch.testing.assert_close(posterior_means(noised, own, other, level)[0], expected)


def test_little_noise_leaves_the_own_latent_and_much_noise_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    own, others = torch.randn(1, 64, generator=generator), torch.randn(1, 9, 64, generator=generator)
    noise = torch.randn(1, 64, generator=generator)
    for level, expected in ((0.99, own), (1e-8, torch.cat([own[:, None], others], 1).mean(dim=1))):
        noised = level**0.5 * own + (1.0 - level) ** 0.5 * noise
        found = posterior_means(noised, own, others, torch.tensor([level]))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_mean_has_the_expectation_of_the_own_latent_and_less_variance() -> None:
    """Many latents at one strong level: both targets agree on average; the averaged one varies less."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(64, 8, generator=generator)
    level = torch.full((4000,), 0.05)
    rows = torch.randint(64, (4000,), generator=generator)
    own = centres[rows]
    noised = level.sqrt()[:, None] * own + (1.0 - level).sqrt()[:, None] * torch.randn(4000, 8, generator=generator)
    means = posterior_means(noised, own, centres.expand(4000, 64, 8), level)
    # Regression of both on what the network sees.
    slopes = [torch.linalg.lstsq(noised, target).solution for target in (own, means)]
    torch.testing.assert_close(slopes[0], slopes[1], atol=0.05, rtol=0.0)
    assert means.var(dim=0).mean() < 0.3 * own.var(dim=0).mean()


def test_encoded_examples_are_the_same_again_and_other_splits_differ(small_vae: VaeTrainingConfig) -> None:
    vae = build_vae(small_vae)
    first = encode_examples(vae, ExamplesConfig(image_size=16), 10, at_once=5)
    again = encode_examples(vae, ExamplesConfig(image_size=16), 10, at_once=5)
    other = encode_examples(vae, ExamplesConfig(image_size=16), 10, at_once=5, split="val")
    assert first.latents.shape == (10, 4, 4, 4)
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.attributes, again.attributes)
    assert not torch.equal(first.attributes, other.attributes)
