"""Splats for the browser against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.splats.ply import write_splat_ply
from sdi_gs.splats.splat_cloud import SplatCloud, sh_dc_from_rgb
from sdi_gs.viewer.splat_stream import SplatArrays, StreamOptions, splat_arrays

PLAIN = StreamOptions()


def cloud_of(
    means: Tensor,  # [N, 3]
    deviations: Tensor,  # [N, 3]
    *,
    quats: Tensor | None = None,  # [N, 4]
    rgb: tuple[float, float, float] = (0.2, 0.4, 0.6),
    opacity: float = 0.8,
) -> SplatCloud:
    count = len(means)
    return SplatCloud(
        means=means.float(),
        log_scales=deviations.float().log(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1) if quats is None else quats.float(),
        opacity_logit=torch.full((count,), math.log(opacity / (1.0 - opacity))),
        sh_dc=sh_dc_from_rgb(torch.tensor(rgb)).repeat(count, 1),
        sh_rest=torch.zeros(count, 0, 3),
    )


def random_cloud(count: int, *, size: float = 0.02, reach: float = 1.0) -> SplatCloud:
    generator = torch.Generator().manual_seed(count)

    def uniform(width: int) -> Tensor:
        return torch.rand(count, width, generator=generator)

    return cloud_of(
        reach * (2.0 * uniform(3) - 1.0),
        size * (0.5 + uniform(3)),
        quats=torch.randn(count, 4, generator=generator),
    )


def shown_centers(arrays: SplatArrays) -> np.ndarray:  # [M, 3]
    """Where the browser sees them: through the node's scale."""
    return arrays.centers.astype(np.float64) / arrays.factor


def shown_covariances(arrays: SplatArrays) -> np.ndarray:  # [M, 3, 3]
    """What is left of the covariances after half floats and the node's scale."""
    return arrays.covariances.astype(np.float16).astype(np.float64) / arrays.factor**2


def test_one_turned_splat_has_the_covariance_of_its_axes() -> None:
    # A quarter turn about z: the long axis, x, comes to lie along y.
    quarter = torch.tensor([[math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]])
    cloud = cloud_of(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.4, 0.1, 0.2]]), quats=quarter)
    arrays = splat_arrays(cloud, PLAIN)
    np.testing.assert_allclose(shown_centers(arrays), [[1.0, 2.0, 3.0]], rtol=1e-6)
    np.testing.assert_allclose(shown_covariances(arrays)[0], np.diag([0.01, 0.16, 0.04]), rtol=1e-3, atol=1e-8)
    assert arrays.rgbs.tolist() == [[51, 102, 153]]
    assert arrays.opacities.tolist() == [[204]]


def test_covariances_agree_with_a_product_in_double_precision() -> None:
    cloud = random_cloud(50)
    arrays = splat_arrays(cloud, PLAIN)
    for index in range(50):
        w, v = cloud.quats[index, 0].item(), cloud.quats[index, 1:].double().numpy()
        norm = math.sqrt(w * w + v @ v)
        w, v = w / norm, v / norm
        cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        # Rodrigues' formula in terms of a quaternion.
        rotation = np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross
        variances = np.diag(cloud.log_scales[index].double().exp().numpy() ** 2)
        expected = rotation @ variances @ rotation.T
        np.testing.assert_allclose(shown_covariances(arrays)[index], expected, atol=2e-3 * expected.max())


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1.0, 1e4])
def test_splats_of_any_size_survive_half_floats(size: float) -> None:
    cloud = random_cloud(200, size=size, reach=50.0 * size)
    arrays = splat_arrays(cloud, PLAIN)
    traces = np.trace(shown_covariances(arrays), axis1=1, axis2=2)
    expected = cloud.log_scales.double().exp().square().sum(dim=1).numpy()
    np.testing.assert_allclose(traces, expected, rtol=2e-3)
    assert np.isfinite(arrays.covariances.astype(np.float16)).all()


def test_without_the_factor_small_splats_would_be_lost() -> None:
    # What the factor is for: the same numbers as they are do not survive.
    variance = np.float32(1e-4) ** 2
    assert np.float16(variance) < 1e-3 * 2.0**-14


def test_one_giant_does_not_cost_the_others_their_size() -> None:
    cloud = random_cloud(500, size=1e-3, reach=0.1)
    cloud.log_scales[7] = math.log(1e4)
    arrays = splat_arrays(cloud, PLAIN)
    covariances = arrays.covariances.astype(np.float16).astype(np.float64)
    assert np.isfinite(covariances).all()
    others = np.delete(np.trace(covariances, axis1=1, axis2=2), 7) / arrays.factor**2
    expected = np.delete(cloud.log_scales.double().exp().square().sum(dim=1).numpy(), 7)
    np.testing.assert_allclose(others, expected, rtol=2e-3)


def test_the_factor_is_a_power_of_two_and_stays_while_sizes_wander() -> None:
    factors = {splat_arrays(random_cloud(300, size=size), PLAIN).factor for size in (0.02, 0.021, 0.019)}
    assert len(factors) == 1
    assert math.log2(factors.pop()) % 1.0 == 0.0


def test_what_is_not_finite_or_cannot_be_seen_is_left_out() -> None:
    cloud = random_cloud(10)
    cloud.means[0, 1] = math.nan
    cloud.log_scales[1, 0] = math.inf
    cloud.opacity_logit[2] = math.nan
    cloud.sh_dc[3, 2] = -math.inf
    cloud.quats[4] = 0.0
    cloud.opacity_logit[5] = -10.0
    arrays = splat_arrays(cloud, PLAIN)
    assert len(arrays) == arrays.presentable == 4
    np.testing.assert_allclose(shown_centers(arrays), cloud.means[6:].numpy(), rtol=1e-6)


def test_as_many_are_presentable_as_a_file_would_hold(ball: Callable[..., Gaussians], tmp_path: object) -> None:
    from pathlib import Path

    cloud = ball(60).splats()
    cloud.opacity_logit[:13] = -8.0
    cloud.means[20] = math.inf
    arrays = splat_arrays(cloud, PLAIN)
    assert arrays.presentable == write_splat_ply(Path(str(tmp_path)) / "a.ply", cloud).written == 46


def test_far_outliers_are_left_out_and_counted() -> None:
    cloud = random_cloud(1000)
    cloud.means[3] = torch.tensor([500.0, 0.0, 0.0])
    arrays = splat_arrays(cloud, PLAIN)
    assert (len(arrays), arrays.outliers, arrays.presentable) == (999, 1, 1000)
    # A wide scene is none of them.
    assert splat_arrays(random_cloud(1000, reach=1e3), PLAIN).outliers == 0


def test_too_many_are_thinned_by_what_they_contribute() -> None:
    small, large = random_cloud(300, size=0.001), random_cloud(100, size=0.1)
    both = SplatCloud(
        **{
            name: torch.cat([getattr(small, name), getattr(large, name)])
            for name in ("means", "log_scales", "quats", "opacity_logit", "sh_dc", "sh_rest")
        }
    )
    arrays = splat_arrays(both, replace(PLAIN, max_splats=100))
    assert (len(arrays), arrays.thinned, arrays.presentable) == (100, 300, 400)
    np.testing.assert_allclose(shown_centers(arrays), large.means.numpy(), rtol=1e-5)


def test_of_two_of_a_size_the_more_opaque_one_stays() -> None:
    cloud = cloud_of(torch.eye(3), torch.full((3, 3), 0.1))
    cloud.opacity_logit[:] = torch.tensor([-2.0, 3.0, 0.0])
    arrays = splat_arrays(cloud, replace(PLAIN, max_splats=1))
    np.testing.assert_allclose(shown_centers(arrays), [[0.0, 1.0, 0.0]], atol=1e-6)


def test_the_box_shows_what_lies_in_it() -> None:
    cloud = random_cloud(400)
    box = ((-0.5, -1.0, 0.0), (0.5, 1.0, 1.0))
    arrays = splat_arrays(cloud, replace(PLAIN, crop=box))
    inside = ((cloud.means >= torch.tensor(box[0])) & (cloud.means <= torch.tensor(box[1]))).all(dim=1)
    assert 0 < len(arrays) == int(inside.sum()) == 400 - arrays.cropped
    np.testing.assert_allclose(shown_centers(arrays), cloud.means[inside].numpy(), rtol=1e-5)


def test_an_empty_box_shows_nothing_and_breaks_nothing() -> None:
    arrays = splat_arrays(random_cloud(20), replace(PLAIN, crop=((5.0, 5.0, 5.0), (6.0, 6.0, 6.0))))
    assert (len(arrays), arrays.cropped, arrays.factor) == (0, 20, 1.0)
    assert arrays.covariances.shape == (0, 3, 3)
    assert arrays.opacities.shape == (0, 1)


def test_the_splat_scale_multiplies_deviations() -> None:
    cloud = random_cloud(30)
    plain, half = (splat_arrays(cloud, StreamOptions(splat_scale=scale)) for scale in (1.0, 0.5))
    np.testing.assert_allclose(shown_covariances(half), 0.25 * shown_covariances(plain), rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(shown_centers(half), shown_centers(plain), rtol=1e-6)


def test_axes_narrower_than_the_smallest_deviation_are_widened_to_it_and_no_others() -> None:
    cloud = cloud_of(torch.zeros(2, 3), torch.tensor([[1e-4, 0.02, 0.5], [0.03, 0.04, 0.05]]))
    arrays = splat_arrays(cloud, StreamOptions(smallest_deviation=0.01))
    variances = np.diagonal(arrays.covariances, axis1=1, axis2=2) / arrays.factor**2
    np.testing.assert_allclose(np.sqrt(variances), [[0.01, 0.02, 0.5], [0.03, 0.04, 0.05]], rtol=1e-5)
