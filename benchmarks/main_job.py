"""Time and memory of the README's main command, with and without warm kernels.

    python benchmarks/main_job.py [--prompt "a blue robot"] [--repeats 3]

The first run starts with an empty kernel cache; the others reuse it. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median


def timed_run(prompt: str, folder: Path, kernel_cache: Path) -> dict[str, float]:
    """Run one ``sdi-gs train`` in another process."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(kernel_cache)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "sdi_gs", "train", "--prompt", prompt, "--output-dir", str(folder)],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (folder / "splats.ply").exists()
    return {
        "wall_seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_rss_mb": json.loads((folder / "summary.json").read_text())["peak_rss_mb"],
    }


def main() -> None:
    """Run cold once, then warm, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompt", default="a blue robot")
    parser.add_argument("--repeats", type=int, default=3, help="warm runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = []
        for index in range(options.repeats + 1):
            runs.append(timed_run(options.prompt, Path(scratch) / f"run-{index}", Path(scratch) / "kernels"))
            print("warm" if index else "cold", {key: round(value, 1) for key, value in runs[-1].items()}, flush=True)
    cold, warm = runs[0], runs[1:]
    report = {"prompt": options.prompt, "cores": os.cpu_count()}
    report |= {f"cold_{key}": value for key, value in cold.items()}
    report |= {f"warm_{key}": median(run[key] for run in warm) for key in cold}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
