"""Mesh files as triangles with colours, and points drawn on their surface.

trimesh reads the files. It goes on in silence where it cannot read a part, such as a texture; here that is reported.

Letters: N samples, V vertices, F faces of a part.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, require_file
from sdi_gs.representations.gltf_header import GltfMaterial, read_gltf
from sdi_gs.representations.mesh_colours import SurfaceColours, in_unit_range
from sdi_gs.representations.mesh_content import mended
from sdi_gs.splats.contents import contents_of
from sdi_gs.splats.ply_columns import rounded
from sdi_gs.splats.screening import MAX_DISTANCE

KINDS = "obj, glb, gltf, ply, stl or off"
MAX_FACES = 20_000_000
"""Faces of all parts together, about 4 GiB while they are drawn from."""
NO_COLOUR = 0.5
"""Grey of a part without colours beside parts that have some."""
_SILENCE = ("failed", "unable", "skipping", "index failed", "specified material", "no materials", "`image/ktx2`")
"""How trimesh's log begins where it leaves something out."""


@dataclass(frozen=True, kw_only=True)
class MeshPart:
    """Triangles of one material."""

    vertices: np.ndarray  # [V, 3] float64, in the file's axes and units
    faces: np.ndarray  # [F, 3] int64
    colours: SurfaceColours


def sample_mesh(
    path: Path,
    count: int,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None]:
    """Sample points [count, 3] uniformly over a mesh's surface, with its colours there [count, 3]; None without any.

    Raises UserError for a file that is missing, damaged, compressed, without faces or with faces of no area.
    """
    parts = read_mesh(path)
    vertices = torch.from_numpy(np.concatenate([part.vertices for part in parts]))
    firsts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = torch.from_numpy(np.concatenate([part.faces + first for part, first in zip(parts, firsts, strict=False)]))
    corners = vertices[faces]  # [F, 3, 3]
    # In shares of the extent, so that no area overflows.
    scaled = corners / vertices.abs().max().clamp_min(1e-300)
    areas = torch.linalg.cross(scaled[:, 1] - scaled[:, 0], scaled[:, 2] - scaled[:, 0]).norm(dim=-1)
    reached = areas.cumsum(dim=0)
    if not reached[-1] > 0.0:
        raise UserError(f"cannot read {path}: all of its faces have no area; export it anew")
    draws = torch.rand(3, count, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    chosen = torch.searchsorted(reached, draws[0] * reached[-1], right=True).clamp_max(len(faces) - 1)
    # The square root makes the triangle's corner as dense as the edge opposite to it.
    root = draws[1].sqrt()
    weights = torch.stack([1.0 - root, root * (1.0 - draws[2]), root * draws[2]], dim=-1)  # [count, 3]
    points = (weights[..., None] * corners[chosen]).sum(dim=1)
    if not float(points.abs().max()) <= MAX_DISTANCE:
        raise UserError(f"cannot read {path}: its vertices lie beyond {MAX_DISTANCE:g}; scale it down")
    colours = _colours(parts, chosen.numpy(), weights.numpy())
    return rounded(points.numpy(), path), None if colours is None else torch.from_numpy(colours).float()


def read_mesh(path: Path) -> list[MeshPart]:
    """Read the parts of a mesh file, each where its scene puts it; a line reports what could not be read.

    Raises UserError as ``sample_mesh``, except for areas.
    """
    scene, materials = _load(path)
    # Instances of one part are counted as often as they stand in the scene.
    places = [(*scene.graph[node], node) for node in scene.graph.nodes_geometry]
    sizes = [len(getattr(scene.geometry[name], "faces", ())) for _, name, _ in places]
    if not sum(sizes):
        kinds = ", ".join(sorted({type(part).__name__ for part in scene.geometry.values()})) or "nothing"
        raise UserError(
            f"cannot read {path}: it has no faces, so it is no mesh; use --init points for a .ply of points "
            f"(seen: {kinds})"
        )
    if sum(sizes) > MAX_FACES:
        raise UserError(f"cannot read {path}: {sum(sizes)} triangles are more than {MAX_FACES}; simplify it first")
    used = {name for (_, name, _), size in zip(places, sizes, strict=True) if size}
    colours = {name: _surface(scene.geometry[name], materials, path) for name in used}
    return [
        _part(scene.geometry[name], np.asarray(transform, np.float64), colours[name], path)
        for transform, name, _ in places
        if name in used
    ]


def _part(geometry: Any, transform: np.ndarray, colours: SurfaceColours, path: Path) -> MeshPart:
    faces = np.asarray(geometry.faces, np.int64)
    own = np.asarray(geometry.vertices, np.float64)
    if faces.min() < 0 or faces.max() >= len(own):
        raise UserError(f"cannot read {path}: its faces name vertices that it does not have; export it again")
    with np.errstate(over="ignore", invalid="ignore"):
        vertices = own @ transform[:3, :3].T + transform[:3, 3]
    # Others belong to no face.
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    vertices[~used] = 0.0
    broken = int((~np.isfinite(vertices)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"cannot start from {path}: {broken} of its {len(vertices)} points are NaN or infinite; clean it"
        )
    return MeshPart(vertices=vertices, faces=faces, colours=colours)


def _load(path: Path) -> tuple[Any, list[GltfMaterial] | None]:
    """Load a file as trimesh's scene, and glTF's materials; raises UserError for a file that it cannot read."""
    try:
        import trimesh
        from trimesh.resolvers import FilePathResolver
    except ImportError as error:
        raise UserError('starting from a mesh needs trimesh: pip install "sdi-gs[mesh]"') from error
    require_file(path)
    # By its content: a file's ending may be another's, or none.
    kind, materials = contents_of(path).mesh_type or path.suffix.lower().removeprefix("."), None
    with disk_errors(path, "read"):
        content = path.read_bytes()
    if kind in ("glb", "gltf"):
        header = read_gltf(content, path)
        content, materials = header.content, header.materials
    content = mended(content, kind, path)
    try:
        with _reported(path):
            scene = trimesh.load_scene(
                io.BytesIO(content),
                file_type=kind,
                resolver=FilePathResolver(str(path)),
                process=False,
            )
    except Exception as error:  # Its readers raise whatever a damaged file makes them stumble over.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path} as a mesh: {reason[:200]}; give a {KINDS}") from error
    return scene, materials


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Warn, once, of what trimesh's log calls left out; the library's own warnings are not shown."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage()
            if line.startswith(_SILENCE):
                reason = f" ({record.exc_info[1]})" if record.exc_info and record.exc_info[1] else ""
                said.append(" ".join(f"{line}{reason}".split())[:200])

    log, listener = logging.getLogger("trimesh"), Listener(logging.DEBUG)
    before, spread = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(listener)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeHandler(listener)
        log.setLevel(before)
        log.propagate = spread
    if said:
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        warnings.warn(f"{path} is read without a part of it: {said[0]}{more}", stacklevel=2)


def _surface(geometry: Any, materials: list[GltfMaterial] | None, path: Path) -> SurfaceColours:
    """Return what colours one of trimesh's parts."""
    visual = geometry.visual
    corners = geometry.vertex_attributes.get("color")
    if visual.kind == "face":
        at_faces = _one_each(visual.face_colors, len(geometry.faces), "triangle", path)
        return SurfaceColours(linear=False, at_faces=at_faces)
    if visual.kind != "texture":
        corners = visual.vertex_colors if visual.kind == "vertex" else corners
        return SurfaceColours(linear=False, at_vertices=_one_each(corners, len(geometry.vertices), "vertex", path))
    corners = visual.vertex_attributes.get("color") if corners is None else corners
    uv, material = visual.uv, visual.material
    picture_uv = None
    if uv is not None and uv.shape == (len(geometry.vertices), 2):
        # trimesh counts v from the lower edge.
        picture_uv = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)
    at_vertices = _one_each(corners, len(geometry.vertices), "vertex", path)
    if materials is None:
        texture = _picture(getattr(material, "image", None) or getattr(material, "baseColorTexture", None), path)
        # A texture stands in for the diffuse colour, as most viewers of .obj have it.
        shown = getattr(material, "kwargs", {}).get("kd") if texture is None or picture_uv is None else None
        factor = None if shown is None or np.shape(shown) != (3,) else in_unit_range(shown)
        return SurfaceColours(linear=False, factor=factor, texture=texture, uv=picture_uv, at_vertices=at_vertices)
    read = materials[int(material.name)]
    if picture_uv is not None:
        picture_uv = picture_uv @ read.uv_transform[:, :2].T + read.uv_transform[:, 2]
    texture = _picture(getattr(material, "baseColorTexture", None), path)
    return SurfaceColours(linear=True, factor=read.factor, texture=texture, uv=picture_uv, at_vertices=at_vertices)


def _one_each(colours: Any, count: int, what: str, path: Path) -> np.ndarray | None:  # [count, 3] in [0, 1]
    """Return colours of a part's vertices or triangles; None without them, and with a warning for another number."""
    if colours is None:
        return None
    if len(colours) != count:
        # Such as faces of four corners and more, which trimesh splits without their colours.
        warnings.warn(
            f"{path} is read without its {len(colours)} colours, which are not one for each {what} ({count}): "
            "triangulate it first",
            stacklevel=2,
        )
        return None
    return in_unit_range(colours)


def _picture(image: Any, path: Path) -> np.ndarray | None:  # [H, W, 3] bytes
    """Decode a texture; None without one, and with a warning where it is damaged."""
    # One without a file format is trimesh's own, a grey square in place of a material that is not there; and where the
    # header names no texture, whatever it has in its place is passed on.
    if getattr(image, "format", None) is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        warnings.warn(f"{path} is read without a texture: {error}", stacklevel=2)
        return None


def _colours(
    parts: list[MeshPart],
    chosen: np.ndarray,  # [N] faces, counted through all parts
    weights: np.ndarray,  # [N, 3]
) -> np.ndarray | None:  # [N, 3]
    """Return the samples' displayed colours; None if no part has any."""
    colours, coloured = np.full((len(chosen), 3), NO_COLOUR), False
    first = 0
    for part in parts:
        own = np.flatnonzero((chosen >= first) & (chosen < first + len(part.faces)))
        faces = chosen[own] - first
        found = part.colours.at(part.faces[faces], faces, weights[own])
        if found is not None:
            colours[own], coloured = found, True
        first += len(part.faces)
    return colours if coloured else None
