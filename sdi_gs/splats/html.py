"""One page in one file that shows a cloud in any browser, offline: written only.

The page (``page/``) has its own program for WebGL 2, and no address that it could load anything from: a security policy
in its head allows the script and the style inside it and nothing else. The splats are in its text as base64, 34 bytes
each and 3 for every harmonic above the constant one, in the axes of the training world. Places are float32, about the
point that the camera looks at; log scales, quaternions, colours and opacities have 16 bits, harmonics 8.

Letters: N splats, K harmonics per channel above band 0 (0, 3, 8 or 15).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.files.origin import PROGRAM, Origin
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.export import ExportOptions
from sdi_gs.splats.formats import SplatCodec
from sdi_gs.splats.screening import LOG_SCALE_WINDOW, ExportReport, screened_for_writing
from sdi_gs.splats.sight import Point, fitted_standpoint
from sdi_gs.splats.splat_cloud import SplatCloud, rgb_from_sh_dc

MAX_SPLATS = 2_000_000
"""Most splats of a page: 90 MB of text, which a phone still opens, and half of what its textures hold."""
COLOUR_WINDOW = (-4.0, 4.0)
"""Colours of band 0 and harmonics are kept within; 1 is what a screen shows at most."""
ELEVATION_DEG = 15.0
"""Height of the first view, the same as a film's."""

_PARTS = Path(__file__).with_name("page")


@dataclass(frozen=True, kw_only=True)
class FirstView:
    """The camera of the page when it is opened."""

    middle: Point
    """The point that it looks at, scene units of the file."""
    distance: float
    """From that point, scene units of the file."""
    fov_y_deg: float
    """Field of view across the shorter side of the window."""


def write_html(
    path: Path, cloud: SplatCloud, /, *, options: ExportOptions, origin: Origin, overwrite: bool
) -> ExportReport:
    """Write a cloud given in the training world; the page's camera knows its axes, whatever ``options.frame`` is.

    Raises UserError as ``SplatWriter``, and for more than ``MAX_SPLATS``.
    """
    kept, report = screened_for_writing(cloud, path, "train")
    if len(kept) > MAX_SPLATS:
        raise UserError(
            f"cannot write {path}: {len(kept)} splats are more than the {MAX_SPLATS} of one page; "
            f"add --max-splats {MAX_SPLATS}, or choose another format"
        )
    today = datetime.now(UTC).date().isoformat()
    write_atomically(path, *page_of(kept, first_view(kept, origin), origin, today), overwrite=overwrite)
    return report


def first_view(cloud: SplatCloud, origin: Origin) -> FirstView:
    """Return where a run's training cameras stand; for any other cloud where they see the whole of it."""
    cameras = origin.cameras or CameraConfig()
    distance, fov_y_deg = cameras.middle
    distance *= origin.unit
    middle: Point = (0.0, 0.0, 0.0)
    if origin.cameras is None:
        found = fitted_standpoint(cloud, middle=middle, distance=distance, fov_y_deg=fov_y_deg)
        middle, distance = found or (middle, distance)
    return FirstView(middle=middle, distance=distance, fov_y_deg=fov_y_deg)


def page_of(
    cloud: SplatCloud,  # on the CPU, training axes
    view: FirstView,
    origin: Origin,
    date: str,
) -> tuple[bytes, bytes, bytes]:
    """Return the page up to the splats, the splats, and the rest of it."""
    step = float(cloud.sh_rest.clamp(*COLOUR_WINDOW).abs().max()) / 127.0 if cloud.sh_rest.numel() else 0.0
    title = origin.prompt or "3D object"
    scene = {
        "title": title,
        "facts": _facts(cloud, origin, date),
        "count": len(cloud),
        "harmonics": cloud.sh_rest.shape[1],
        "harmonic_step": step,
        "log_scale_window": LOG_SCALE_WINDOW,
        "colour_window": COLOUR_WINDOW,
        "view": {
            "azimuth_deg": 0.0,
            "elevation_deg": ELEVATION_DEG,
            "distance": view.distance,
            "fov_y_deg": view.fov_y_deg,
        },
    }
    style, script = (_part(name) for name in ("page.css", "page.js"))
    values = {
        "title": html.escape(title),
        "generator": html.escape(PROGRAM),
        "style": style,
        "style_hash": _policy_hash(style),
        "script": script,
        "script_hash": _policy_hash(script),
        "scene": _json_in_html(scene),
    }
    before, after = (_filled(part, values).encode(errors="replace") for part in _part("page.html").split("{{splats}}"))
    return before, base64.b64encode(_packed(cloud, view.middle, step)), after


def _facts(cloud: SplatCloud, origin: Origin, date: str) -> list[str]:
    """Return what stands below the title: the date, the size and the origin."""
    facts = [date, f"{len(cloud):,} Gaussians"]
    if origin.prior is not None:
        facts.append(f"prior {origin.prior}")
    if origin.seed is not None:
        facts.append(f"seed {origin.seed}")
    return [*facts, PROGRAM]


def _packed(
    cloud: SplatCloud,
    middle: Point,
    step: float,  # of the harmonics' bytes
) -> bytes:
    """Return the splats column by column, little-endian, as ``readSplats`` in page.js takes them."""
    means = cloud.means.double() - torch.tensor(middle, dtype=torch.float64)
    rgba = torch.cat(
        [
            _in_window(rgb_from_sh_dc(cloud.sh_dc), COLOUR_WINDOW),
            _in_window(torch.sigmoid(cloud.opacity_logit)[:, None], (0.0, 1.0)),
        ],
        dim=1,
    )
    columns = (
        means.numpy().astype("<f4"),
        _in_window(cloud.log_scales, LOG_SCALE_WINDOW).numpy().astype("<u2"),
        # Screened quaternions are of length 1.
        (cloud.quats * 32767.0).round().numpy().astype("<i2"),
        rgba.numpy().astype("<u2"),
        (cloud.sh_rest.clamp(*COLOUR_WINDOW) / (step or 1.0)).round_().numpy().astype(np.int8),
    )
    return b"".join(column.tobytes() for column in columns)


def _in_window(
    values: Tensor,  # [...]
    window: tuple[float, float],
) -> Tensor:
    """Return values as the nearest of 65536 even steps from the window's one end to the other."""
    low, high = window
    return values.clamp(low, high).sub_(low).mul_(65535.0 / (high - low)).round_()


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    """Return the source expression by which a page's security policy allows a script or a style inside it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _json_in_html(value: Mapping[str, Any]) -> str:
    """Return JSON in ASCII that no script element ends in, whatever its texts are."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its ``{{names}}`` replaced, in one pass: what is put in is not searched again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


CODEC = SplatCodec(write=write_html)
