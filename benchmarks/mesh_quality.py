"""Meshes of Gaussians against the true shapes: summed density at several levels, and depth fusion.

    python benchmarks/mesh_quality.py [--objects robot mug ...] [--sharp] [--results DIR] \\
        [--picture docs/reports/mesh.png]

Gaussians are fitted to true views of toybox objects by the default preset, so that only the conversion from splats to a
mesh is measured. Scores: volume IoU on 128^3 points; accuracy and completeness, mean distances from the mesh to the
true surface and back, in thousandths of a scene unit; PSNR of 24 held-out views in flat colours. Fits are kept in the
results folder and used again. The last line is one JSON object.

Letters: N points, F faces, H W pixels, G grid points per axis.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numba
import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from sdi_gs.cameras import CameraBatch, orbit_cameras
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import DensityField, cube
from sdi_gs.mesh.extraction import TriangleMesh, mesh_of_field, mesh_of_scene
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views, split_cameras
from sdi_gs.rasterize import rasterization
from sdi_gs.representations.gaussian_density import SURFACE_LEVEL, gaussian_density
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.toybox.classes import ClassName
from sdi_gs.toybox.metrics import psnr
from sdi_gs.toybox.objects import Scene, canonical_object
from sdi_gs.toybox.renderer import occupied, render_scenes, signed_distance
from sdi_gs.toybox.truth import held_out_cameras
from sdi_gs.training.fitting import fit_to_images

OBJECTS: dict[ClassName, str] = {
    "robot": "blue",
    "mug": "pink",
    "chair": "green",
    "donut": "red",
    "car": "yellow",
    "snowman": "red",
}
LEVELS = (1.0, 2.0, 3.0, 4.0, 8.0)
DEPTH_SHIFTS = (0.0, 1.5)
"""Standard deviations of a pixel's depth by which depth fusion moves the surface towards the camera."""
HALF_SIDE = 1.05
GRID = 128
IMAGE_SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--objects", nargs="+", choices=list(OBJECTS), default=list(OBJECTS))
    parser.add_argument("--sharp", action="store_true", help="fit twice as long at twice the size, with densification")
    parser.add_argument("--results", type=Path, default=Path("mesh-quality"))
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, float]]] = {}
    frames: list[Tensor] = []
    for name in options.objects:
        scene = (canonical_object(name, OBJECTS[name]),)
        gaussians = fitted(name, scene, options.results, sharp=options.sharp)
        truth = Truth(scene)
        splats = render_views(gaussians, truth.cameras).rgb
        rows.setdefault("the splats themselves", []).append({"psnr": psnr(splats, truth.rgb).mean().item()})
        for label, make in methods(gaussians).items():
            started = time.process_time()
            mesh, watertight = make()
            seconds = time.process_time() - started
            scores = truth.score(mesh) | {"watertight": float(watertight), "cpu_seconds": seconds}
            rows.setdefault(label, []).append(scores)
            print(
                f"{name:8s} {label:24s} " + "  ".join(f"{key} {value:.3f}" for key, value in scores.items()), flush=True
            )
        frames += comparison(scene, gaussians)
    means = {
        label: {key: round(float(np.mean([score[key] for score in scores])), 4) for key in scores[0]}
        for label, scores in rows.items()
    }
    if options.picture is not None:
        labels = ["truth", "splats", "mesh", "its shape"] * len(options.objects)
        save_contact_sheet(options.picture, torch.stack(frames), columns=8, labels=labels, overwrite=True)
    print(json.dumps({"objects": options.objects, "means": means}))


def fitted(name: ClassName, scene: Scene, results: Path, *, sharp: bool) -> Gaussians:
    """Return Gaussians fitted to true views by the default preset, from the results folder if they exist."""
    kept = results / f"{name}{'-sharp' if sharp else ''}.pt"
    if not kept.exists():
        config = preset_named("toybox-ideal").config
        if sharp:
            config = replace(config, steps=2 * config.steps, densify=replace(config.densify, enabled=True))
        fit = fit_to_images(
            config,
            lambda cameras, background: render_scenes([scene] * len(cameras), cameras, background).rgb,
            image_size=128 if sharp else 64,
            device=torch.device("cpu"),
        )
        assert isinstance(fit.representation, Gaussians)
        torch.save({key: value.detach() for key, value in fit.representation.params.items()}, kept)
    return Gaussians(torch.load(kept))


def methods(gaussians: Gaussians) -> dict[str, Callable[[], tuple[TriangleMesh, bool]]]:
    """Return the methods by name: a function to the mesh, and whether it is watertight."""

    def by_density(config: MeshConfig) -> tuple[TriangleMesh, bool]:
        mesh, report = mesh_of_scene(gaussians, config)
        return mesh, report.watertight

    def by_fusion(shift: float) -> tuple[TriangleMesh, bool]:
        field = DensityField(
            density_of=fused_depths(gaussians, shift),
            albedo_of=gaussian_density(gaussians).albedo_of,
            box=cube(HALF_SIDE),
        )
        mesh, report = mesh_of_field(field, MeshConfig(resolution=96, level=0.5))
        return mesh, report.watertight

    made = {f"density {level:g}": partial(by_density, MeshConfig(level=level)) for level in LEVELS}
    made[f"density {SURFACE_LEVEL:g}, 256 points"] = partial(by_density, MeshConfig(resolution=256))
    made[f"density {SURFACE_LEVEL:g}, 5000 faces"] = partial(by_density, MeshConfig(max_faces=5000))
    return made | {f"depth fusion, {shift:g} sd": partial(by_fusion, shift) for shift in DEPTH_SHIFTS}


class Truth:
    """The truth that a mesh of one scene is compared with."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        line = (torch.arange(GRID, dtype=torch.float64) + 0.5) * (2.0 / GRID) - 1.0
        points = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1)
        self.occupied = occupied(scene, points.reshape(-1, 3)).reshape(GRID, GRID, GRID).numpy()
        self.surface = true_surface(scene, 20_000)
        self.cameras = held_out_cameras(IMAGE_SIZE)
        self.rgb = render_scenes([scene] * len(self.cameras), self.cameras).rgb

    def score(self, mesh: TriangleMesh) -> dict[str, float]:
        corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
        inside = np.zeros((GRID, GRID, GRID), np.bool_)
        fill_by_parity(corners, inside)
        sampled = surface_samples(corners, 100_000)
        accuracy = signed_distance(self.scene, torch.from_numpy(sampled)).abs().mean().item()
        completeness = float(KDTree(sampled).query(self.surface)[0].mean())
        pictures = torch.from_numpy(mesh_pictures(mesh, self.cameras, mesh.rgb))
        return {
            "iou": float((inside & self.occupied).sum() / (inside | self.occupied).sum()),
            "accuracy": 1e3 * accuracy,
            "completeness": 1e3 * completeness,
            "psnr": psnr(pictures, self.rgb).mean().item(),
            "faces": float(len(mesh.faces)),
        }


def true_surface(scene: Scene, count: int) -> np.ndarray:
    """Return points [N, 3] on the surface: a thin layer around it, projected along the distance's gradient."""
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    steps = 1e-4 * torch.eye(3, dtype=torch.float64)
    while sum(map(len, found)) < count:
        points = 2.0 * torch.rand(400_000, 3, generator=generator, dtype=torch.float64) - 1.0
        distance = signed_distance(scene, points)
        # From outside, where a union's distance is exact.
        points = points[(distance > 0.0) & (distance < 0.04)]
        for _ in range(4):
            slopes = [signed_distance(scene, points + step) - signed_distance(scene, points - step) for step in steps]
            direction = torch.nn.functional.normalize(torch.stack(slopes, dim=-1), dim=-1)
            points = points - signed_distance(scene, points)[:, None] * direction
        found.append(points[signed_distance(scene, points).abs() < 1e-3])
    return torch.cat(found)[:count].numpy()


def surface_samples(
    corners: np.ndarray,  # [F, 3, 3]
    count: int,
) -> np.ndarray:
    """Draw points [N, 3] uniformly on the triangles."""
    generator = np.random.default_rng(0)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = generator.choice(len(corners), size=count, p=areas / areas.sum())
    root, other = np.sqrt(generator.random(count)), generator.random(count)
    weights = np.stack([1.0 - root, root * (1.0 - other), root * other], axis=-1)
    return np.einsum("nk,nkd->nd", weights, corners[chosen])


@numba.njit(cache=True)
def fill_by_parity(corners, inside):
    """Mark the points of a grid over [-1, 1]^3 below which a vertical line meets an odd number of triangles."""
    count = inside.shape[0]
    spacing = 2.0 / count
    for f in range(len(corners)):
        # Turned a little away from the grid, so that no line meets an edge.
        ax, ay = corners[f, 0, 0] - 1.37e-6, corners[f, 0, 1] - 2.11e-6
        bx, by = corners[f, 1, 0] - 1.37e-6, corners[f, 1, 1] - 2.11e-6
        cx, cy = corners[f, 2, 0] - 1.37e-6, corners[f, 2, 1] - 2.11e-6
        area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        if area == 0.0:
            continue
        for i in range(
            max(math.ceil((min(ax, bx, cx) + 1.0) / spacing - 0.5), 0),
            min(math.floor((max(ax, bx, cx) + 1.0) / spacing - 0.5), count - 1) + 1,
        ):
            x = (i + 0.5) * spacing - 1.0
            for j in range(
                max(math.ceil((min(ay, by, cy) + 1.0) / spacing - 0.5), 0),
                min(math.floor((max(ay, by, cy) + 1.0) / spacing - 0.5), count - 1) + 1,
            ):
                y = (j + 0.5) * spacing - 1.0
                a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area
                b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area
                if a < 0.0 or b < 0.0 or a + b > 1.0:
                    continue
                z = a * corners[f, 0, 2] + b * corners[f, 1, 2] + (1.0 - a - b) * corners[f, 2, 2]
                for k in range(max(math.ceil((z + 1.0) / spacing - 0.5), 0), count):
                    inside[i, j, k] = not inside[i, j, k]


def fused_depths(gaussians: Gaussians, shift: float) -> Callable[[Tensor], Tensor]:
    """Fuse depth maps of 48 views to a function from points [N, 3] to occupancy [N], 0.5 at the surface.

    A signed distance along each ray, cut at 0.08 (truncated signed distance function), averaged over the views from
    which the point is not hidden; a point hidden from all is inside.
    """
    azimuth = torch.arange(12) * 30.0
    elevations = torch.tensor([-30.0, 0.0, 30.0, 60.0]).repeat_interleave(12)
    one = torch.ones(48)
    cameras = orbit_cameras(azimuth.repeat(4), elevations, 3.3 * one, 40.0 * one, width=192, height=192)
    surfaces, alphas = depths(gaussians, cameras, shift)

    def solidity_of(points: Tensor) -> Tensor:
        total, weight = torch.zeros(len(points)), torch.zeros(len(points))
        for view, (surface, alpha) in enumerate(zip(surfaces, alphas, strict=True)):
            pose = cameras.camera_from_world[view]
            x, y, z = (points @ pose[:3, :3].T + pose[:3, 3]).unbind(-1)
            focal = cameras.intrinsics[view, 0, 0]
            column = (x / z * focal + 96.0).long().clamp(0, 191)
            row = (y / z * focal + 96.0).long().clamp(0, 191)
            outside = torch.where(alpha[row, column] > 0.5, (surface[row, column] - z) / 0.08, 1.0)
            seen = outside > -1.0
            total += torch.where(seen, outside.clamp_max(1.0), 0.0)
            weight += seen
        return torch.where(weight > 0, 0.5 - 0.5 * total / weight.clamp_min(1.0), 1.0)

    return solidity_of


@torch.no_grad()
def depths(gaussians: Gaussians, cameras: CameraBatch, shift: float) -> tuple[Tensor, Tensor]:
    """Render mean depth less ``shift`` standard deviations of depth, and alpha, both [V, H, W]."""
    params = gaussians.params
    surfaces, alphas = [], []
    for part in split_cameras(cameras):
        view = part.camera_from_world
        z = torch.einsum("vj,nj->vn", view[:, 2, :3], params["means"]) + view[:, 2, 3:]
        moments, alpha, _ = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
            torch.stack([z, z * z], dim=-1), view, part.intrinsics, part.width, part.height, packed=False,
        )  # fmt: skip
        mean, square = (moments / alpha.clamp_min(1e-6)).unbind(-1)
        surfaces.append(mean - shift * (square - mean.square()).clamp_min(0.0).sqrt())
        alphas.append(alpha[..., 0])
    return torch.cat(surfaces), torch.cat(alphas)


def comparison(scene: Scene, gaussians: Gaussians) -> list[Tensor]:
    """Render truth, splats, mesh and the mesh's shape from one side, [H, W, 3] each."""
    one = torch.ones(1)
    camera = orbit_cameras(25.0 * one, 20.0 * one, 3.0 * one, 40.0 * one, width=192, height=192)
    mesh, _ = mesh_of_scene(gaussians, MeshConfig())
    light = np.array([0.6, 0.35, 0.72])
    grey = np.clip(0.25 + 0.7 * np.clip(mesh.normals @ light, 0.0, None), 0.0, 1.0)
    return [
        render_scenes([scene], camera).rgb[0],
        render_views(gaussians, camera).rgb[0],
        torch.from_numpy(mesh_pictures(mesh, camera, mesh.rgb))[0],
        torch.from_numpy(mesh_pictures(mesh, camera, np.repeat(grey[:, None], 3, axis=1)))[0],
    ]


def mesh_pictures(
    mesh: TriangleMesh,
    cameras: CameraBatch,
    colours: np.ndarray,  # [V, 3] at the vertices
) -> np.ndarray:
    """Render pictures [B, H, W, 3] float32 of a mesh over white, with 4 samples per pixel."""
    pictures = []
    for pose, intrinsics in zip(cameras.camera_from_world.double().numpy(), cameras.intrinsics.numpy(), strict=True):
        seen = mesh.vertices @ pose[:3, :3].T + pose[:3, 3]
        focal = 2.0 * intrinsics[0, 0]
        places = seen[:, :2] / seen[:, 2:] * focal + np.array([cameras.width, cameras.height])
        picture = np.ones((2 * cameras.height, 2 * cameras.width, 3), np.float32)
        nearest = np.full(picture.shape[:2], np.inf)
        draw_triangles(places, 1.0 / seen[:, 2], mesh.faces, np.ascontiguousarray(colours), nearest, picture)
        pictures.append(picture.reshape(cameras.height, 2, cameras.width, 2, 3).mean(axis=(1, 3)))
    return np.stack(pictures)


@numba.njit(cache=True)
def draw_triangles(places, inverse_depths, faces, colours, nearest, picture):
    """Draw faces by their depth; colours are interpolated in the picture's plane, as small triangles allow."""
    height, width, _ = picture.shape
    for f in range(len(faces)):
        i, j, k = faces[f]
        ax, ay, bx, by, cx, cy = places[i, 0], places[i, 1], places[j, 0], places[j, 1], places[k, 0], places[k, 1]
        area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
        if area == 0.0:
            continue
        for row in range(
            max(math.ceil(min(ay, by, cy) - 0.5), 0), min(math.floor(max(ay, by, cy) - 0.5), height - 1) + 1
        ):
            for column in range(
                max(math.ceil(min(ax, bx, cx) - 0.5), 0), min(math.floor(max(ax, bx, cx) - 0.5), width - 1) + 1
            ):
                x, y = column + 0.5, row + 0.5
                a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area
                b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area
                c = 1.0 - a - b
                if a < 0.0 or b < 0.0 or c < 0.0:
                    continue
                depth = 1.0 / (a * inverse_depths[i] + b * inverse_depths[j] + c * inverse_depths[k])
                if depth < nearest[row, column]:
                    nearest[row, column] = depth
                    for channel in range(3):
                        value = a * colours[i, channel] + b * colours[j, channel] + c * colours[k, channel]
                        picture[row, column, channel] = value


if __name__ == "__main__":
    main()
