"""Each regulariser against its closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import orbit_cameras
from sdi_gs.representations.ngp.regularizers import (
    CONVEXITY_SIZE,
    convexity_loss,
    opaqueness_loss,
    orientation_loss,
    published_convexity_loss,
    scheduled,
    sparsity_loss,
    z_variance_loss,
)


def pixels(*values: float) -> Tensor:  # [1, 1, n, 1]
    return torch.tensor(values).view(1, 1, -1, 1).requires_grad_()


def test_orientation_costs_the_squared_cosine_of_what_faces_away() -> None:
    weights = torch.tensor([0.5, 0.25, 1.0], requires_grad=True)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.0, 0.0, -1.0]], requires_grad=True)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3)
    loss = orientation_loss(weights, normals, directions, 2)
    assert loss.item() == pytest.approx((0.5 * 1.0 + 0.25 * 0.64) / 2.0)
    loss.backward()
    # Weights are held: turning a normal is the way out, not thinning its sample.
    assert weights.grad is None
    assert normals.grad is not None
    torch.testing.assert_close(normals.grad[:, 2], torch.tensor([0.5, 0.25 * 0.8, 0.0]))


def test_orientation_of_nothing_is_zero() -> None:
    empty = torch.zeros(0, 3)
    assert orientation_loss(torch.zeros(0), empty, empty, 0).item() == 0.0


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_sparsity_is_a_soft_absolute_value(alpha: float) -> None:
    assert sparsity_loss(pixels(alpha, alpha)).item() == pytest.approx(math.sqrt(alpha**2 + 0.01))


def test_opaqueness_is_the_entropy_of_opacity() -> None:
    assert opaqueness_loss(pixels(0.5)).item() == pytest.approx(math.log(2.0))
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert opaqueness_loss(pixels(0.2, 0.8)).item() == pytest.approx(entropy)
    least = -(1e-3 * math.log(1e-3) + 0.999 * math.log(0.999))
    assert opaqueness_loss(pixels(0.0, 1.0)).item() == pytest.approx(least, rel=1e-4)
    alpha = pixels(0.25, 0.75)
    opaqueness_loss(alpha).backward()
    assert alpha.grad is not None
    assert alpha.grad.flatten().tolist() == pytest.approx([0.5 * math.log(3.0), -0.5 * math.log(3.0)])


def test_z_variance_is_averaged_over_solid_pixels() -> None:
    variance, alpha = pixels(0.4, 0.2, 100.0), pixels(0.9, 0.51, 0.5)
    loss = z_variance_loss(variance, alpha)
    assert loss.item() == pytest.approx(0.3)
    loss.backward()
    assert variance.grad is not None
    assert variance.grad.flatten().tolist() == [0.5, 0.5, 0.0]


def test_z_variance_without_a_solid_pixel_is_zero_and_not_nan() -> None:
    variance, alpha = pixels(float("nan"), 3.0), pixels(0.5, 0.0)
    loss = z_variance_loss(variance, alpha)
    assert loss.item() == 0.0
    loss.backward()
    assert variance.grad is not None
    assert variance.grad.flatten().tolist() == [0.0, 0.0]


def curved_normals(turn: float, *, across: bool) -> Tensor:  # [1, 8, 8, 3]
    """Camera-frame normals of a cylinder seen from outside, ``turn`` radians from pixel to pixel."""
    angles = turn * (torch.arange(CONVEXITY_SIZE) - 3.5)
    zero = torch.zeros_like(angles)
    if across:
        line = torch.stack([angles.sin(), zero, -angles.cos()], dim=-1)[None, :]
    else:
        line = torch.stack([zero, angles.sin(), -angles.cos()], dim=-1)[:, None]
    return line.expand(CONVEXITY_SIZE, CONVEXITY_SIZE, 3)[None]


@pytest.mark.parametrize("across", [True, False], ids=["upright", "lying"])
def test_convexity_is_minus_the_sine_between_neighbours(across: bool) -> None:
    eye = torch.eye(4)[None]
    assert convexity_loss(curved_normals(0.2, across=across), eye).item() == pytest.approx(-math.sin(0.2))
    # The mould of the same cylinder: the hollow face.
    assert convexity_loss(curved_normals(-0.2, across=across), eye).item() == pytest.approx(math.sin(0.2))
    assert convexity_loss(curved_normals(0.0, across=across), eye).item() == pytest.approx(0.0, abs=1e-7)


def test_convexity_does_not_depend_on_where_the_camera_stands() -> None:
    def angles(*values: float) -> Tensor:
        return torch.tensor(values)

    cameras = orbit_cameras(
        angles(10.0, 130.0), angles(-5.0, 40.0), angles(3.0, 3.0), angles(40.0, 40.0), width=8, height=8
    )
    seen = (curved_normals(0.2, across=True) + curved_normals(0.15, across=False)).expand(2, -1, -1, -1)
    world = torch.einsum("bij,bhwj->bhwi", cameras.world_from_camera[:, :3, :3], seen)
    expected = convexity_loss(seen, torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(convexity_loss(world, cameras.camera_from_world), expected)


def test_a_ball_is_cheaper_than_its_hollow_mould_at_any_size() -> None:
    x, y = torch.meshgrid(torch.linspace(-1.2, 1.2, 64), torch.linspace(-1.2, 1.2, 64), indexing="xy")
    z = (1.0 - x.square() - y.square()).clamp_min(0.0).sqrt()
    inside = (x.square() + y.square() < 1.0)[..., None]
    ball = (torch.stack([x, y, -z], dim=-1) * inside)[None]
    mould = (torch.stack([-x, -y, -z], dim=-1) * inside)[None]
    eye = torch.eye(4)[None]
    assert convexity_loss(ball, eye) < -0.05
    torch.testing.assert_close(convexity_loss(mould, eye), -convexity_loss(ball, eye))


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 1.0), (0.2, 0.55), (0.4, 0.1), (0.9, 0.1)])
def test_schedules_are_linear_in_the_share_of_the_run(progress: float, weight: float) -> None:
    # The published convexity: 1 to 0.1 over 4000 of 10 000 steps.
    assert scheduled(1.0, 0.1, 0.4, progress) == pytest.approx(weight)
    assert scheduled(1.0, 0.1, 0.0, progress) == 0.1


def published_convexity_by_loops(normals: np.ndarray, alpha: np.ndarray) -> float:
    """Return the published term of [B, 2 S, 2 S, 3] normals, pixel by pixel; at half the size bilinear is a mean."""
    total: dict[str, list[float]] = {"across": [], "down": []}
    for image, opacity in zip(normals, alpha, strict=True):
        shown = np.zeros((CONVEXITY_SIZE, CONVEXITY_SIZE, 3))
        for row, column, i, j in itertools.product(range(CONVEXITY_SIZE), range(CONVEXITY_SIZE), (0, 1), (0, 1)):
            y, x = 2 * row + i, 2 * column + j
            unit = image[y, x] / np.linalg.norm(image[y, x])
            shown[row, column] += 0.25 * opacity[y, x] * (unit + 1.0) / 2.0
        for row, column in itertools.product(range(CONVEXITY_SIZE), range(CONVEXITY_SIZE)):
            here = shown[row, column]
            if column + 1 < CONVEXITY_SIZE:
                right = shown[row, column + 1]
                total["across"].append(here[0] * right[1] - here[1] * right[0])
            if row + 1 < CONVEXITY_SIZE:
                below = shown[row + 1, column]
                total["down"].append(below[0] * here[1] - below[1] * here[0])
    return -(float(np.mean(total["across"])) + float(np.mean(total["down"])))


def test_the_published_convexity_is_what_its_code_computes() -> None:
    generator = torch.Generator().manual_seed(2)
    side = 2 * CONVEXITY_SIZE
    normals = torch.randn(2, side, side, 3, generator=generator, dtype=torch.float64)
    alpha = torch.rand(2, side, side, 1, generator=generator, dtype=torch.float64)
    loss = published_convexity_loss(normals * alpha, alpha)
    assert loss.item() == pytest.approx(published_convexity_by_loops(normals.numpy(), alpha.numpy()), rel=1e-12)


def test_the_published_convexity_of_empty_pixels_has_no_gradient_and_is_finite() -> None:
    normals = torch.zeros(1, 8, 8, 3, requires_grad=True)
    alpha = torch.zeros(1, 8, 8, 1, requires_grad=True)
    published_convexity_loss(normals, alpha).backward()
    for value in (normals, alpha):
        assert value.grad is not None
        assert value.grad.isfinite().all()
