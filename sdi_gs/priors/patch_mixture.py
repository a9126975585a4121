"""A Gaussian mixture whose components are products over patches, and its exact denoiser.

Component j stands for all members with one geometry, seen by one camera: the shade of each patch is one of several
levels e from -1, dark, to 1, light, independently of all others. A pixel belongs to one patch or to the background.
With m_i the middle between light and dark at pixel i, d_i half their difference, so that level e is m_i + e d_i, and
v = a s^2 + 1 - a,

    r_i = x_i - sqrt(a) m_i,   u_p = sqrt(a) / v sum_{i in p} r_i . d_i,   k_p = a / (2 v) sum_{i in p} |d_i|^2,
    log p_j(x) = sum_p [log mean_e exp(e u_p - e^2 k_p) - sum_{i in p} |r_i|^2 / (2 v)]
                 - sum_{i in no patch} |x_i - sqrt(a) b|^2 / (2 v),
    w_j = softmax_j(log w0_j + log p_j),   m(x)_i = sum_j w_j (m_i + d_i sum_e e softmax_e(e u_p - e^2 k_p)),
    eps(x) = sqrt(1 - a) (x - sqrt(a) m(x)) / v,

which is the mixture over all members of every component, S^patches of them, at the cost of the pixels that they cover.

Letters: D = H W pixels of an image, M components, P patches of all components, N covered pixels of all components,
S levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdi_gs.files.kernel_cache import compiled
from sdi_gs.toybox.patches import PatchRender

# Components of less weight change no pixel by a rounding error of float32.
NEGLIGIBLE = 1e-9
TWO_SHADES = (-1.0, 1.0)
"""Levels of patches that are dark or light."""


@dataclass(frozen=True, kw_only=True)
class PatchComponents:
    """Components before a background is chosen; pixels are sorted by component and patch."""

    pixels: NDArray[np.int32]  # [N] index into the D pixels
    foreground: NDArray[np.floating]  # [N, 3] the mean of light and dark over black, in [0, 1]
    contrast: NDArray[np.floating]  # [N, 3] light minus that mean
    clear: NDArray[np.floating]  # [N] share of the pixel that shows the background
    patch_first: NDArray[np.int64]  # [P + 1] first pixel of each patch
    component_first: NDArray[np.int64]  # [M + 1] first patch of each component

    def __len__(self) -> int:
        """Return M, the number of components."""
        return len(self.component_first) - 1

    def over(
        self,
        backgrounds: NDArray[np.floating],  # [M, 3] in [0, 1]
    ) -> PatchMixture:
        """Return the mixture of equal weights in latents, which are pixels in [-1, 1]."""
        count = len(backgrounds)
        pixels_of = np.diff(self.patch_first[self.component_first])
        behind = np.repeat(backgrounds, pixels_of, axis=0).astype(self.foreground.dtype)
        half = 2.0 * self.contrast
        squares = np.append(0.0, np.cumsum(np.square(half).sum(axis=1), dtype=np.float64))
        return PatchMixture(
            pixels=self.pixels,
            middle=2.0 * (self.foreground + self.clear[:, None] * behind) - 1.0,
            half=half,
            patch_first=self.patch_first,
            patch_energy=np.diff(squares[self.patch_first]),
            component_first=self.component_first,
            backgrounds=2.0 * backgrounds - 1.0,
            log_weights=np.full(count, -math.log(count)),
        )


@dataclass(frozen=True, kw_only=True)
class PatchMixture:
    """The components in latents over their backgrounds, with what their densities need."""

    pixels: NDArray[np.int32]  # [N] index into the D pixels
    middle: NDArray[np.floating]  # [N, 3] mean of the two shades
    half: NDArray[np.floating]  # [N, 3] half their difference, towards light
    patch_first: NDArray[np.int64]  # [P + 1] first pixel of each patch
    patch_energy: NDArray[np.float64]  # [P] sum of |half|^2
    component_first: NDArray[np.int64]  # [M + 1] first patch of each component
    backgrounds: NDArray[np.floating]  # [M, 3]
    log_weights: NDArray[np.float64]  # [M]


def components_of(renders: PatchRender) -> PatchComponents:
    """Return one component per image, with a patch for every cell that the image shows."""
    cells = renders.cells.flatten(1)
    image, pixel = torch.nonzero(cells >= 0, as_tuple=True)
    key = image * (int(cells.max()) + 1) + cells[image, pixel]
    order = torch.argsort(key, stable=True)
    image, pixel, key = image[order], pixel[order], key[order].numpy()
    begins = np.flatnonzero(np.diff(key, prepend=-1))
    first_image = image.numpy()[begins]
    return PatchComponents(
        pixels=pixel.numpy().astype(np.int32),
        foreground=renders.foreground.flatten(1, 2)[image, pixel].numpy(),
        contrast=renders.contrast.flatten(1, 2)[image, pixel].numpy(),
        clear=1.0 - renders.alpha.flatten(1)[image, pixel].numpy(),
        patch_first=np.append(begins, len(key)),
        component_first=np.searchsorted(first_image, np.arange(len(cells) + 1)),
    )


def join(parts: Sequence[PatchMixture], weights: Sequence[float]) -> PatchMixture:
    """Return the mixture of several, each with a share of the weight."""
    num_pixels = np.cumsum([0] + [len(part.pixels) for part in parts])
    num_patches = np.cumsum([0] + [len(part.patch_energy) for part in parts])

    def offset(firsts: list[NDArray[np.int64]], begins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Join lists of first indices, each without its end, and add the last end."""
        moved = [first[:-1] + begin for first, begin in zip(firsts, begins[:-1], strict=True)]
        return np.append(np.concatenate(moved), begins[-1])

    return PatchMixture(
        pixels=np.concatenate([part.pixels for part in parts]),
        middle=np.concatenate([part.middle for part in parts]),
        half=np.concatenate([part.half for part in parts]),
        patch_first=offset([part.patch_first for part in parts], num_pixels),
        patch_energy=np.concatenate([part.patch_energy for part in parts]),
        component_first=offset([part.component_first for part in parts], num_patches),
        backgrounds=np.concatenate([part.backgrounds for part in parts]),
        log_weights=np.concatenate(
            [part.log_weights + math.log(weight) for part, weight in zip(parts, weights, strict=True)]
        ),
    )


def patch_noise(
    noised: Tensor,  # [3, H, W]
    mixture: PatchMixture,
    level: float,
    component_std: float,
    shades: Sequence[float] = TWO_SHADES,  # S
) -> Tensor:  # [3, H, W]
    """Return the optimal noise prediction at a noise level (formula at the top of this file)."""
    x = np.ascontiguousarray(noised.flatten(1).T.numpy())
    variance, root = level * component_std**2 + 1.0 - level, math.sqrt(level)
    mean = np.empty_like(x)
    tilts = np.empty(len(mixture.patch_energy))
    logits = mixture.log_weights + _log_densities(
        x,
        root,
        variance,
        mixture.pixels,
        mixture.middle,
        mixture.half,
        mixture.patch_first,
        mixture.patch_energy,
        mixture.component_first,
        mixture.backgrounds,
        np.array(shades),
        tilts,
    )
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    _posterior_mean(
        weights,
        tilts,
        mixture.pixels,
        mixture.middle,
        mixture.half,
        mixture.patch_first,
        mixture.component_first,
        mixture.backgrounds,
        mean,
    )
    predicted = math.sqrt(1.0 - level) / variance * (x - root * mean)
    return torch.from_numpy(np.ascontiguousarray(predicted.T)).view_as(noised)


@compiled(nogil=True)
def _log_densities(
    x, root, variance, pixels, middle, half, patch_first, patch_energy, component_first, backgrounds, shades, tilts
):
    """Return the components' log densities [M] up to a common constant; write each patch's mean level to tilts [P]."""
    count = len(backgrounds)
    out = np.empty(count)
    sums = np.zeros(3)
    for i in range(len(x)):
        for c in range(3):
            sums[c] += x[i, c]
    for j in range(count):
        behind = backgrounds[j]
        # The background everywhere; |x|^2 is common to all components.
        distance = 0.0
        for c in range(3):
            distance += len(x) * (root * behind[c]) ** 2 - 2.0 * root * behind[c] * sums[c]
        log_shades = 0.0
        b0, b1, b2 = root * behind[0], root * behind[1], root * behind[2]
        for p in range(component_first[j], component_first[j + 1]):
            dot = 0.0
            for n in range(patch_first[p], patch_first[p + 1]):
                i = pixels[n]
                x0, x1, x2 = x[i, 0], x[i, 1], x[i, 2]
                r0, r1, r2 = x0 - root * middle[n, 0], x1 - root * middle[n, 1], x2 - root * middle[n, 2]
                dot += r0 * half[n, 0] + r1 * half[n, 1] + r2 * half[n, 2]
                distance += r0 * r0 + r1 * r1 + r2 * r2
                distance -= (x0 - b0) ** 2 + (x1 - b1) ** 2 + (x2 - b2) ** 2
            u, k = root * dot / variance, 0.5 * root * root * patch_energy[p] / variance
            highest = -np.inf
            for shade in shades:
                highest = max(highest, shade * u - shade * shade * k)
            total, tilt = 0.0, 0.0
            for shade in shades:
                share = math.exp(shade * u - shade * shade * k - highest)
                total += share
                tilt += share * shade
            tilts[p] = tilt / total
            log_shades += highest + math.log(total / len(shades))
        out[j] = log_shades - distance / (2.0 * variance)
    return out


@compiled(nogil=True)
def _posterior_mean(weights, tilts, pixels, middle, half, patch_first, component_first, backgrounds, mean):
    """Write the mean of the clean image to mean [D, 3]."""
    for c in range(3):
        behind = 0.0
        for j in range(len(weights)):
            behind += weights[j] * backgrounds[j, c]
        mean[:, c] = behind
    for j in range(len(weights)):
        weight = weights[j]
        if weight < NEGLIGIBLE:
            continue
        for p in range(component_first[j], component_first[j + 1]):
            for n in range(patch_first[p], patch_first[p + 1]):
                for c in range(3):
                    mean[pixels[n], c] += weight * (middle[n, c] + tilts[p] * half[n, c] - backgrounds[j, c])
