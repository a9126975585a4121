"""Reading of splats from binary glTF with KHR_gaussian_splatting; every fault is a one-line UserError.

Letters: N splats, K harmonics per channel above band 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file
from sdi_gs.settings.frames import Frame
from sdi_gs.splats.formats import MAX_SPLATS
from sdi_gs.splats.gltf_accessors import GltfFile
from sdi_gs.splats.quantised import require_real
from sdi_gs.splats.screening import LOG_SCALE_WINDOW, OPACITY_LOGIT_LIMIT, require_at_most, screened_after_reading
from sdi_gs.splats.splat_cloud import Quaternion, SplatCloud, rotate_cloud

EXTENSION = "KHR_gaussian_splatting"
_LONGEST_SEARCH = 64 * 2**20
_DEEPEST = 64
"""Nodes within nodes."""
_MOST_PLACES = 10_000
"""Nodes of a scene."""
_CONVERT = "convert it to a .ply of splats, as SuperSplat and splat-transform do"


@dataclass(frozen=True)
class _Placed:
    """Splats of a file, and where a node puts them."""

    primitive: dict[str, Any]
    matrix: np.ndarray  # [4, 4]


def own_frame(frame: Frame) -> Frame:
    """Return the axes of a file: viewers of glTF expect y up."""
    return "y-up" if frame == "viewer" else frame


def is_gltf_of_splats(path: Path, head: bytes) -> bool:
    """Return whether a file is a binary glTF whose description names the extension."""
    if not head.startswith(b"glTF"):
        return False
    size = min(int.from_bytes(head[12:16], "little"), _LONGEST_SEARCH)
    try:
        with path.open("rb") as file:
            return EXTENSION.encode() in file.read(20 + size)
    except OSError:
        return False


def read_gltf_splats(path: Path, *, frame: Frame = "viewer", max_splats: int = MAX_SPLATS) -> SplatCloud:
    """Read all splats of a file into the training world; ``frame`` names the file's axes.

    Raises UserError where the file is missing, damaged, of another kernel or colour space, or holds more than
    ``max_splats``; the last before memory is taken.
    """
    with disk_errors(path, "read"):
        require_file(path)
        with path.open("rb") as content:
            file = GltfFile(content, path)
            placed = list(_placed(file))
            if not placed:
                raise file.damaged(f"none of its nodes has splats ({EXTENSION})")
            counts = [file.count_of(_attributes(file, part.primitive).get("POSITION")) for part in placed]
            require_at_most(max_splats, sum(counts), path)
            # Nodes may show the same splats many times.
            require_real(sum(counts), path.stat().st_size, path)
            clouds = [_moved(_cloud(file, part.primitive, path), part.matrix, path) for part in placed]
    return screened_after_reading(_joined(clouds), path, own_frame(frame), is_raw=True)


def _placed(file: GltfFile) -> Iterator[_Placed]:
    """Yield the primitives of splats in the file's scene, with the transforms of the nodes above them."""
    scenes = file.tree.get("scenes")
    if scenes:
        roots = file.entry("scenes", file.tree.get("scene", 0)).get("nodes", [])
    else:
        nodes = file.tree.get("nodes", [])
        roots = range(len(nodes)) if isinstance(nodes, list) else []
    world = np.eye(4)
    open_nodes = [
        (number, world, 0) for number in (roots[: _MOST_PLACES + 1] if isinstance(roots, list | range) else [])
    ]
    seen = 0
    while open_nodes:
        number, above, depth = open_nodes.pop()
        node, seen = file.entry("nodes", number), seen + 1
        if depth > _DEEPEST or seen + len(open_nodes) > _MOST_PLACES:
            raise file.damaged("its nodes are within each other without an end, or too many")
        matrix = above @ _matrix(file, node)
        if "mesh" in node:
            primitives = file.entry("meshes", node["mesh"]).get("primitives")
            for primitive in primitives if isinstance(primitives, list) else []:
                extensions = primitive.get("extensions") if isinstance(primitive, dict) else None
                if isinstance(extensions, dict) and EXTENSION in extensions:
                    yield _Placed(primitive, matrix)
        children = node.get("children", [])
        open_nodes += [(child, matrix, depth + 1) for child in (children if isinstance(children, list) else [])]


def _matrix(file: GltfFile, node: dict[str, Any]) -> np.ndarray:  # [4, 4]
    """Return a node's transform."""
    if "matrix" in node:
        return _numbers(file, node, "matrix", 16, None).reshape(4, 4).T
    x, y, z, w = _numbers(file, node, "rotation", 4, (0, 0, 0, 1))
    length = x * x + y * y + z * z + w * w
    if not length > 0.0:
        raise file.damaged("a node of it has no rotation")
    found = np.eye(4)
    found[:3, :3] = np.eye(3) + (2.0 / length) * np.array(
        [
            [-y * y - z * z, x * y - w * z, x * z + w * y],
            [x * y + w * z, -x * x - z * z, y * z - w * x],
            [x * z - w * y, y * z + w * x, -x * x - y * y],
        ]
    )
    found[:3, :3] *= _numbers(file, node, "scale", 3, (1, 1, 1))
    found[:3, 3] = _numbers(file, node, "translation", 3, (0, 0, 0))
    return found


def _numbers(file: GltfFile, node: dict[str, Any], name: str, count: int, usual: tuple[int, ...] | None) -> np.ndarray:
    values = node.get(name, usual)
    if not isinstance(values, list | tuple) or len(values) != count:
        raise file.damaged(f"a node of it has no {count} numbers as its {name}")
    if not all(type(value) in (int, float) and abs(value) < 1e12 for value in values):
        raise file.damaged(f"a node of it has {name} without a meaning")
    return np.array(values, dtype=np.float64)


def _attributes(file: GltfFile, primitive: dict[str, Any]) -> dict[str, Any]:
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict):
        raise file.damaged("its splats have no attributes")
    return attributes


def _cloud(file: GltfFile, primitive: dict[str, Any], path: Path) -> SplatCloud:
    """Return the splats of a primitive in the file's own axes."""
    extension, attributes = primitive["extensions"][EXTENSION], _attributes(file, primitive)
    known = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    for name, value in known.items():
        found = extension.get(name, value) if isinstance(extension, dict) else None
        if found != value or extension.get("extensions"):
            said = f"{name} {found}" if found != value else "a compression"
            raise UserError(f"cannot read {path}: its splats have {str(said)[:60]}, which is not read; {_CONVERT}")
    means = file.array(attributes.get("POSITION"), 3)

    def part(name: str, width: int) -> torch.Tensor:
        values = file.array(attributes.get(f"{EXTENSION}:{name}"), width)
        if len(values) != len(means):
            raise file.damaged(f"it has {len(means)} positions and {len(values)} of {name}")
        return torch.from_numpy(values)

    degree = max(degree for degree in range(4) if f"{EXTENSION}:SH_DEGREE_{degree}_COEF_0" in attributes or not degree)
    rest = [part(f"SH_DEGREE_{band}_COEF_{order}", 3) for band in range(1, degree + 1) for order in range(2 * band + 1)]
    return SplatCloud(
        means=torch.from_numpy(means),
        # A deviation below 0 has no logarithm: its splat is left out and reported.
        log_scales=torch.where(
            (scales := part("SCALE", 3)) < 0.0, math.nan, scales.clamp_min(math.exp(LOG_SCALE_WINDOW[0])).log()
        ),
        quats=part("ROTATION", 4).roll(1, dims=1),
        opacity_logit=_logit(part("OPACITY", 1)[:, 0]),
        sh_dc=part("SH_DEGREE_0_COEF_0", 3),
        sh_rest=torch.stack(rest, dim=1) if rest else torch.zeros(len(means), 0, 3),
    )


def _logit(
    opacity: torch.Tensor,  # [N]
) -> torch.Tensor:  # [N]
    limits = (-OPACITY_LOGIT_LIMIT, OPACITY_LOGIT_LIMIT)
    return torch.logit(opacity.double().clamp(0.0, 1.0)).clamp(*limits).float()


def _moved(cloud: SplatCloud, matrix: np.ndarray, path: Path) -> SplatCloud:
    """Return splats moved by a transform; UserError for one that stretches or mirrors them."""
    if np.array_equal(matrix, np.eye(4)):
        return cloud
    volume = float(np.linalg.det(matrix[:3, :3]))
    size = volume ** (1.0 / 3.0) if volume > 0.0 else 0.0
    rotation = matrix[:3, :3] / size if size else matrix[:3, :3]
    if not size or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise UserError(f"cannot read {path}: a node of it stretches or mirrors its splats; apply its transform first")
    turned = rotate_cloud(cloud, _quaternion(rotation))
    means = turned.means * size + torch.from_numpy(matrix[:3, 3]).float()
    return replace(turned, means=means, log_scales=turned.log_scales + math.log(size))


def _quaternion(
    rotation: np.ndarray,  # [3, 3]
) -> Quaternion:
    """Return the quaternion (w, x, y, z) of a rotation: the main axis of a matrix of its entries (Bar-Itzhack)."""
    a, b, c = rotation
    matrix = np.array(
        [
            [a[0] + b[1] + c[2], c[1] - b[2], a[2] - c[0], b[0] - a[1]],
            [c[1] - b[2], a[0] - b[1] - c[2], a[1] + b[0], a[2] + c[0]],
            [a[2] - c[0], a[1] + b[0], b[1] - a[0] - c[2], b[2] + c[1]],
            [b[0] - a[1], a[2] + c[0], b[2] + c[1], c[2] - a[0] - b[1]],
        ]
    )
    w, x, y, z = np.linalg.eigh(matrix)[1][:, -1].tolist()
    return w, x, y, z


def _joined(clouds: list[SplatCloud]) -> SplatCloud:
    """Return all splats as one cloud, with as many harmonics as any of them has."""
    if len(clouds) == 1:
        return clouds[0]
    most = max(cloud.sh_rest.shape[1] for cloud in clouds)
    filled = [
        replace(cloud, sh_rest=torch.nn.functional.pad(cloud.sh_rest, (0, 0, 0, most - cloud.sh_rest.shape[1])))
        for cloud in clouds
    ]
    return SplatCloud(**{name: torch.cat([getattr(cloud, name) for cloud in filled]) for name in vars(filled[0])})
