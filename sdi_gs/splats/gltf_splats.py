"""Splats as binary glTF 2.0 with the extension KHR_gaussian_splatting: float32 without loss, y up and front along +z.

Programs without the extension show points in the splats' colours. Files of this kind have linear standard deviations
and opacities where a .ply has logarithms and logits (github.com/KhronosGroup/glTF, extensions/2.0/Khronos).

Letters: N splats, K harmonics per channel above band 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sdi_gs.files import write_atomically
from sdi_gs.files.origin import PROGRAM, Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.gltf_reading import EXTENSION, is_gltf_of_splats, own_frame, read_gltf_splats
from sdi_gs.splats.quantised import to_bytes
from sdi_gs.splats.screening import ExportReport, screened_for_writing
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud, rgb_from_sh_dc

_FLOAT, _BYTE, _VERTICES = 5126, 5121, 34962
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def write_gltf_splats(
    path: Path, splats: SplatCloud, *, options: ExportOptions, origin: Origin, overwrite: bool = False
) -> ExportReport:
    """Write a cloud given in the training world (UserError as ``SplatWriter``)."""
    cloud, report = screened_for_writing(splats, path, own_frame(options.frame))
    attributes = _attributes(cloud)
    tree = json.dumps(_tree(attributes, origin), separators=(",", ":")).encode()
    tree += b" " * (-len(tree) % 4)
    body = sum(values.nbytes for values in attributes.values())
    total = 12 + 8 + len(tree) + 8 + body
    head = b"glTF" + np.array([2, total, len(tree)], "<u4").tobytes() + b"JSON"
    middle = np.array([body], "<u4").tobytes() + b"BIN\0"
    parts = [values.data.cast("B") for values in attributes.values()]
    write_atomically(path, head, tree, middle, *parts, overwrite=overwrite)
    return report


def _attributes(cloud: SplatCloud) -> dict[str, np.ndarray]:
    """Return the arrays of the file by their names in it."""
    opacity = cloud.opacity_logit.double().sigmoid()
    rgb = rgb_from_sh_dc(cloud.sh_dc).clamp(0.0, 1.0).numpy()
    # glTF's vertex colours are linear light.
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    found = {
        "POSITION": cloud.means.numpy(),
        "COLOR_0": to_bytes(255.0 * np.concatenate([linear, opacity.numpy()[:, None]], axis=1)),
        f"{EXTENSION}:ROTATION": np.roll(cloud.quats.numpy(), -1, axis=1),
        f"{EXTENSION}:SCALE": cloud.log_scales.exp().numpy(),
        f"{EXTENSION}:OPACITY": opacity.float().numpy()[:, None],
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": cloud.sh_dc.numpy(),
    }
    for degree in range(1, REST_COEFFICIENTS.index(cloud.sh_rest.shape[1]) + 1):
        for order in range(2 * degree + 1):
            values = cloud.sh_rest[:, REST_COEFFICIENTS[degree - 1] + order].numpy()
            found[f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"] = values
    return {name: np.ascontiguousarray(values) for name, values in found.items()}


def _tree(attributes: dict[str, np.ndarray], origin: Origin) -> dict[str, Any]:
    """Return the description of the file."""
    views, accessors, start = [], [], 0
    for number, values in enumerate(attributes.values()):
        views.append({"buffer": 0, "byteOffset": start, "byteLength": values.nbytes, "target": _VERTICES})
        accessor = {
            "bufferView": number,
            "componentType": _FLOAT,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if values.dtype == np.uint8:
            accessor |= {"componentType": _BYTE, "normalized": True}
        accessors.append(accessor)
        start += values.nbytes
    means = attributes["POSITION"]
    accessors[0] |= {"min": means.min(axis=0).tolist(), "max": means.max(axis=0).tolist()}
    primitive = {
        "mode": 0,
        "attributes": {name: number for number, name in enumerate(attributes)},
        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }
    return {
        "asset": {"version": "2.0", "generator": PROGRAM, "extras": {"comments": origin.lines()[1:]}},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": origin.prompt or "splats"}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }


CODEC = SplatCodec(read=read_gltf_splats, write=write_gltf_splats, recognizes=is_gltf_of_splats)
