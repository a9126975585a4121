"""Prompts x seeds under every arm of the comparison, scored against toybox's truth; writes a table and sheets.

    python benchmarks/gallery.py --results gallery-results --docs docs/reports       # hours of CPU; resumes
    python benchmarks/gallery.py --results /tmp/g --seeds 0 --arms sdi --prompts "a blue robot"

Each result is kept in ``<results>/<arm>/<prompt>-<seed>.json``; delete it to repeat the run. With
``--docs``, the tables go into ``gallery.md`` and the sheets beside it. The last line printed is one JSON object.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from scored_runs import PROMPTS, insert_table, sheet, train_and_score

from sdi_gs.configs.presets import preset_named
from sdi_gs.evaluation.metrics.ceiling import score_ceiling
from sdi_gs.runs.folder import slug
from sdi_gs.settings.run import RunConfig

ARMS = {
    "sdi": "SDI, the preset as it is",
    "sdi-cold": "SDI without the random-noise warm-up",
    "sds": "SDS, equal steps",
    "sds-calls": "SDS, equal predictor calls",
    "gamma-0": "inversion with gamma_inv = 0",
    "gamma-plus-1": "inversion with gamma_inv = +1",
    "scale-2": "SDI at guidance scale 2",
    "pairs": "two views a step, 180 degrees apart, twice the steps",
    "one-view": "one view a step, four times the steps",
}

MARKS = ("<!-- tables: benchmarks/gallery.py -->", "<!-- end of tables -->")

COLUMNS = {
    "psnr_best": "PSNR best",
    "iou_best": "IoU best",
    "psnr_canonical": "PSNR canon.",
    "iou_canonical": "IoU canon.",
    "iou_wrong_class": "IoU wrong class",
    "sharpness_ratio": "sharpness",
    "saturation_error": "saturation",
    "view_accuracy": "view",
    "fog": "fog",
    "predictor_calls": "calls",
    "train_seconds": "s",
}


def arm_config(arm: str, prompt: str, seed: int, *, sdi_calls: int | None) -> RunConfig:
    """Return the preset with the arm's one change."""
    base = replace(preset_named("toybox-ideal").config, prompt=prompt, seed=seed)
    guidance = base.guidance
    match arm:
        case "sdi":
            return base
        case "sdi-cold":
            return replace(base, guidance=replace(guidance, random_fraction=0.0))
        case "sds":
            return replace(base, guidance=replace(guidance, noise="random"))
        case "sds-calls":
            # SDS makes one call a step.
            if sdi_calls is None:
                raise SystemExit("arm sds-calls needs the result of arm sdi first: put sdi before it in --arms")
            return replace(base, steps=sdi_calls, guidance=replace(guidance, noise="random"))
        case "gamma-0":
            return replace(base, guidance=replace(guidance, inversion_guidance_scale=0.0))
        case "gamma-plus-1":
            return replace(base, guidance=replace(guidance, inversion_guidance_scale=1.0))
        case "scale-2":
            return replace(base, guidance=replace(guidance, guidance_scale=2.0))
        case "pairs" | "one-view":
            # A U-Net's budget is views times steps times calls; these keep it.
            views = 2 if arm == "pairs" else 1
            cameras = replace(base.cameras, antithetic=arm == "pairs")
            return replace(base, cameras=cameras, views_per_step=views, steps=base.steps * base.views_per_step // views)
        case _:
            raise SystemExit(f'unknown arm "{arm}"; known: {", ".join(ARMS)}')


def result_of(results: Path, arm: str, prompt: str, seed: int) -> dict[str, Any]:
    """Return the kept result, or make one."""
    stem = results / arm / f"{slug(prompt)}-{seed}"
    path = stem.with_suffix(".json")
    if not path.exists():
        calls = None
        if arm == "sds-calls":
            done = results / "sdi" / path.name
            calls = json.loads(done.read_text())["predictor_calls"] if done.exists() else None
        config = arm_config(arm, prompt, seed, sdi_calls=calls)
        path.parent.mkdir(parents=True, exist_ok=True)
        result = train_and_score(config, stem.with_suffix(".png"))
        path.write_text(json.dumps(result, indent=1))
    return json.loads(path.read_text())


def ceilings(results: Path, prompts: list[str]) -> dict[str, dict[str, float]]:
    """Score the same Gaussians fitted to true views; kept like the results."""
    path = results / "ceilings.json"
    known: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    for prompt in prompts:
        if prompt not in known:
            ceiling = score_ceiling(preset_named("toybox-ideal").config, prompt)
            known[prompt] = {"psnr_ceiling": ceiling.psnr, "iou_ceiling": ceiling.iou}
            path.write_text(json.dumps(known, indent=1))
    return known


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Average over rows; scores that do not apply to an object are left out."""
    found = {
        key: mean(values)
        for key in COLUMNS
        if (values := [float(row[key]) for row in rows if row.get(key) is not None])
    }
    fronts = [row["front_back_right"] for row in rows if row["front_back_right"] is not None]
    return found | {
        "iou_best_min": min(row["iou_best"] for row in rows),
        "colour_right": mean(float(row["colour_right"]) for row in rows),
        "front_back_right": mean(map(float, fronts)) if fronts else float("nan"),
        "runs": len(rows),
    }


def markdown(by_arm: dict[str, list[dict[str, Any]]], ceiling: dict[str, dict[str, float]]) -> str:
    """Format two tables: the arms, and the default's objects one by one."""
    lines = ["| arm | " + " | ".join(COLUMNS.values()) + " | lowest IoU | colour | front/back |"]
    lines.append("|---" * (len(COLUMNS) + 4) + "|")
    for arm, rows in by_arm.items():
        average = means(rows)
        cells = [f"{average[key]:.3g}" if key in average else "–" for key in COLUMNS]
        tail = [average["iou_best_min"], average["colour_right"], average["front_back_right"]]
        lines.append(f"| {ARMS[arm]} | " + " | ".join([*cells, *(f"{value:.2f}" for value in tail)]) + " |")
    lines += ["", "| prompt | seed | " + " | ".join(COLUMNS.values()) + " | PSNR ceiling | IoU ceiling |"]
    lines.append("|---" * (len(COLUMNS) + 4) + "|")
    for row in next(iter(by_arm.values())):
        cells = [f"{row[key]:.3g}" if row[key] is not None else "–" for key in COLUMNS]
        limit = ceiling.get(row["prompt"], {})
        tail = [f"{limit[key]:.3g}" if key in limit else "–" for key in ("psnr_ceiling", "iou_ceiling")]
        lines.append(f"| {row['prompt']} | {row['seed']} | " + " | ".join(cells + tail) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the arguments, make missing results, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    parser.add_argument("--docs", type=Path, help="folder for the table and the sheets")
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--no-ceiling", action="store_true", help="leave out the fits to true views")
    options = parser.parse_args()
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for arm in options.arms:
        by_arm[arm] = []
        for prompt in options.prompts:
            for seed in options.seeds:
                row = result_of(options.results, arm, prompt, seed)
                by_arm[arm].append(row)
                print(
                    f"{arm:13} {prompt:30} {seed} PSNR {row['psnr_best']:5.2f} IoU {row['iou_best']:.3f} "
                    f"{row['train_seconds']:5.1f} s",
                    flush=True,
                )
    limit = {} if options.no_ceiling else ceilings(options.results, options.prompts)
    if options.docs is not None:
        insert_table(options.docs / "gallery.md", markdown(by_arm, limit), MARKS)
        for arm in options.arms:
            pictures = [options.results / arm / f"{slug(prompt)}-{options.seeds[0]}.png" for prompt in options.prompts]
            sheet(pictures, options.docs / f"gallery-{arm}.png")
    print(json.dumps({arm: means(rows) for arm, rows in by_arm.items()}))


if __name__ == "__main__":
    main()
