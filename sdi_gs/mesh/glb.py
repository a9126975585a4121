"""Meshes as binary glTF 2.0: linear colours per vertex in 16 bits or a texture, and a material that is no metal.

Letters: V vertices, F faces.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from sdi_gs import __version__
from sdi_gs.files import write_atomically
from sdi_gs.files.origin import PROGRAM, Origin
from sdi_gs.mesh.extraction import TriangleMesh
from sdi_gs.mesh.formats import MeshWriter
from sdi_gs.pictures.images import png_of
from sdi_gs.representations.mesh_colours import linear_from_srgb
from sdi_gs.settings.export import ExportOptions

_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963
"""Targets of views: what a graphics card is told that they hold."""
_LINEAR, _MIPMAPS, _CLAMPED = 9729, 9987, 33071
_UNLIT = "KHR_materials_unlit"


def write_glb(path: Path, mesh: TriangleMesh, /, *, options: ExportOptions, origin: Origin, overwrite: bool) -> None:
    """Write a mesh whose vertices are in the file's axes (UserError as ``MeshWriter``)."""
    write_atomically(path, *glb_of(mesh, origin, unlit=options.mesh.unlit), overwrite=overwrite)


def glb_of(mesh: TriangleMesh, origin: Origin, *, unlit: bool) -> tuple[bytes, bytes]:
    """Return the file's header with its tree, and its buffer."""
    parts: list[tuple[bytes, int | None]] = [(mesh.faces.astype("<u4").tobytes(), _INDICES)]
    accessors: list[dict[str, Any]] = [
        {"bufferView": 0, "componentType": _UNSIGNED_INT, "count": mesh.faces.size, "type": "SCALAR"}
    ]
    attributes: dict[str, int] = {}
    for name, values, more in _columns(mesh):
        kind = {"componentType": _FLOAT if values.dtype == np.float32 else _UNSIGNED_SHORT, **more}
        accessors.append({"bufferView": len(parts), "count": len(values), "type": f"VEC{values.shape[1]}", **kind})
        attributes[name] = len(parts)
        parts.append((values.tobytes(), _VERTICES))
    name = origin.prompt or "object"
    material: dict[str, Any] = {
        "name": name,
        # The default material of glTF is bare metal, which is black where nothing surrounds it.
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": PROGRAM, "extras": _extras(origin)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [{"name": name, "primitives": [{"attributes": attributes, "indices": 0, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
    }
    if mesh.texture is not None:
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
        filters = {"magFilter": _LINEAR, "minFilter": _MIPMAPS, "wrapS": _CLAMPED, "wrapT": _CLAMPED}
        tree |= {"textures": [{"sampler": 0, "source": 0}], "samplers": [filters]}
        tree["images"] = [{"bufferView": len(parts), "mimeType": "image/png"}]
        parts.append((png_of(mesh.texture.picture), None))
    if unlit:
        material["extensions"] = {_UNLIT: {}}
        tree["extensionsUsed"] = [_UNLIT]
    return _assembled(tree, parts)


def _columns(mesh: TriangleMesh) -> list[tuple[str, np.ndarray, dict[str, Any]]]:
    """Return each attribute's name, values [V, 2 to 4], and what its accessor has besides their number and type."""
    places = mesh.vertices.astype("<f4")
    bounds = {"min": places.min(axis=0).tolist(), "max": places.max(axis=0).tolist()} if len(places) else {}
    columns = [("POSITION", places, bounds), ("NORMAL", _unit(mesh.normals).astype("<f4"), {})]
    if mesh.texture is not None:
        return [*columns, ("TEXCOORD_0", mesh.texture.uv.astype("<f4"), {})]
    # Linear colours need 16 bits, or dark ones show steps.
    linear = np.concatenate([linear_from_srgb(mesh.rgb), np.ones((len(mesh.rgb), 1))], axis=1)
    return [*columns, ("COLOR_0", np.rint(linear * 65535.0).astype("<u2"), {"normalized": True})]


def _unit(
    normals: np.ndarray,  # [V, 3]
) -> np.ndarray:
    """Return the normals, with one that is not 0 where a vertex has none; glTF knows unit normals only."""
    return np.where(np.linalg.norm(normals, axis=1, keepdims=True) > 0.5, normals, [0.0, 0.0, 1.0])


def _extras(origin: Origin) -> dict[str, Any]:
    """Return where the object comes from, and its unit: glTF counts in metres."""
    known = {"prompt": origin.prompt, "prior": origin.prior, "seed": origin.seed, "steps": origin.step}
    extras = {name: value for name, value in known.items() if value is not None}
    return {**extras, "version": __version__, "units": "metres", "metres_per_scene_unit": origin.unit}


def _assembled(tree: dict[str, Any], parts: list[tuple[bytes, int | None]]) -> tuple[bytes, bytes]:
    """Return the file (glTF 2.0, section 4) of a tree and the contents of its views, each at a multiple of 4 bytes."""
    views, chunks, offset = [], [], 0
    for content, target in parts:
        chunk = content + bytes(-len(content) % 4)
        view = {"buffer": 0, "byteOffset": offset, "byteLength": len(content)}
        views.append(view if target is None else view | {"target": target})
        chunks.append(chunk)
        offset += len(chunk)
    full = {**tree, "bufferViews": views, "buffers": [{"byteLength": offset}]}
    text = json.dumps(full, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + offset, len(text), b"JSON")
    return head + text + struct.pack("<I4s", offset, b"BIN\0"), b"".join(chunks)


WRITER: MeshWriter = write_glb
