"""Gaussian mixtures around pictures, and the exact noise under them (the formula is in ``ideal.py``).

Pictures of one object differ only in values that some of them cover: the rest is background. A mixture holds its
centres as differences from a picture of their background, and only in those values. With p_j that picture and d_j the
difference, the squared distance of x from sqrt(a) (p_j + d_j), up to what is common to all centres, is

    |x - sqrt(a) p_j|^2 - 2 sqrt(a) d_j (x - sqrt(a) p_0) + a |d_j|^2 - 2 a d_j (p_0 - p_j),

whose first term is one number per background. All terms are small, so float32 suffices.

Letters: B rows, M mixture centres, C channels, h w latent pixels, D = C h w, V covered values, S backgrounds, G views
of a group, P sets of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FEW_LIVE = 4
"""Copying the live centres pays if they are less than this part of all (measured on AVX-512)."""
WORTH_COUNTING = 2**18
"""Numbers of a mixture below which its product is as quick as counting its live centres."""


@dataclass(frozen=True, kw_only=True)
class Backgrounds:
    """What the centres of a mixture are differences from."""

    pictures: Tensor  # [S, D]
    covered: Tensor  # [V] int64, the values in which centres differ from them


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Centres of a Gaussian mixture, with values for computing distances to them."""

    centres: Tensor  # [M, V] differences from a background, or [M, D] if there are none
    log_weights: Tensor  # [M] up to a constant
    half_norms: Tensor  # [M] 0.5 |d|^2 - d (p_0 - p), 0.5 |c|^2 without backgrounds
    backgrounds: Backgrounds | None = None
    background_of: Tensor | None = None
    """[M] int64 each centre's background; None where there is one at most."""

    def rows(self, chosen: slice | Tensor) -> Mixture:
        """Return the mixture of some centres: views of them for a slice, copies for indices."""
        return Mixture(
            centres=self.centres[chosen],
            log_weights=self.log_weights[chosen],
            half_norms=self.half_norms[chosen],
            backgrounds=self.backgrounds,
            background_of=None if self.background_of is None else self.background_of[chosen],
        )

    def pictures(self) -> Tensor:  # [M, D]
        """Return the centres as whole pictures."""
        if self.backgrounds is None:
            return self.centres
        own = torch.zeros(len(self.centres), dtype=torch.int64) if self.background_of is None else self.background_of
        return self.backgrounds.pictures[own].index_add(1, self.backgrounds.covered, self.centres)


def mixture_of_pictures(
    foregrounds: Sequence[tuple[Tensor, Tensor]],  # P of [M, C, h, w] over black, and alphas [M, 1, h, w]
    palette: Tensor,  # [backgrounds, C] in [0, 1]
) -> Mixture:
    """Return the mixture of sets of pictures over backgrounds, in turn if there are several; each set weighs 1."""
    of_sets = [torch.arange(len(alpha), device=alpha.device) % len(palette) for _, alpha in foregrounds]
    is_covered = torch.stack([(alpha > 0.0).any(dim=0) for _, alpha in foregrounds]).any(dim=0).flatten()
    pixels = torch.nonzero(is_covered).squeeze(1)
    centres = torch.cat(
        [
            _latents(rgb.flatten(2)[:, :, pixels], alpha.flatten(2)[:, :, pixels], palette[own][:, :, None]).flatten(1)
            for (rgb, alpha), own in zip(foregrounds, of_sets, strict=True)
        ]
    )
    covered = (torch.arange(palette.shape[1], device=palette.device)[:, None] * len(is_covered) + pixels).flatten()
    background_of = torch.cat(of_sets)
    pictures = (palette * 2.0 - 1.0).repeat_interleave(len(is_covered), dim=1)
    # Any value would do where centres differ; near their middle rounding is smallest.
    for number, picture in enumerate(pictures):
        picture[covered] = centres[background_of == number].mean(dim=0)
    centres -= pictures[:, covered][background_of]
    half_norms = 0.5 * torch.linalg.vector_norm(centres, dim=1, dtype=torch.float64).square()
    if len(palette) > 1:
        towards_first = (pictures[0] - pictures)[:, covered][background_of]
        half_norms -= (centres * towards_first).sum(dim=1, dtype=torch.float64)
    return Mixture(
        centres=centres,
        log_weights=torch.cat([-alpha.new_tensor(len(alpha)).log().expand(len(alpha)) for _, alpha in foregrounds]),
        half_norms=half_norms.to(centres.dtype),
        backgrounds=Backgrounds(pictures=pictures, covered=covered),
        background_of=background_of if len(palette) > 1 else None,
    )


def _latents(rgb: Tensor, alpha: Tensor, shade: Tensor) -> Tensor:
    return (rgb + (1.0 - alpha) * shade) * 2.0 - 1.0


def mixture_noise(
    noised: Tensor,  # [B, D]
    mixture: Mixture,
    level: float,
    component_std: float,
) -> Tensor:
    """Return the optimal noise prediction [B, D] at a level."""
    seen = _Seen.of(noised, mixture, level)
    return seen.noise(_weights(seen.logits(mixture.log_weights, component_std)), component_std)


def joint_noise(
    noised: Tensor,  # [G, D]
    mixtures: Sequence[Mixture],  # G of them, row by row of one object
    level: float,
    component_std: float,
) -> Tensor:
    """Return the optimal noise prediction [G, D] for views of one object, whose weights are those of the first view."""
    if len(mixtures) == 1:
        return mixture_noise(noised, mixtures[0], level, component_std)
    views = [_Seen.of(view, mixture, level) for view, mixture in zip(noised.split(1), mixtures, strict=True)]
    none = torch.zeros_like(mixtures[0].log_weights)
    logits = [
        view.logits(none if index else mixtures[0].log_weights, component_std) for index, view in enumerate(views)
    ]
    weights = _weights(torch.stack(logits).sum(dim=0))
    return torch.cat([view.noise(weights, component_std) for view in views])


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """Noised rows as a mixture sees them."""

    mixture: Mixture
    level: float
    noised: Tensor  # [B, D]
    values: Tensor  # [B, D] differences from the first background's picture
    covered: Tensor  # [B, V] those of them that centres cover

    @staticmethod
    def of(
        noised: Tensor,  # [B, D]
        mixture: Mixture,
        level: float,
    ) -> _Seen:
        behind = mixture.backgrounds
        values = noised if behind is None else torch.sub(noised, behind.pictures[0], alpha=math.sqrt(level))
        covered = values if behind is None else values.index_select(1, behind.covered)
        return _Seen(mixture=mixture, level=level, noised=noised, values=values, covered=covered)

    def logits(
        self,
        log_weights: Tensor,  # [M]
        component_std: float,
    ) -> Tensor:  # [B, M] up to a constant of each row
        """Return log p(x, centre): what is common to all centres cancels in the softmax."""
        mixture, variance = self.mixture, self._variance(component_std)
        offsets = torch.sub(log_weights, mixture.half_norms, alpha=self.level / variance)
        logits = torch.addmm(offsets[None], self.covered, mixture.centres.T, alpha=math.sqrt(self.level) / variance)
        if mixture.backgrounds is None or mixture.background_of is None:
            return logits
        apart = self.noised[:, None] - math.sqrt(self.level) * mixture.backgrounds.pictures
        behind = apart.square().sum(dim=2, dtype=torch.float64) / (-2.0 * variance)
        # From the likeliest background on, whose centres then keep their last digits.
        behind = (behind - behind.amax(dim=1, keepdim=True)).to(logits.dtype)
        return logits.add_(behind.index_select(1, mixture.background_of))

    def noise(
        self,
        weights: Tensor,  # [B, M]
        component_std: float,
    ) -> Tensor:  # [B, D]
        """Return the noise that belongs to the mean of the centres under their weights."""
        mixture, step = self.mixture, -math.sqrt(self.level)
        scale = math.sqrt(1.0 - self.level) / self._variance(component_std)
        centres, values, covered = mixture.centres, self.values, self.covered
        if mixture.backgrounds is not None and mixture.background_of is not None:
            shares = weights.new_zeros(len(weights), len(mixture.backgrounds.pictures))
            shares.index_add_(1, mixture.background_of, weights)
            values = torch.addmm(self.noised, shares, mixture.backgrounds.pictures, alpha=step)
            covered = values.index_select(1, mixture.backgrounds.covered)
        live = _few_live(weights, centres)
        if live is not None:
            weights, centres = weights[:, live], centres[live]
        # Added in one go and not one by one, which would round each of the small ones to the last digit of a large one.
        after = torch.add(covered, weights @ centres, alpha=step)
        if mixture.backgrounds is None:
            return after.mul_(scale)
        # Nothing else holds the values.
        return values.index_copy_(1, mixture.backgrounds.covered, after).mul_(scale)

    def _variance(self, component_std: float) -> float:
        return self.level * component_std**2 + 1.0 - self.level


def _weights(
    logits: Tensor,  # [B, M]
) -> Tensor:  # [B, M]
    """Return the softmax, with 0 for what no sum of its centres could show: tiny numbers also take long to multiply."""
    return torch.nn.functional.hardshrink(torch.softmax(logits, dim=1), 1e-4 * torch.finfo(logits.dtype).eps)


def _few_live(
    weights: Tensor,  # [B, M]
    centres: Tensor,  # [M, K]
) -> Tensor | None:  # [live]
    """Return the centres that have a weight if they are few; None where all are better multiplied."""
    if centres.numel() < WORTH_COUNTING or centres.device.type != "cpu":
        return None
    if FEW_LIVE * int(torch.count_nonzero(weights)) >= len(centres):
        return None
    return torch.nonzero(weights.any(dim=0)).squeeze(1)
