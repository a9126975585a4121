"""Damaged mesh files: glTF in both forms, .obj with its material and picture, .off and .stl."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzing.mutations import EXTREME_FLOATS, EXTREME_INTEGERS, WORDS, damaged_bytes, damaged_lines
from fuzzing.splat_commands import TRAIN
from fuzzing.targets import Case, Target

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
FACES = np.array([(0, 1, 2), (1, 2, 3), (4, 5, 6), (5, 6, 7), (0, 1, 4), (1, 4, 5)], np.uint16)
OTHER_NAMES = ("download", "a.glb", "a.gltf", "a.obj", "a.stl", "a.off", "a.ply", "a.dae", "a.3mf")
_TYPES = {"<f4": 5126, "<u2": 5123}
START = (*TRAIN, "--gaussians.num-initial", "60", "--init-from")


def picture() -> bytes:
    """Return a PNG of 4 x 4 texels."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)).save(file, "png")
    return file.getvalue()


def gltf(*, binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return header and buffer of two instances of a textured, coloured surface."""
    colours = np.random.default_rng(1).integers(0, 65536, (8, 4)).astype(np.uint16)
    arrays = {"POSITION": CORNERS, "TEXCOORD_0": CORNERS[:, :2].copy(), "COLOR_0": colours, "indices": FACES.ravel()}
    blob, views, accessors = b"", [], []
    for array in arrays.values():
        kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes})
        accessors.append({"bufferView": len(accessors), "componentType": _TYPES[array.dtype.str], "type": kind})
        accessors[-1] |= {"count": len(array), "normalized": kind == "VEC4"}
        blob += array.tobytes()
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 2}, "indices": 3, "material": 0}
    moved = {"KHR_texture_transform": {"offset": [0.5, 0.0], "rotation": 0.5, "scale": [2.0, 1.0]}}
    colour = {"baseColorTexture": {"index": 0, "texCoord": 0, "extensions": moved}, "baseColorFactor": [1, 0.5, 0.2, 1]}
    header: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{"mesh": 0}, {"mesh": 0, "translation": [2, 0, 0], "rotation": [0, 0, 0, 1], "scale": [1, 2, 1]}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": colour}],
        "textures": [{"source": 0}],
        "images": [{"uri": f"data:image/png;base64,{base64.b64encode(picture()).decode()}"}],
        "bufferViews": views,
        "accessors": accessors,
        "buffers": [{"byteLength": len(blob)}],
    }
    if not binary:
        header["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{base64.b64encode(blob).decode()}"
    return header, blob


def packed(text: bytes, blob: bytes) -> bytes:
    """Return a .glb."""
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _other_value(rng: np.random.Generator) -> Any:
    match int(rng.integers(6)):
        case 0:
            return EXTREME_INTEGERS[rng.integers(len(EXTREME_INTEGERS))]
        case 1:
            return EXTREME_FLOATS[rng.integers(len(EXTREME_FLOATS))]
        case 2:
            return WORDS[rng.integers(len(WORDS))].decode("latin-1")
        case 3:
            return []
        case 4:
            return {}
        case _:
            return None


def damage_tree(tree: Any, rng: np.random.Generator) -> str:
    """Replace or remove one value of a tree of JSON, somewhere; return where."""
    place, keys = tree, []
    while True:
        inside = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not inside:
            return "nothing"
        key = inside[rng.integers(len(inside))]
        keys.append(str(key))
        child = place[key]
        if isinstance(child, dict | list) and child and rng.random() < 0.85:
            place = child
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = _other_value(rng)
        return ".".join(keys)


def good_files(folder: Path) -> dict[str, bytes]:
    """Return good files by their names; those of .gltf and .glb are made anew for every input."""
    corners = [" ".join(map(str, corner)) for corner in CORNERS.astype(int).tolist()]
    obj = ["mtllib a.mtl", *(f"v {corner} 0.5 0.2 0.1" for corner in corners)]
    obj += ["vt 0 0", "vt 1 0", "vt 0 1", "usemtl skin", *(f"f {a + 1}/1 {b + 1}/2 {c + 1}/3" for a, b, c in FACES)]
    off = ["OFF", f"{len(corners)} {len(FACES)} 0", *corners, *(f"3 {a} {b} {c}" for a, b, c in FACES)]
    stl = bytes(80) + struct.pack("<I", len(FACES))
    for face in FACES:
        stl += bytes(12) + CORNERS[face].tobytes() + bytes(2)
    return {
        "a.obj": "\n".join([*obj, ""]).encode(),
        "a.mtl": b"newmtl skin\nKd 0.5 0.5 0.5\nmap_Kd a.png\n",
        "a.png": picture(),
        "a.off": "\n".join([*off, ""]).encode(),
        "a.stl": stl,
    }


def damaged_file(good: dict[str, bytes], rng: np.random.Generator, folder: Path) -> Case:
    """Write a mesh with damage to its tree, its lines or its bytes, sometimes under another format's name."""
    kind = ("a.glb", "a.glb", "a.gltf", "a.obj", "a.off", "a.stl")[rng.integers(6)]
    about: list[str] = [kind]
    if kind in ("a.glb", "a.gltf"):
        header, blob = gltf(binary=kind == "a.glb")
        about += [damage_tree(header, rng) for _ in range(int(rng.integers(0, 3)))]
        if rng.random() < 0.3:
            blob = damaged_bytes(blob, rng)
            about.append("buffer")
        text = json.dumps(header).encode()
        data = packed(text, blob) if kind == "a.glb" else text
    else:
        data = good[kind]
        if kind != "a.stl":
            for _ in range(int(rng.integers(0, 3))):
                data = damaged_lines(data, rng)
                about.append("lines")
    if rng.random() < 0.25:
        data = damaged_bytes(data, rng)
        about.append("bytes")
    name = kind if rng.random() < 0.9 else OTHER_NAMES[rng.integers(len(OTHER_NAMES))]
    (folder / name).write_bytes(data)
    if kind == "a.obj":
        for other in ("a.mtl", "a.png"):
            damaged = damaged_bytes(good[other], rng) if rng.random() < 0.2 else good[other]
            (folder / other).write_bytes(damaged)
    return Case(arguments=_command(name, rng), about=", ".join(about))


def _command(name: str, rng: np.random.Generator) -> Sequence[str]:
    if rng.random() < 0.1:
        return ("render", name, "--size", "32", "--frames", "0", "--views", "2", "--device", "cpu", "--out", "pictures")
    return (*START, name)


TARGET = Target(prepare=good_files, case=damaged_file, quick=12)
