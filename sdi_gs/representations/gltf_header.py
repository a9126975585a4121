"""A glTF file's header, checked and completed before trimesh reads the file: trimesh leaves out what it cannot do.

Every primitive gets a material whose name is its index in ``GltfHeader.materials``, so that colours are read from the
header itself: trimesh rounds them to bytes, and drops vertex colours of 16 bits.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdi_gs.errors import UserError

MAGIC = b"glTF"
_JSON_CHUNK = 0x4E4F534A
_FLOAT = 5126
COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
"""Extensions without whose decoder there are no vertices."""
_INSTANCING = "EXT_mesh_gpu_instancing"


@dataclass(frozen=True, kw_only=True)
class GltfMaterial:
    """The colour of one material."""

    factor: np.ndarray | None  # [3] linear; None for a plain material
    textured: bool
    """Whether a texture belongs to it."""
    uv_transform: np.ndarray  # [2, 3] of KHR_texture_transform, from the file's coordinates to the picture's


@dataclass(frozen=True, kw_only=True)
class GltfHeader:
    """The completed file and its materials."""

    content: bytes
    """The file with the completed header."""
    materials: list[GltfMaterial]


def read_gltf(content: bytes, path: Path) -> GltfHeader:
    """Check and complete a .glb or .gltf; raises UserError for one that is damaged or holds what cannot be read."""
    is_binary = content.startswith(MAGIC)
    try:
        text, rest = _split(content) if is_binary else (content, b"")
        header = json.loads(text)
        _check(header, path)
        _show_all(header)
        materials = _completed(header)
    except (struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise UserError(f"cannot read {path} as a mesh: its glTF header is damaged; export it again") from error
    text = json.dumps(header).encode()
    return GltfHeader(content=_joined(text, rest) if is_binary else text, materials=materials)


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Return a .glb's header and the chunks after it."""
    length, kind = struct.unpack_from("<II", content, 12)
    if kind != _JSON_CHUNK or len(content) < 20 + length:
        raise ValueError("no header")
    return content[20 : 20 + length], content[20 + length :]


def _joined(text: bytes, rest: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    chunk = struct.pack("<II", len(text), _JSON_CHUNK) + text + rest
    return struct.pack("<4sII", MAGIC, 2, 12 + len(chunk)) + chunk


def _check(header: dict[str, Any], path: Path) -> None:
    """Refuse geometry that trimesh would read as zeros, or as numbers on another scale."""
    primitives = _primitives(header)
    named = {name for primitive in primitives for name in primitive.get("extensions", {})}
    compressed = sorted((named | set(header.get("extensionsRequired", []))) & set(COMPRESSED))
    if compressed:
        raise UserError(f"cannot read {path}: it is compressed ({compressed[0]}); export it without compression")
    if any(_INSTANCING in node.get("extensions", {}) for node in header.get("nodes", [])):
        raise UserError(f"cannot read {path}: its instances ({_INSTANCING}) are not read; export it without instancing")
    accessors = header.get("accessors", [])
    for primitive in primitives:
        attributes = primitive["attributes"]
        for name in ("POSITION", "TEXCOORD_0", "indices"):
            index = primitive.get("indices") if name == "indices" else attributes.get(name)
            if index is None:
                continue
            if "sparse" in accessors[index]:
                raise UserError(f"cannot read {path}: its {name} are sparse; export it without sparse accessors")
            if name != "indices" and accessors[index]["componentType"] != _FLOAT:
                raise UserError(f"cannot read {path}: its {name} are quantized; export it with floats")


def _primitives(header: dict[str, Any]) -> list[dict[str, Any]]:
    return [primitive for mesh in header.get("meshes", []) for primitive in mesh["primitives"]]


def _show_all(header: dict[str, Any]) -> None:
    """Put all nodes into a scene where the file has none, in which case trimesh shows nothing."""
    if not header.get("scenes"):
        nodes = header.get("nodes", [])
        below = {child for node in nodes for child in node.get("children", [])}
        header |= {"scene": 0, "scenes": [{"nodes": [index for index in range(len(nodes)) if index not in below]}]}


def _completed(header: dict[str, Any]) -> list[GltfMaterial]:
    """Give every primitive a material named by its index, and its material's coordinates as the first set."""
    materials = header.setdefault("materials", [])
    given = len(materials)
    materials.append({})
    for primitive in _primitives(header):
        material = primitive.setdefault("material", given)
        chosen = _base_texture(materials[material])
        place = f"TEXCOORD_{_uv_set(chosen)}"
        attributes = primitive["attributes"]
        if chosen is not None and place in attributes:
            attributes["TEXCOORD_0"] = attributes[place]
    read = [_material(material) for material in materials]
    for index, material in enumerate(materials):
        material["name"] = str(index)
    return read


def _base_texture(material: dict[str, Any]) -> dict[str, Any] | None:
    """Return the reference to a material's colour texture."""
    glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    return material.get("pbrMetallicRoughness", {}).get("baseColorTexture") or glossy.get("diffuseTexture")


def _uv_set(texture: dict[str, Any] | None) -> int:
    moved = (texture or {}).get("extensions", {}).get("KHR_texture_transform", {})
    return int(moved.get("texCoord", (texture or {}).get("texCoord", 0)))


def _material(material: dict[str, Any]) -> GltfMaterial:
    glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    texture = _base_texture(material)
    factor = material.get("pbrMetallicRoughness", {}).get("baseColorFactor") or glossy.get("diffuseFactor")
    values = None if factor is None else np.asarray(factor, np.float64)[:3]
    if values is not None and (values.shape != (3,) or not np.isfinite(values).all()):
        raise ValueError("a colour that is none")
    return GltfMaterial(factor=values, textured=texture is not None, uv_transform=_uv_transform(texture))


def _uv_transform(texture: dict[str, Any] | None) -> np.ndarray:  # [2, 3]
    """Return translation times rotation times scale, as KHR_texture_transform defines it."""
    moved = (texture or {}).get("extensions", {}).get("KHR_texture_transform", {})
    (x, y), (u, v) = moved.get("offset", (0.0, 0.0)), moved.get("scale", (1.0, 1.0))
    turn = float(moved.get("rotation", 0.0))
    cos, sin = math.cos(turn), math.sin(turn)
    transform = np.array([[u * cos, v * sin, x], [-u * sin, v * cos, y]], np.float64)
    if not np.isfinite(transform).all():
        raise ValueError("a transform that is none")
    return transform
