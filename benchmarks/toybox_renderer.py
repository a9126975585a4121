"""Speed of the toybox renderer: images per second at 64 and 128 pixels over all classes.

``python benchmarks/toybox_renderer.py``; the last line is one JSON object.
"""

from __future__ import annotations

import json
import platform
import time

import numba
import numpy as np
import torch

from sdi_gs.cameras import CameraBatch
from sdi_gs.toybox.classes import CLASSES, COLOURS
from sdi_gs.toybox.objects import Scene, sample_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.views import toybox_cameras

NUM_IMAGES = 1024
REPEATS = 3


def random_views(size: int, rng: np.random.Generator) -> CameraBatch:
    """Return cameras all around at elevations from -10 to 40 degrees."""
    azimuth = torch.from_numpy(rng.uniform(0.0, 360.0, NUM_IMAGES)).float()
    elevation = torch.from_numpy(rng.uniform(-10.0, 40.0, NUM_IMAGES)).float()
    return toybox_cameras(azimuth, elevation, size=size)


def main() -> None:
    """Time rendering of different objects in every image, building included; returns the best of a few repeats."""
    rng = np.random.default_rng(0)
    colours = list(COLOURS)
    scenes: list[Scene] = [
        (sample_object(CLASSES[k % len(CLASSES)], colours[k % len(colours)], rng),) for k in range(NUM_IMAGES)
    ]
    start = time.perf_counter()
    render_scenes(scenes, random_views(8, rng))
    print(f"first call, compilation or its cache included: {time.perf_counter() - start:.1f} s")
    speeds, cpu = {}, {}
    for size in (64, 128):
        cameras = random_views(size, rng)
        seconds = []
        cpu_start = time.process_time()
        for _ in range(REPEATS):
            start = time.perf_counter()
            render_scenes(scenes, cameras)
            seconds.append(time.perf_counter() - start)
        speeds[size] = NUM_IMAGES / min(seconds)
        # Hardly depends on what else runs on the machine.
        cpu[size] = 1e3 * (time.process_time() - cpu_start) / (REPEATS * NUM_IMAGES)
        print(f"{size} px: {speeds[size]:.0f} images/s (best of {REPEATS}), {cpu[size]:.2f} ms of CPU time per image")
    summary = {
        "images_per_second_64": round(speeds[64], 1),
        "images_per_second_128": round(speeds[128], 1),
        "cpu_ms_per_image_64": round(cpu[64], 3),
        "cpu_ms_per_image_128": round(cpu[128], 3),
        "threads": numba.get_num_threads(),
        "num_images": NUM_IMAGES,
        "machine": platform.machine(),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
