"""Textures of a run's mesh against colours per vertex, by size of the picture and number of triangles.

    python benchmarks/mesh_texture.py RUN [--sizes 512 1024 2048] [--faces 2000 5000 20000] [--picture FILE]

PSNR against the run's own renders, over the pixels within both outlines, of eight views that no texture was baked from.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from sdi_gs.mesh.extraction import mesh_of_scene
from sdi_gs.mesh.likeness import mesh_psnr
from sdi_gs.mesh.shading import flat_pictures
from sdi_gs.mesh.texture import with_texture
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views
from sdi_gs.runs.loading import load
from sdi_gs.runs.splats_to_export import framing_of_scene
from sdi_gs.settings.mesh import MeshConfig

SIDE, VIEWS, ELEVATION_DEG = 256, 8, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--faces", type=int, nargs="+", default=[2000, 5000, 20000])
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    scene = load(options.run)
    framing = framing_of_scene(scene)
    cameras = framing.ring(VIEWS, SIDE, elevation_deg=ELEVATION_DEG)
    wanted = render_views(scene.representation, cameras)
    rows, frames = [], [*wanted.rgb[:2]]
    for faces in options.faces:
        mesh, _ = mesh_of_scene(scene.representation, MeshConfig(max_faces=faces))
        rows.append({"faces": len(mesh.faces), "texture": None, "psnr": round(mesh_psnr(mesh, cameras, wanted), 2)})
        print(rows[-1], flush=True)
        frames += torch.from_numpy(flat_pictures(mesh, cameras.rows(slice(0, 2)))[0])
        for size in options.sizes:
            started = time.process_time()
            baked = with_texture(mesh, scene.representation, framing, size)
            seconds = time.process_time() - started
            row = {"faces": len(mesh.faces), "texture": size, "psnr": round(mesh_psnr(baked, cameras, wanted), 2)}
            rows.append(row | {"cpu_seconds": round(seconds, 1)})
            print(rows[-1], flush=True)
            frames += torch.from_numpy(flat_pictures(baked, cameras.rows(slice(0, 2)))[0])
    if options.picture is not None:
        save_contact_sheet(options.picture, torch.stack([frame.float() for frame in frames]), columns=2)
    print(json.dumps({"run": str(options.run), "rows": rows}))


if __name__ == "__main__":
    main()
