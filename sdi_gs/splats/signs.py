"""Signs in the first bytes of files: meshes, and the kinds of files that people give by mistake."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONVERT = "convert it to a .ply of splats, as SuperSplat and splat-transform do"
_NOT_SPLATS = "give the 3D file itself"


@dataclass(frozen=True)
class Stranger:
    """A kind of file that this program does not open."""

    seen: str
    """What it is, with its article."""
    advice: str


_STRANGERS: tuple[tuple[re.Pattern[bytes], Stranger], ...] = (
    (re.compile(rb"\s*\{.*KHR_gaussian_splatting", re.DOTALL), Stranger("a glTF of splats", _CONVERT)),
    (
        re.compile(rb"PK\x03\x04.{0,200}data\.pkl", re.DOTALL),
        Stranger("a file of PyTorch's", "export a .ply of splats with the program that wrote it"),
    ),
    (
        re.compile(rb"version https://git-lfs"),
        Stranger("a pointer of Git LFS and not the file", "fetch the file: git lfs pull"),
    ),
    (
        re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE),
        Stranger("a web page", "download the file itself, not the page about it"),
    ),
    (
        re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0|II\*\0|MM\0\*|RIFF.{4}WEBP", re.DOTALL),
        Stranger("a picture", _NOT_SPLATS),
    ),
    (re.compile(rb".{4}ftyp|\x1aE\xdf\xa3", re.DOTALL), Stranger("a film", _NOT_SPLATS)),
    (re.compile(rb"%PDF"), Stranger("a PDF", _NOT_SPLATS)),
    (re.compile(rb".{8}\{\"", re.DOTALL), Stranger("a .safetensors file", "give a run's folder or a checkpoint's")),
    (re.compile(rb"LASF"), Stranger("a LAS of points", "convert it to a .ply of points")),
    (re.compile(rb"# \.PCD"), Stranger("a .pcd of points", "convert it to a .ply of points")),
    (re.compile(rb"BLENDER|Kaydara FBX|PXR-USDC|#usda"), Stranger("a scene", "export it as .glb or .obj first")),
)
_STRANGE_NAMES: dict[str, Stranger] = {
    ".ksplat": Stranger("a .ksplat", _CONVERT),
    **dict.fromkeys((".usdz", ".blend", ".fbx"), Stranger("a scene", "export it as .glb or .obj first")),
    **dict.fromkeys(
        (".xyz", ".pts", ".laz", ".e57", ".csv"), Stranger("points of another format", "convert it to a .ply of points")
    ),
}
_ARCHIVES = re.compile(rb"PK\x03\x04(?!.{0,200}3D/)|7z\xbc\xaf\x27\x1c|Rar!|\x1f\x8b", re.DOTALL)
"""Beginnings of archives; a .3mf is a zip that trimesh reads."""

_OBJ_LINE = re.compile(rb"^(v|vn|vt) +[-+.\d]|^(mtllib|usemtl) +\S|^f +\d", re.MULTILINE)
MESH_SUFFIXES = ("glb", "gltf", "obj", "off", "stl", "3mf", "dae")
"""Of files that trimesh reads, for those whose content is not recognized."""


def stranger(name: str, head: bytes) -> Stranger | None:
    """Return the kind of a file that cannot be opened, by its first bytes; None for any other."""
    for sign, found in _STRANGERS:
        if sign.match(head):
            return found
    named = next((found for suffix, found in _STRANGE_NAMES.items() if name.lower().endswith(suffix)), None)
    return named or (Stranger("an archive", "unpack it first") if _ARCHIVES.match(head) else None)


def mesh_type_of(name: str, head: bytes, size: int) -> str:
    """Return trimesh's name of a mesh's format, by its first bytes and size, else by its name; empty for no mesh."""
    if head.startswith(b"glTF"):
        return "glb"
    if re.match(rb"\s*\{", head) and (b'"asset"' in head or name.lower().endswith(".gltf")):
        return "gltf"
    if re.match(rb"\s*(ST|C|N|4|n)*OFF\s", head):
        return "off"
    if re.match(rb"\s*solid\b", head) and b"facet" in head:
        return "stl_ascii"
    if len(head) >= 84 and size == 84 + 50 * int.from_bytes(head[80:84], "little"):
        return "stl"
    if b"\0" not in head and _OBJ_LINE.search(head):
        return "obj"
    suffix = name.lower().rpartition(".")[2] if "." in name else ""
    return suffix if suffix in MESH_SUFFIXES else ""
