"""Effects of densification and of each shape guard on toybox: IoU and PSNR to truth, counts, needles; writes the page.

    python benchmarks/densification.py --results densification-results --docs docs/reports   # goes on where it stopped
    python benchmarks/densification.py --results r --part 1/2 &                      # every second run, and
    python benchmarks/densification.py --results r --part 2/2                        # the others beside it

Each result is kept in ``<results>/<arm>/<prompt>-<seed>.json``; delete it to repeat the run. The last line printed is
one JSON object of the existing results.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scored_runs import insert_table

from sdi_gs.configs.presets import preset_named
from sdi_gs.evaluation.metrics.truth import score_scene
from sdi_gs.files import write_atomically
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.priors.catalog import load_prior
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.representations.shape_guards import floaters
from sdi_gs.runs.folder import slug
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

PROMPTS = ("a green chair", "a blue robot", "a house with a purple roof", "an orange rocket")
"""Thin legs, many parts, flat walls, a slender body."""
SMALL_START = 1500
CAP = 6000
NEEDLE_RATIO = 10.0
"""Ratio of longest to middle axis above which a Gaussian counts as a needle."""
SEEN_OPACITY = 0.1
"""Smallest opacity of Gaussians in the counts of shapes."""
COUNT_EVERY = 30

ARMS = {
    "none-6000": "no densification, 6000 from the start (the preset)",
    "none-1500": "no densification, 1500 from the start",
    "threshold": "1500, gsplat's threshold of 2e-4, cap 6000",
    "share": "1500, the top 5 % every 10 steps, cap 6000",
    "share-double": "share at 10 % instead of 5 %",
    "mcmc": "1500, MCMC every 5 steps, cap 6000",
    "share-late": "share, pruning to the end of the run",
    "share-floaters": "share, pruning to the end, pieces under 5 % removed",
    "share-size": "share, pruning by world size at 0.1",
    "share-compact": "share with the compactness term (0.01)",
    "share-cap": "share, longest axis capped at twice the middle one",
}
STRESS_ARMS = {
    "stress": "share under stress, no guard",
    "stress-cap": "the same, axis ratio capped at 4",
    "stress-loss": "the same, needle loss at its default 0.01",
    "stress-size": "the same, world size pruned at 0.1 to the end",
    "stress-floaters": "the same, pieces under 5 % removed to the end",
    "stress-compact": "the same, compactness 0.01",
}
"""Settings that provoke bad shapes: guidance scale 7.5, five times the scales' rate, growth of 10 %, no needle loss."""
SCALE_ARMS = {
    f"{strategy}-{change}": f"{strategy}, {words}"
    for strategy in ("threshold", "share")
    for change, words in (
        ("plain", "as it is"),
        ("x1000", "loss x 1000"),
        ("x0.001", "loss / 1000"),
        ("128", "128 pixels instead of 64, loss a mean over pixels"),
        ("128-sum", "128 pixels instead of 64, loss a sum over pixels"),
    )
}
"""The same config in other units, with a high cap; for the first prompt only."""

MARKS = ("<!-- tables: benchmarks/densification.py -->", "<!-- end of tables -->")
COLUMNS = {
    "iou_best": ("IoU", ".3f"),
    "psnr_best": ("PSNR", ".2f"),
    "fog": ("fog", ".4f"),
    "sharpness_ratio": ("sharpness", ".2f"),
    "n_gaussians": ("Gaussians", ".0f"),
    "seen": ("of them seen", ".0f"),
    "needles": ("needles", ".3f"),
    "axis_ratio_p99": ("axis ratio p99", ".1f"),
    "size_max": ("largest", ".2f"),
    "floaters": ("floaters", ".1f"),
}


def arm_config(arm: str, prompt: str, seed: int) -> RunConfig:
    """Return the preset with the arm's changes."""
    base = replace(preset_named("toybox-ideal").config, prompt=prompt, seed=seed)
    if arm == "none-6000":
        return base
    small = replace(base, gaussians=replace(base.gaussians, num_initial=SMALL_START))
    if arm == "none-1500":
        return small
    return _changed(replace(small, densify=_densify(arm)), arm)


def _densify(arm: str) -> DensifyConfig:
    """Return the arm's densification; all but MCMC refine every ten steps."""
    strategy = arm.partition("-")[0]
    cap = 30_000 if arm in SCALE_ARMS else CAP
    config = DensifyConfig(max_gaussians=cap, every=10, min_gaussians=500)
    match strategy:
        case "threshold":
            config = replace(config, strategy="threshold")
        case "stress":
            config = replace(config, grow_share=0.1)
        case "mcmc":
            # gsplat adds 5 % at a time.
            config = replace(config, strategy="mcmc", every=5)
    match arm.partition("-")[2]:
        case "double":
            return replace(config, grow_share=0.1)
        case "late":
            return replace(config, prune_stop=1.0)
        case "floaters":
            return replace(config, prune_stop=1.0, prune_component=0.05)
        case "size":
            return replace(config, prune_scale3d=0.1, prune_stop=1.0 if strategy == "stress" else None)
        case _:
            return config


def _changed(config: RunConfig, arm: str) -> RunConfig:
    """Return the arm's losses, guidance and units."""
    strategy, _, change = arm.partition("-")
    if strategy == "stress":
        config = replace(
            config,
            guidance=replace(config.guidance, guidance_scale=7.5),
            gaussians=replace(config.gaussians, scales_lr=5.0 * config.gaussians.scales_lr),
            losses=replace(config.losses, needles=0.01 if change == "loss" else 0.0),
        )
    if change == "compact":
        return replace(config, losses=replace(config.losses, compactness=0.01))
    if change == "cap":
        ratio = 4.0 if strategy == "stress" else 2.0
        return replace(config, gaussians=replace(config.gaussians, axis_ratio_cap=ratio))
    if change.startswith("128"):
        config = replace(config, ideal_prior=replace(config.ideal_prior, image_size=128))
    factor = 1.0
    if change.startswith("x"):
        factor = float(change[1:])
    elif change.endswith("sum"):
        # SDS codes sum: against a mean, twice the side is four times the loss.
        factor = (128 / 64) ** 2
    losses = config.losses
    scaled = {name: factor * getattr(losses, name) for name in ("distillation", "fog", "compactness", "needles")}
    return replace(config, losses=replace(losses, **scaled))


def shapes(gaussians: Gaussians) -> dict[str, float]:
    """Count visible Gaussians and bad shapes."""
    params = {name: value.detach() for name, value in gaussians.params.items()}
    opacities = torch.sigmoid(params["opacities"])
    seen = opacities > SEEN_OPACITY
    axes = params["scales"][seen].sort(dim=-1).values.double()
    ratio = torch.exp(axes[:, 2] - axes[:, 1])
    return {
        "seen": float(seen.sum()),
        "needles": float((ratio > NEEDLE_RATIO).double().mean()),
        "axis_ratio_p99": float(ratio.quantile(0.99)),
        "size_max": float(axes[:, 2].exp().max()),
        "floaters": float(floaters(params["means"], params["scales"].exp().amax(dim=-1), opacities, 0.05).sum()),
    }


def run_one(config: RunConfig, picture: Path) -> dict[str, Any]:
    """Train, score, and save a row of four views."""
    device = torch.device("cpu")
    started = time.process_time()
    trainer = Trainer(config, load_prior(config, device=device), device=device)
    counts = []
    while trainer.step < config.steps:
        report = trainer.train_step()
        if report.step % COUNT_EVERY == 0:
            counts.append(report.num_points)
    seconds = time.process_time() - started
    gaussians = trainer.scene.representation
    assert isinstance(gaussians, Gaussians)
    views = ring_cameras(config.cameras, 4, 96, elevation_deg=15.0)
    save_contact_sheet(picture, render_views(gaussians, views).rgb, columns=4, overwrite=True)
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        "cpu_seconds": seconds,
        "n_gaussians": len(gaussians),
        "counts": counts,
        **shapes(gaussians),
        **score_scene(gaussians, config.prompt).as_json(),
    }


def ensure(results: Path, arm: str, prompt: str, seed: int) -> None:
    """Make a result unless it exists."""
    stem = results / arm / f"{slug(prompt)}-{seed}"
    if stem.with_suffix(".json").exists():
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    result = run_one(arm_config(arm, prompt, seed), stem.with_suffix(".png"))
    # Written atomically, for the other process.
    write_atomically(stem.with_suffix(".json"), json.dumps(result, indent=1).encode())
    print(
        f"{arm:18} {prompt:28} {seed} PSNR {result['psnr_best']:5.2f} IoU {result['iou_best']:.3f} "
        f"N {result['n_gaussians']:6d} {result['cpu_seconds']:5.1f} s",
        flush=True,
    )


def rows_of(results: Path, arm: str) -> list[dict[str, Any]]:
    """Return the existing results of an arm."""
    return [json.loads(path.read_text()) for path in sorted((results / arm).glob("*.json"))]


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Average over the runs of an arm."""
    return {key: mean(float(row[key]) for row in rows) for key in COLUMNS} | {"runs": len(rows)}


def table(results: Path, arms: dict[str, str], reference: str) -> list[str]:
    """Format one line per arm; differences of PSNR are paired by prompt and seed, with their standard error."""
    heads = [name for name, _ in COLUMNS.values()]
    if not any(rows_of(results, arm) for arm in arms):
        return []
    lines = [f"| arm | {' | '.join(heads)} | PSNR against `{reference}` | runs |", "|---" * (len(heads) + 3) + "|"]
    paired = {(row["prompt"], row["seed"]): row for row in rows_of(results, reference)}
    for arm, words in arms.items():
        rows = rows_of(results, arm)
        if not rows:
            continue
        average = means(rows)
        cells = [format(average[key], form) for key, (_, form) in COLUMNS.items()]
        pairs = [(row, paired.get((row["prompt"], row["seed"]))) for row in rows]
        gains = [row["psnr_best"] - other["psnr_best"] for row, other in pairs if other is not None]
        gain = "–"
        if arm != reference and len(gains) > 1:
            gain = f"{mean(gains):+.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f}"
        lines.append(f"| `{arm}`: {words} | {' | '.join(cells)} | {gain} | {len(rows)} |")
    return [*lines, ""]


def count_table(results: Path) -> list[str]:
    """Format the counts in other units."""
    shown = (1, 3, 5, 9)
    heads = [f"after {(index + 1) * 10} %" for index in shown]
    lines = [f"| arm | Gaussians {' | '.join(heads)} | IoU | PSNR |", "|---" * (len(shown) + 3) + "|"]
    for arm, words in SCALE_ARMS.items():
        rows = rows_of(results, arm)
        if rows:
            counts = [f"{mean(row['counts'][index] for row in rows):.0f}" for index in shown]
            average = means(rows)
            scores = [format(average[key], COLUMNS[key][1]) for key in ("iou_best", "psnr_best")]
            lines.append(f"| {words} | {' | '.join([*counts, *scores])} |")
    return [*lines, ""]


def sheet(results: Path, path: Path) -> None:
    """Draw a row per prompt, seed 0: the preset's fixed cloud on the left, growth by share on the right."""
    from PIL import Image

    pairs = [[results / arm / f"{slug(prompt)}-0.png" for arm in ("none-6000", "share")] for prompt in PROMPTS]
    rows = [[Image.open(file) for file in pair] for pair in pairs if all(file.exists() for file in pair)]
    if rows:
        width, height = rows[0][0].size
        page = Image.new("RGB", (2 * width, height * len(rows)), "white")
        for line, row in enumerate(rows):
            for column, picture in enumerate(row):
                page.paste(picture, (column * width, line * height))
        page.save(path)


def main() -> None:
    """Parse the arguments, make missing results, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    parser.add_argument("--docs", type=Path, help="folder of densification.md, whose tables are written")
    parser.add_argument("--arms", nargs="*", default=[*ARMS, *SCALE_ARMS, *STRESS_ARMS])
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--part", default="1/1", help="k/n: only every n-th run, from the k-th on")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    prompts = {arm: options.prompts[:1] if arm in SCALE_ARMS else options.prompts for arm in options.arms}
    runs = [(arm, prompt, seed) for arm in options.arms for prompt in prompts[arm] for seed in options.seeds]
    for arm, prompt, seed in runs[part - 1 :: parts]:
        ensure(options.results, arm, prompt, seed)
    if options.docs is not None:
        lines = table(options.results, ARMS, "share") + count_table(options.results)
        lines += table(options.results, STRESS_ARMS, "stress")
        insert_table(options.docs / "densification.md", "\n".join(lines), MARKS)
        sheet(options.results, options.docs / "densification.png")
    everything = [*ARMS, *SCALE_ARMS, *STRESS_ARMS]
    print(json.dumps({arm: means(rows) for arm in everything if (rows := rows_of(options.results, arm))}))


if __name__ == "__main__":
    main()
