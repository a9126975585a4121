"""Splats as OpenUSD text: a ParticleField3DGaussianSplat of float32, y up and front along +z; only written.

The schema is UsdVol's since OpenUSD 26.03: linear standard deviations and opacities, quaternions w, x, y, z, harmonics
of a splat one after the other, INRIA's order.

Letters: N splats, K harmonics per channel above band 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sdi_gs.files import replacement_for
from sdi_gs.files.origin import Origin
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.gltf_reading import own_frame
from sdi_gs.splats.ply import ascii_line
from sdi_gs.splats.screening import ExportReport, screened_for_writing
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud, rgb_from_sh_dc

ROWS_AT_ONCE = 4096
"""Splats whose numbers are text at the same time."""


def write_usda(
    path: Path, splats: SplatCloud, *, options: ExportOptions, origin: Origin, overwrite: bool = False
) -> ExportReport:
    """Write a cloud given in the training world (UserError as ``SplatWriter``)."""
    frame = own_frame(options.frame)
    cloud, report = screened_for_writing(splats, path, frame)
    with replacement_for(path, overwrite=overwrite) as aside, aside.open("xb") as file:
        for text in _text(cloud, "Z" if frame == "train" else "Y", origin):
            file.write(text.encode("ascii"))
    return report


def _text(cloud: SplatCloud, up: str, origin: Origin) -> Iterator[str]:
    """Yield the file's text in parts."""
    # JSON's escapes are those of USD's strings, and a backslash that ascii_line wrote stays one.
    about = json.dumps("; ".join(ascii_line(line) for line in origin.lines()))
    yield f'#usda 1.0\n(\n    defaultPrim = "Splats"\n    doc = {about}\n    metersPerUnit = 1\n'
    yield f'    upAxis = "{up}"\n)\n\n'
    yield 'def ParticleField3DGaussianSplat "Splats"\n{\n'
    means, scales = cloud.means.numpy(), cloud.log_scales.exp().numpy()
    reach = 3.0 * scales.max(axis=1, keepdims=True)
    extent = np.stack([(means - reach).min(axis=0), (means + reach).max(axis=0)])
    degree = REST_COEFFICIENTS.index(cloud.sh_rest.shape[1])
    harmonics = np.concatenate([cloud.sh_dc.numpy()[:, None], cloud.sh_rest.numpy()], axis=1)
    yield from _array("float3[] extent", extent)
    yield from _array("point3f[] positions", means)
    yield from _array("quatf[] orientations", cloud.quats.numpy())
    yield from _array("float3[] scales", scales)
    yield from _array("float[] opacities", cloud.opacity_logit.double().sigmoid().float().numpy()[:, None])
    yield f"    uniform int radiance:sphericalHarmonicsDegree = {degree}\n"
    yield from _array("float3[] radiance:sphericalHarmonicsCoefficients", harmonics.reshape(-1, 3))
    yield from _array("color3f[] primvars:displayColor", rgb_from_sh_dc(cloud.sh_dc).clamp(0.0, 1.0).numpy())
    yield "}\n"


def _array(
    name: str,
    rows: np.ndarray,  # [N, 1, 3 or 4]
) -> Iterator[str]:
    """Yield an attribute with its values, nine digits each: as many as tell every float32 from its neighbours."""
    row = "(" + ", ".join(["%.9g"] * rows.shape[1]) + ")" if rows.shape[1] > 1 else "%.9g"
    yield f"    {name} = ["
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        yield (", " if start else "") + ", ".join([row] * len(part)) % tuple(part.reshape(-1).tolist())
    # What varies over a primitive's points says so.
    yield ' ] (\n        interpolation = "vertex"\n    )\n' if "primvars:" in name else "]\n"


CODEC = SplatCodec(write=write_usda)
