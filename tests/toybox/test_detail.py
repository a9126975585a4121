"""Detail is what agrees with truth's Laplacian: an oracle in numpy, and everything that must not pass for it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox import metrics
from sdi_gs.toybox.classes import ClassName
from sdi_gs.toybox.detail import aligned_laplacian, detail, detail_inside
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.truth import held_out_cameras, render_truth
from sdi_gs.toybox.truth_yaw import turned

CAMERAS = held_out_cameras(64).rows(slice(0, 24, 5))
ROBOT = canonical_object("robot", "blue")


def robot(cameras: CameraBatch = CAMERAS) -> tuple[Tensor, Tensor]:
    render = render_truth([ROBOT], cameras)
    return render.rgb, metrics.silhouette(render.alpha)


def score(predicted: Tensor) -> float:
    truth, mask = robot()
    return detail(predicted.clamp(0.0, 1.0), truth, mask).explained


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur in pixels."""
    radius = math.ceil(3.0 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    planes = F.pad(images.movedim(-1, 1), (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernel[:, :, None, :], groups=3)
    return F.conv2d(planes, kernel[:, :, :, None], groups=3).movedim(1, -1)


def moved(pixels: float) -> CameraBatch:
    """Cameras whose pictures lie some pixels farther to the right."""
    intrinsics = CAMERAS.intrinsics.clone()
    intrinsics[:, 0, 2] += pixels
    return replace(CAMERAS, intrinsics=intrinsics)


def noise(amplitude: float) -> Tensor:
    return amplitude * torch.randn(len(CAMERAS), 64, 64, 3, generator=torch.Generator().manual_seed(0))


def needles(images: Tensor, count: int, length: int = 12) -> Tensor:
    """Draw dark and bright lines one pixel wide at random places of the middle."""
    generator, images = torch.Generator().manual_seed(1), images.clone()
    for view in images:
        for _ in range(count):
            start = torch.randint(14, 50, (2,), generator=generator)
            angle = math.pi * torch.rand((), generator=generator).item()
            steps = torch.arange(length)
            rows = (start[0] + steps * math.sin(angle)).long().clamp(0, 63)
            columns = (start[1] + steps * math.cos(angle)).long().clamp(0, 63)
            view[rows, columns] = torch.rand(3, generator=generator)
    return images


def test_detail_equals_an_oracle_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((2, 12, 11, 3))
    predicted = 0.6 * np.roll(truth, 1, axis=2) + 0.7 * rng.random(truth.shape)
    mask = np.zeros((2, 12, 11), bool)
    mask[:, 5:8, 5:7] = True

    def at(image: np.ndarray, y: int, x: int) -> np.ndarray:
        return image[min(max(y, 0), 11), min(max(x, 0), 10)]

    common = ours = theirs = 0.0
    for v in range(2):
        for y in range(1, 11):
            for x in range(1, 10):
                if not any(
                    mask[v, b, a] for b in range(y - 2, y + 3) for a in range(x - 2, x + 3) if b < 12 and a < 11
                ):
                    continue
                errors = {}
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        window = [(b, a) for b in range(y - 2, y + 3) for a in range(x - 2, x + 3)]
                        window = [(b, a) for b, a in window if 0 <= b < 12 and 0 <= a < 11]
                        errors[dy, dx] = np.mean(
                            [(at(predicted[v], b + dy, a + dx) - truth[v, b, a]) ** 2 for b, a in window]
                        )
                dy, dx = min(errors, key=lambda shift: errors[shift])
                around = [(0, 1), (0, -1), (1, 0), (-1, 0)]
                q, p = y + dy, x + dx
                mine = sum(at(predicted[v], q + b, p + a) for b, a in around) - 4 * at(predicted[v], q, p)
                true = sum(truth[v, y + b, x + a] for b, a in around) - 4 * truth[v, y, x]
                common, ours, theirs = common + mine @ true, ours + mine @ mine, theirs + true @ true
    found = detail(torch.from_numpy(predicted).float(), torch.from_numpy(truth).float(), torch.from_numpy(mask))
    assert found.recall == pytest.approx(min(common / theirs, 1.0), rel=1e-4)
    assert found.precision == pytest.approx(min(common / ours, 1.0), rel=1e-4)
    assert found.recall < 0.95 and found.precision < 0.95
    assert found.explained == pytest.approx(found.recall * found.precision)


def test_truth_explains_all_of_itself() -> None:
    truth, _ = robot()
    assert score(truth) == pytest.approx(1.0, abs=1e-6)


def test_half_the_contrast_shows_half_the_detail_and_twice_the_contrast_is_half_wrong() -> None:
    truth = torch.rand(1, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 24, 24, dtype=torch.bool)
    mask[:, 8:16, 8:16] = True
    mean = truth.mean()
    faint = detail(mean + 0.5 * (truth - mean), truth, mask)
    harsh = detail(mean + 2.0 * (truth - mean), truth, mask)
    assert (faint.recall, faint.precision) == (pytest.approx(0.5, abs=0.02), 1.0)
    assert (harsh.recall, harsh.precision) == (1.0, pytest.approx(0.5, abs=0.02))


def test_blur_shows_little_detail_and_more_blur_less() -> None:
    truth, _ = robot()
    scores = [score(blurred(truth, sigma)) for sigma in (0.5, 1.0, 2.0, 3.0)]
    assert scores == sorted(scores, reverse=True)
    assert 0.55 < scores[0] < 0.75
    assert scores[1] < 0.25
    assert scores[2] < 0.05


@pytest.mark.parametrize("amplitude", [0.05, 0.2, 0.5])
def test_noise_is_no_detail_whatever_its_energy(amplitude: float) -> None:
    truth, mask = robot()
    for smooth in (blurred(truth, 2.0), torch.full_like(truth, 0.5)):
        assert score(smooth + noise(amplitude)) < 0.03
    # The old ratio takes it for sharpness.
    assert metrics.sharpness_ratio((blurred(truth, 2.0) + noise(0.2)).clamp(0.0, 1.0), truth, mask) > 3.0


def test_noise_on_truth_costs_detail() -> None:
    truth, _ = robot()
    scores = [score(truth + noise(amplitude)) for amplitude in (0.0, 0.02, 0.1, 0.3)]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] > 0.9
    assert scores[2] < 0.6


def test_needles_cost_detail_although_they_are_sharp() -> None:
    truth, mask = robot()
    blur = blurred(truth, 1.0)
    streaked = needles(blur, 12)
    assert metrics.sharpness_ratio(streaked, truth, mask) > 2.0 * metrics.sharpness_ratio(blur, truth, mask)
    assert score(streaked) < score(blur)
    assert score(needles(truth, 12)) < 0.75


def test_a_shift_below_a_pixel_costs_part_of_the_detail_and_two_pixels_all_of_it() -> None:
    shifted = {pixels: score(robot(moved(pixels))[0]) for pixels in (0.25, 0.5, 1.0, 2.0, 3.0)}
    assert shifted[0.25] > 0.65
    assert shifted[0.5] > 0.35
    assert shifted[1.0] > 0.95
    assert shifted[2.0] < 0.1
    assert shifted[3.0] < 0.1


def test_a_turn_of_6_degrees_costs_detail() -> None:
    assert 0.3 < score(robot(turned(CAMERAS, 6.0))[0]) < 0.85


@pytest.mark.parametrize("other", ["house", "car", "ball"])
def test_another_class_shows_no_detail_of_a_robot(other: ClassName) -> None:
    assert score(render_truth([canonical_object(other, "blue")], CAMERAS).rgb) < 0.05


def test_a_flat_silhouette_has_the_outline_but_nothing_inside() -> None:
    render = render_truth([ROBOT], CAMERAS)
    mask = metrics.silhouette(render.alpha)
    flat = 1.0 - render.alpha * (1.0 - render.rgb[mask].mean(dim=0))
    inside = detail_inside(flat, render.rgb, mask)
    assert detail(flat, render.rgb, mask).explained > 0.5
    assert inside is not None
    assert inside.explained < 0.05
    itself = detail_inside(render.rgb, render.rgb, mask)
    assert itself is not None
    assert itself.explained == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("class_name", "has_detail"), [("ball", False), ("cube", False), ("car", True), ("chair", True)]
)
def test_plain_faces_have_no_detail_inside(class_name: ClassName, has_detail: bool) -> None:
    render = render_truth([canonical_object(class_name, "blue")], CAMERAS)
    found = detail_inside(render.rgb, render.rgb, metrics.silhouette(render.alpha))
    assert (found is not None) == has_detail


def test_what_fits_is_not_moved() -> None:
    flat = torch.full((1, 8, 8, 3), 0.5)
    ramp = flat + 0.01 * torch.arange(8.0)[None, None, :, None] ** 2
    torch.testing.assert_close(aligned_laplacian(ramp, ramp), metrics.laplacian(ramp))
