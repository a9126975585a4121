"""Exports with fewer splats, and splats of a field: how close they come.

    python benchmarks/splats_to_export.py RUN [--shares 0.8 0.6 0.4 0.2 0.1] [--counts 6000] [--steps 0 200 600]

Of a run of Gaussians: PSNR of the shares that remain against all that are visible, chosen by what they add to 48 views
from all around, or by opacity. Of a run of a field: PSNR against the field's renders, by number of splats and steps of
fitting. Both over 12 views that nothing was chosen or fitted by. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdi_gs.pictures.framing import Framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.contributions import contributions
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.loading import load
from sdi_gs.runs.splats_to_export import WEIGHED_SIZE, WEIGHED_VIEWS, framing_of_scene
from sdi_gs.splats.screening import showable
from sdi_gs.splats.splat_cloud import SplatCloud
from sdi_gs.training.splats_of_field import psnr_of, splats_of_field

SIDE, VIEWS, ELEVATION_DEG = 256, 12, 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.6, 0.4, 0.2, 0.1])
    parser.add_argument("--counts", type=int, nargs="+", default=[6000])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 200, 600])
    options = parser.parse_args()
    scene = load(options.run)
    framing, cloud = framing_of_scene(scene), scene.representation.splats()
    if cloud is not None:
        rows = of_shares(cloud.select(showable(cloud)), framing, options.shares)
    else:
        rows = []
        for count in options.counts:
            for steps in options.steps:
                started = time.process_time()
                fit = splats_of_field(scene.representation, framing, count=count, steps=steps, seed=0)
                seconds = round(time.process_time() - started, 1)
                rows.append({"splats": count, "steps": steps, "psnr": round(fit.psnr, 2), "cpu_seconds": seconds})
                print(rows[-1], flush=True)
    print(json.dumps({"run": str(options.run), "rows": rows}))


def of_shares(cloud: SplatCloud, framing: Framing, shares: list[float]) -> list[dict[str, Any]]:
    """Return a row for each share of a cloud's splats that is kept."""
    views = framing.ring(VIEWS, SIDE, elevation_deg=ELEVATION_DEG)
    wanted = render_views(gaussians_from_splats(cloud), views).rgb
    ways: dict[str, Tensor] = {
        "contribution": contributions(gaussians_from_splats(cloud), framing.all_around(WEIGHED_VIEWS, WEIGHED_SIZE)),
        "opacity": cloud.opacity_logit,
    }
    rows = []
    for share in shares:
        row: dict[str, Any] = {"kept": round(share * len(cloud)), "of": len(cloud)}
        for name, values in ways.items():
            chosen = torch.zeros(len(cloud), dtype=torch.bool)
            chosen[values.topk(row["kept"]).indices] = True
            row[name] = round(psnr_of(gaussians_from_splats(cloud.select(chosen)), views, wanted), 2)
        rows.append(row)
        print(row, flush=True)
    return rows


if __name__ == "__main__":
    main()
