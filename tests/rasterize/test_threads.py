"""Same bytes for any number of threads, and no call disturbs another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.rasterize import rasterization, threads


def render_and_backward(scene: Any, **options: Any) -> list[Tensor]:
    """Colours, alphas, absolute gradients of the centres, and the gradients of whatever is given."""
    leaves = scene.leaves() | options.pop("leaves", {})
    given: dict[str, Any] = scene.cameras() | {"packed": False, "absgrad": True} | leaves | options
    rendered, alphas, meta = rasterization(**given)
    ((rendered**2).sum() + alphas.sum()).backward()
    gradients = [leaf.grad for leaf in leaves.values()]
    return [rendered.detach(), alphas.detach(), meta["means2d"].absgrad, *(g for g in gradients if g is not None)]


def test_results_are_bitwise_equal_for_any_number_of_threads(
    make_scene: Callable[..., Any], set_threads: Callable[[int], None]
) -> None:
    scene = make_scene(9000, width=90, height=75)
    results = []
    for num_threads in (1, 2, 3, 2, 1):
        set_threads(num_threads)
        results.append(render_and_backward(scene))
    assert len(results[0]) == 8
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("camera_model", ["pinhole", "ortho"])
@pytest.mark.parametrize("from_covars", [False, True])
def test_gradients_of_cameras_and_covariances_are_bitwise_equal_too(
    from_covars: bool, camera_model: str, make_scene: Callable[..., Any], set_threads: Callable[[int], None]
) -> None:
    scene = make_scene(9000, width=50, height=45)
    results = []
    for num_threads in (1, 2, 3, 2):
        set_threads(num_threads)
        leaves: dict[str, Any] = {"viewmats": scene.viewmats.clone().requires_grad_()}
        if from_covars:
            leaves["covars"] = torch.diag_embed(scene.scales**2).requires_grad_()
        results.append(render_and_backward(scene, leaves=leaves, camera_model=camera_model, packed=True))
    assert len(results[0]) == (8 if from_covars else 9)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("num_cameras", [1, 2])
def test_tile_lists_do_not_depend_on_the_number_of_threads(
    num_cameras: int, make_scene: Callable[..., Any], set_threads: Callable[[int], None]
) -> None:
    # Enough pairs that every number of threads splits the image into other bands.
    scene = make_scene(6000, width=400, height=300, scales=(0.02, 0.1))
    cameras = scene.cameras() | {"viewmats": scene.viewmats[:num_cameras], "Ks": scene.Ks[:num_cameras]}
    results = []
    for num_threads in (1, 2, 3, 7):
        set_threads(num_threads)
        with torch.no_grad():
            rendered, _, meta = rasterization(**scene.leaves(), **cameras)
        results.append((rendered, meta["flatten_ids"], meta["isect_offsets"]))
    assert len(results[0][1]) > 7 * 16384
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_two_forwards_may_come_before_their_backwards(make_scene: Callable[..., Any]) -> None:
    scenes = [make_scene(seed=seed) for seed in (0, 1)]
    expected = [render_and_backward(scene) for scene in scenes]
    leaves = [scene.leaves() for scene in scenes]
    losses = []
    for scene, own in zip(scenes, leaves, strict=True):
        cameras = scene.cameras()
        rendered, alphas, _ = rasterization(**own, **cameras, packed=False, absgrad=True)
        losses.append((rendered**2).sum() + alphas.sum())
    for loss in losses:
        loss.backward()
    for own, truth in zip(leaves, expected, strict=True):
        gradients = [leaf.grad for leaf in own.values()]
        assert all(g is not None and torch.equal(g, t) for g, t in zip(gradients, truth[3:], strict=True))


def test_backward_can_be_repeated_on_a_kept_graph(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    leaves = scene.leaves()
    cameras = scene.cameras()
    loss = rasterization(**leaves, **cameras)[0].sum()
    first, second = (torch.autograd.grad(loss, list(leaves.values()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_image_changed_in_place_is_refused_by_backward(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    cameras = scene.cameras()
    rendered, _, _ = rasterization(**scene.leaves(), **cameras)
    rendered.mul_(2.0)
    with pytest.raises(RuntimeError, match="inplace"):
        rendered.sum().backward()


@pytest.mark.parametrize("name", ["means", "quats", "scales", "viewmats", "Ks", "opacities", "conics", "radii"])
def test_what_backward_reads_is_refused_once_it_was_changed_in_place(name: str, make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    leaves, cameras = scene.leaves(), scene.cameras()
    rendered, _, meta = rasterization(**leaves, **cameras, packed=False)
    changed = (meta | leaves | cameras | {"opacities": leaves["opacities"]})[name]
    with torch.no_grad():
        changed.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        rendered.sum().backward()


def test_a_second_derivative_is_refused(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    leaves = scene.leaves()
    rendered, _, _ = rasterization(**leaves, **scene.cameras())
    (first,) = torch.autograd.grad(rendered.square().sum(), leaves["means"], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.square().sum().backward()


def test_calls_from_several_python_threads_do_not_mix(
    make_scene: Callable[..., Any], set_threads: Callable[[int], None]
) -> None:
    set_threads(2)
    scenes = [make_scene(5000, width=70, height=70, seed=seed) for seed in range(4)]
    expected = [render_and_backward(scene) for scene in scenes]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(render_and_backward, scenes * 3))
    for result, truth in zip(results, expected * 3, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(result, truth, strict=True))


@pytest.mark.parametrize("count", [0, 1, 63, 64, 1000, 4096])
@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_ranges_cover_everything_once(count: int, num_threads: int, set_threads: Callable[[int], None]) -> None:
    set_threads(num_threads)
    seen: list[int] = []
    threads.run_on_ranges(lambda begin, end: seen.extend(range(begin, end)), count, 100)
    assert sorted(seen) == list(range(count))
    seen = []
    threads.run_interleaved(lambda first, step: seen.extend(range(first, count, step)), count, count, 10)
    assert sorted(seen) == list(range(count))


def test_a_failure_on_another_thread_reaches_the_caller(set_threads: Callable[[int], None]) -> None:
    set_threads(2)

    def fail_on_second(first: int, step: int) -> None:
        if first == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        threads.run_interleaved(fail_on_second, 2, 1000, 1)
