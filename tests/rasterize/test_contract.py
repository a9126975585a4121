"""The call: gsplat's signature, which backend answers, and what is refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gsplat
import pytest
import torch

from sdi_gs import rasterize
from sdi_gs.rasterize import backend_for, rasterization


def arguments_of(scene: Any) -> dict[str, Any]:
    return {**scene.leaves(), **scene.cameras()}


def test_signature_is_that_of_the_installed_gsplat() -> None:
    ours, theirs = (inspect.signature(f).parameters.values() for f in (rasterization, gsplat.rasterization))
    assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]


@pytest.mark.parametrize(
    ("device", "backend"), [("cuda", "gsplat"), ("cuda:1", "gsplat"), ("cpu", "numba"), ("meta", "counted")]
)
def test_device_picks_the_backend(device: str, backend: str) -> None:
    assert backend_for(device) == backend


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="cpu or cuda tensors, got 'mps'"):
        backend_for("mps")


def test_cuda_tensors_go_to_gsplat_with_every_argument(
    monkeypatch: pytest.MonkeyPatch, make_scene: Callable[..., Any]
) -> None:
    names = list(inspect.signature(gsplat.rasterization).parameters)
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(rasterize, "backend_for", lambda device: "gsplat")
    monkeypatch.setattr(gsplat, "rasterization", lambda **given: calls.append(given) or "gsplat's answer")
    given = arguments_of(make_scene(3)) | {"camera_model": "fisheye", "packed": False, "tile_size": 8}
    assert rasterization(**given) == "gsplat's answer"
    (received,) = calls
    assert list(received) == names
    assert all(received[name] is value for name, value in given.items())
    assert received["rolling_shutter"] is gsplat.RollingShutterType.GLOBAL


def test_cpu_tensors_never_reach_gsplat(monkeypatch: pytest.MonkeyPatch, make_scene: Callable[..., Any]) -> None:
    monkeypatch.setattr(gsplat, "rasterization", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    rendered, _, _ = rasterization(**arguments_of(make_scene(3)))
    assert rendered.shape == (2, 40, 40, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
@pytest.mark.parametrize("camera_model", ["pinhole", "ortho"])
def test_cuda_and_cpu_agree(camera_model: str, rasterize_mode: str, make_scene: Callable[..., Any]) -> None:
    scene = make_scene(opacities=(0.2, 0.6))
    images, gradients, radii = [], [], []
    for device in ("cpu", "cuda"):
        given = arguments_of(scene) | {"camera_model": camera_model, "rasterize_mode": rasterize_mode, "packed": False}
        tensors = {name: value.detach().to(device) for name, value in given.items() if isinstance(value, torch.Tensor)}
        trained = {name: value.requires_grad_() for name, value in tensors.items() if name != "Ks"}
        moved: dict[str, Any] = given | tensors
        rendered, alphas, meta = rasterization(**moved)
        image = torch.cat([rendered, alphas], dim=-1)
        weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(device)
        gradients.append([g.cpu() for g in torch.autograd.grad((image * weights).sum(), list(trained.values()))])
        images.append(image.detach().cpu())
        radii.append(meta["radii"].cpu())
    torch.testing.assert_close(*images, rtol=0, atol=1e-4)
    assert (radii[0] != radii[1]).float().mean() < 1e-3
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()


UNSUPPORTED: dict[str, Any] = {
    "tile_size": 8,
    "sparse_grad": True,
    "channel_chunk": 4,
    "distributed": True,
    "segmented": True,
    "with_ut": True,
    "with_eval3d": True,
    "radial_coeffs": torch.zeros(2, 6),
    "tangential_coeffs": torch.zeros(2, 2),
    "thin_prism_coeffs": torch.zeros(2, 4),
    "ftheta_coeffs": object(),
    "rolling_shutter": gsplat.RollingShutterType.ROLLING_TOP_TO_BOTTOM,
    "viewmats_rs": torch.eye(4).expand(2, 4, 4),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_only_cuda_can_do_is_refused_by_name(name: str, make_scene: Callable[..., Any]) -> None:
    with pytest.raises(NotImplementedError, match=name):
        rasterization(**arguments_of(make_scene(3)), **{name: UNSUPPORTED[name]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sh_degree": 4, "colors": torch.zeros(3, 25, 3)}, "sh_degree on CPU goes from 0 to 3, got 4"),
        ({"camera_model": "fisheye"}, "camera_model on CPU is one of pinhole, ortho; 'fisheye' needs"),
        ({"camera_model": "ftheta"}, "camera_model on CPU is one of pinhole, ortho; 'ftheta' needs"),
        ({"absgrad": True, "colors": torch.zeros(3, 40)}, "absgrad on CPU goes with at most 32 channels"),
    ],
)
def test_what_the_kernels_lack_is_refused_by_name(
    changes: dict[str, Any], message: str, make_scene: Callable[..., Any]
) -> None:
    with pytest.raises(NotImplementedError, match=message):
        rasterization(**(arguments_of(make_scene(3)) | changes))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("means", torch.zeros(1, 3, 3), r"means must have shape \[N, 3\].*got \[1, 3, 3\]"),
        ("quats", torch.zeros(3, 3), r"quats must have shape \[3, 4\], got \[3, 3\]"),
        ("scales", torch.ones(2, 3), r"scales must have shape \[3, 3\], got \[2, 3\]"),
        ("opacities", torch.ones(3, 1), r"opacities must have shape \[3\], got \[3, 1\]"),
        ("colors", torch.ones(4, 3), r"colors must have shape \[3, D\] or \[2, 3, D\], got \[4, 3\]"),
        ("colors", torch.ones(3, 0), "colors must have shape"),
        ("colors", torch.ones(3), "colors must have shape"),
        ("viewmats", torch.eye(4), r"viewmats must have shape \[C, 4, 4\]"),
        ("viewmats", torch.zeros(0, 4, 4), "at least one camera"),
        ("Ks", torch.eye(3), r"Ks must have shape \[2, 3, 3\], got \[3, 3\]"),
        ("backgrounds", torch.zeros(3), r"backgrounds must have shape \[2, 3\], got \[3\]"),
        ("width", 0, "width must be at least 1 pixel, got 0"),
        ("render_mode", "rgb", "render_mode must be one of RGB, D, ED, RGB.D, RGB.ED, got 'rgb'"),
        ("rasterize_mode", "smooth", "rasterize_mode must be one of classic, antialiased"),
        ("camera_model", "panorama", "camera_model must be one of pinhole, ortho, fisheye, ftheta, got 'panorama'"),
        ("quats", None, "quats may be None only if covars is given"),
        ("scales", None, "scales may be None only if covars is given"),
        ("covars", torch.zeros(3, 6), r"covars must have shape \[3, 3, 3\], got \[3, 6\]"),
        ("covars", torch.full((3, 3, 3), float("nan")), "covars holds NaN or infinity"),
        ("scales", torch.ones(3, 3, dtype=torch.float64), "scales must be float32, got torch.float64"),
    ],
)
def test_bad_input_is_refused_by_name(name: str, value: Any, message: str, make_scene: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=message):
        rasterization(**(arguments_of(make_scene(3)) | {name: value}))


def test_too_few_harmonics_are_refused(make_scene: Callable[..., Any]) -> None:
    given = arguments_of(make_scene(3)) | {"colors": torch.zeros(3, 4, 3), "sh_degree": 2}
    with pytest.raises(ValueError, match=r"colors must have shape \[3, K >= 9, 3\].*got \[3, 4, 3\]"):
        rasterization(**given)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds"])
def test_values_that_are_not_finite_are_refused_by_name(name: str, bad: float, make_scene: Callable[..., Any]) -> None:
    given: dict[str, Any] = arguments_of(make_scene(3)) | {"backgrounds": torch.zeros(2, 3)}
    given[name] = given[name].detach().clone()
    given[name].view(-1)[1] = bad
    with pytest.raises(ValueError, match=f"{name} holds NaN or infinity"):
        rasterization(**given)


def test_huge_finite_values_are_not_mistaken_for_infinity(make_scene: Callable[..., Any]) -> None:
    given = arguments_of(make_scene(3))
    given["colors"] = torch.full((3, 3), 3e38)
    given["means"] = torch.tensor([[0.0, 0.0, -9.0]] * 3)
    rendered, _, _ = rasterization(**given)
    assert (rendered == 0).all()


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_scene_shows_the_background(packed: bool, make_scene: Callable[..., Any]) -> None:
    leaves = make_scene(0).leaves()
    given: dict[str, Any] = arguments_of(make_scene(0)) | leaves
    backgrounds = torch.rand(2, 3)
    rendered, alphas, meta = rasterization(**given, backgrounds=backgrounds, packed=packed)
    assert torch.equal(rendered, backgrounds[:, None, None].expand(2, 40, 40, 3))
    assert (alphas == 0).all()
    rendered.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves.values())
    assert meta["radii"].shape == ((0, 2) if packed else (2, 0, 2))


def test_no_gradient_is_recorded_when_none_is_wanted(make_scene: Callable[..., Any]) -> None:
    with torch.no_grad():
        rendered, _, meta = rasterization(**arguments_of(make_scene()))
    assert not rendered.requires_grad and not meta["means2d"].requires_grad


def test_meta_has_gsplats_keys(make_scene: Callable[..., Any]) -> None:
    scene = make_scene()
    keys = (
        "batch_ids camera_ids gaussian_ids radii means2d depths conics opacities tile_width tile_height "
        "tiles_per_gauss flatten_ids isect_offsets width height tile_size n_batches n_cameras"
    ).split()
    for packed in (False, True):
        _, _, meta = rasterization(**arguments_of(scene), packed=packed)
        assert sorted(meta) == sorted(keys)
        lead = (len(meta["gaussian_ids"]),) if packed else (2, 250)
        for name, width in (("radii", (2,)), ("means2d", (2,)), ("depths", ()), ("conics", (3,)), ("opacities", ())):
            assert meta[name].shape == (*lead, *width), name
        assert (meta["radii"].dtype, meta["flatten_ids"].dtype) == (torch.int32, torch.int32)
        assert (meta["width"], meta["height"], meta["n_cameras"], meta["n_batches"]) == (40, 40, 2, 1)
        if packed:
            assert meta["gaussian_ids"].dtype == torch.int64 and (meta["batch_ids"] == 0).all()
            assert (meta["camera_ids"].diff() >= 0).all() and (meta["radii"] > 0).all()
        else:
            assert meta["camera_ids"] is None and meta["gaussian_ids"] is None and meta["batch_ids"] is None
