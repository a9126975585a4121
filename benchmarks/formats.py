"""What each splat format costs: bytes and PSNR of an object, seconds and memory of 200 000 splats; JSON last.

    python benchmarks/formats.py RUN|FILE [--splats 200000] [--degrees 0 3]

The object is a run or a splat file. Its file in each format is read back by this project's reader, and three renders of
256 pixels a side are compared with the scene's own. Seconds are those of one core (CPU time), memory is what the
process grows by while it writes: each format in its own process, after a small file of the same format.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sdi_gs.pictures.framing import training_framing
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.loading import load
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.splats.formats import SPLAT_FORMATS, SplatFormat, read_splats
from sdi_gs.splats.splat_cloud import REST_COEFFICIENTS, SplatCloud

VIEWS, SIZE, ELEVATION_DEG = 3, 256, 15.0


def random_cloud(count: int, degree: int) -> SplatCloud:
    """Return splats in a ball with random turns, sizes, colours and harmonics."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return SplatCloud(
        means=0.5 * draw(count, 3),
        log_scales=0.5 * draw(count, 3) - 4.5,
        quats=draw(count, 4),
        opacity_logit=2.0 * draw(count),
        sh_dc=0.6 * draw(count, 3),
        sh_rest=0.1 * draw(count, REST_COEFFICIENTS[degree], 3),
    )


def bytes_of(path: Path) -> int:
    """Return the size of a file, or of all files of a folder."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def renders(cloud: SplatCloud) -> torch.Tensor:  # [VIEWS, SIZE, SIZE, 3]
    """Render a cloud as its training cameras see it."""
    ring = training_framing(CameraConfig()).ring(VIEWS, SIZE, elevation_deg=ELEVATION_DEG)
    return render_views(gaussians_from_splats(cloud, device="cpu"), ring).rgb


def quality(
    row: SplatFormat, cloud: SplatCloud, expected: torch.Tensor, ply_bytes: int, folder: Path
) -> dict[str, Any]:
    """Return bytes and PSNR of a cloud in one format."""
    path = folder / f"object-{row.name}{row.suffix}"
    row.write(path, cloud)
    found: dict[str, Any] = {"bytes": bytes_of(path), "share_of_ply": round(bytes_of(path) / ply_bytes, 4)}
    if row.reads:
        error = float((renders(read_splats(path, row)) - expected).square().mean())
        # Renders of the same numbers differ by their last digits.
        found["psnr"] = round(min(-10.0 * math.log10(max(error, 1e-30)), 160.0), 1)
    return found


def cost(name: str, count: int, degree: int) -> dict[str, Any]:
    """Return seconds of one core and memory of writing a cloud; for a process of its own."""
    torch.set_num_threads(1)
    row = next(row for row in SPLAT_FORMATS if row.name == name)
    cloud = random_cloud(count, degree)
    cloud_bytes = sum(value.nbytes for value in vars(cloud).values())
    folder = Path(tempfile.mkdtemp())
    try:
        row.write(folder / f"warm{row.suffix}", random_cloud(1000, degree))
        before, started = _peak_bytes(reset=True), time.process_time()
        path = folder / f"a{row.suffix}"
        row.write(path, cloud)
        seconds, grown = time.process_time() - started, _peak_bytes() - before
        return {
            "degree": degree,
            "seconds": round(seconds, 2),
            "memory_over_cloud": round(grown / cloud_bytes, 2),
            "bytes_per_splat": round(bytes_of(path) / count, 1),
        }
    finally:
        shutil.rmtree(folder)


def _peak_bytes(*, reset: bool = False) -> int:
    """Return the most memory that this process had so far, or since the last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """Measure every format that is written and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|FILE")
    parser.add_argument("--splats", type=int, default=200_000)
    parser.add_argument("--degrees", type=int, nargs="*", default=[0, 3])
    parser.add_argument("--formats", nargs="*", default=[row.name for row in SPLAT_FORMATS if row.writes])
    options = parser.parse_args()
    cloud = load(options.source).splats()
    expected, results = renders(cloud), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.ply"
        SPLAT_FORMATS[0].write(path, cloud)
        for row in SPLAT_FORMATS:
            if row.name in options.formats:
                results[row.name] = quality(row, cloud, expected, path.stat().st_size, Path(folder))
    spawn = multiprocessing.get_context("spawn")
    for name, found in results.items():
        with spawn.Pool(1) as pool:
            found["cost"] = [pool.apply(cost, (name, options.splats, degree)) for degree in options.degrees]
        print(name, found, flush=True)
    print(json.dumps({"splats": len(cloud), "cost_splats": options.splats, "formats": results}))


if __name__ == "__main__":
    main()
