"""A cold start of Gaussians, a field with splats after it, and a field alone, at equal calls of the prior, on toybox.

    python benchmarks/warm_start.py --results warm-results --docs docs/reports    # goes on where it stopped
    python benchmarks/warm_start.py --results r --part 1/2 &              # every second run, and
    python benchmarks/warm_start.py --results r --part 2/2                # the others beside it
    python benchmarks/warm_start.py --results trials --trials             # the stages' settings, on another prompt

Each result is kept in ``<results>/<arm>/<prompt>-<seed>.json``; delete it to repeat the run. The last line printed is
one JSON object of the existing results.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from densification import PROMPTS, rows_of
from scored_runs import insert_table

from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import NoiseSchedule, Representation
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE
from sdi_gs.evaluation.metrics.truth import score_scene
from sdi_gs.files import write_atomically
from sdi_gs.guidance.score_distillation import predictor_calls
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.priors.catalog import load_prior
from sdi_gs.runs.folder import slug
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_run
from sdi_gs.runs.saving import save_state
from sdi_gs.runs.two_stage import field_stage, splat_stage
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.toybox import metrics
from sdi_gs.toybox.truth import held_out_cameras
from sdi_gs.training.trainer import Trainer

ARMS = {
    "cold": "Gaussians from a ball (the preset)",
    "two-stage": "a field, then splats from its surface",
    "field": "the field alone",
}
TRIALS = {
    f"share-{share}-t-{t_max}": StagesConfig(field_share=share, t_max=t_max)
    for share in (0.4, 0.6)
    for t_max in (0.5, 0.7, 0.98)
}
"""Settings of the stages in the trials."""
TRIAL_PROMPT, TRIAL_SEED, TRIAL_STEPS = "a yellow car", 2, 150

CPU = torch.device("cpu")
QUIET = OutputConfig(preview_every=0, checkpoint_every=0, turntable_frames=0)
SHEET_VIEWS, SHEET_SIZE = 2, 96

MARKS = ("<!-- tables: benchmarks/warm_start.py -->", "<!-- end of tables -->")
COLUMNS = {
    "psnr_best": ("PSNR", ".2f"),
    "iou_best": ("IoU", ".3f"),
    "view_accuracy": ("view", ".3f"),
    "front_back_right": ("front/back", ".2f"),
    "fog": ("fog", ".4f"),
    "sharpness_ratio": ("sharpness", ".2f"),
    "predictor_calls": ("calls", ".0f"),
    "cpu_seconds": ("CPU s", ".0f"),
}


def planned_calls(config: RunConfig, schedule: NoiseSchedule) -> int:
    """Count the predictor calls that a run will make."""
    guidance, calls = config.guidance, 0
    draws = torch.Generator().manual_seed(config.seed)
    for step in range(0, config.steps, config.replay.steps_per_target):
        plan = plan_step(guidance, step, config.steps, num_timesteps=schedule.num_timesteps, generator=draws)
        calls += predictor_calls(guidance, plan, schedule)
    return calls


def stages_within(
    config: RunConfig, stages: StagesConfig, schedule: NoiseSchedule, field: Path
) -> tuple[RunConfig, RunConfig]:
    """Return both stages, with as many steps as take the calls of one run of the config."""

    def both(steps: int) -> tuple[RunConfig, RunConfig]:
        settings = replace(config, steps=steps)
        return field_stage(settings, stages), splat_stage(settings, stages, field)

    budget = planned_calls(config, schedule)
    candidates = map(both, range(config.steps // 2, 2 * config.steps))
    return min(candidates, key=lambda pair: abs(sum(planned_calls(stage, schedule) for stage in pair) - budget))


def trained(config: RunConfig, folder: Path) -> tuple[Trainer, dict[str, float]]:
    """Run as the command does, and return the costs in its log."""
    started = time.process_time()
    trainer, run = prepare_run(replace(config, outputs=QUIET), device=CPU, folder=folder)
    train(trainer, run)
    seconds = time.process_time() - started
    save_state(trainer, run)
    calls = sum(record["predictor_calls"] for record in run.read_steps())
    return trainer, {"predictor_calls": calls, "cpu_seconds": seconds, "steps": trainer.step}


def run_one(config: RunConfig, arm: str, picture: Path) -> dict[str, Any]:
    """Train, score, and save a row of views; with two stages also of the field and of the first splats."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if arm in ("cold", "field"):
            kind = "gaussians" if arm == "cold" else "ngp"
            trainer, costs = trained(replace(config, representation=kind), folder / arm)
            shown: list[Representation] = [trainer.scene.representation]
            more: dict[str, Any] = {}
        else:
            shown, costs, more = _two_stages(config, TRIALS.get(arm, StagesConfig()), folder)
    ring = ring_cameras(config.cameras, 2 * SHEET_VIEWS, SHEET_SIZE, elevation_deg=15.0)
    views = torch.cat([render_views(scene, ring).rgb[:SHEET_VIEWS] for scene in shown])
    save_contact_sheet(picture, views, columns=len(views), overwrite=True)
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        **costs,
        **more,
        **score_scene(shown[-1], config.prompt).as_json(),
    }


def _two_stages(
    config: RunConfig, stages: StagesConfig, folder: Path
) -> tuple[list[Representation], dict[str, float], dict[str, Any]]:
    """Return scores and costs of the field, the first splats and the last."""
    schedule = load_prior(config, device=CPU).schedule
    first, second = stages_within(config, stages, schedule, folder / "field")
    trainer, costs = trained(first, folder / "field")
    field = trainer.scene.representation
    # The second run starts from the same cloud: its generator has the same seed.
    start, _ = prepare_run(second, device=CPU, folder=folder / "start")
    splats = start.scene.representation
    trainer, later = trained(second, folder / "splats")
    cameras = held_out_cameras(IMAGE_SIZE)
    alike = metrics.psnr(render_views(splats, cameras).rgb, render_views(field, cameras).rgb).mean().item()
    more: dict[str, Any] = {"psnr_first_to_field": alike, "field_steps": first.steps}
    for name, scene in (("field", field), ("first", splats)):
        scores = score_scene(scene, config.prompt).as_json()
        more |= {f"{key}_{name}": scores[key] for key in ("psnr_best", "iou_best", "view_accuracy")}
    total = {name: value + later[name] for name, value in costs.items()}
    return [field, splats, trainer.scene.representation], total, more


def ensure(results: Path, arm: str, config: RunConfig) -> None:
    """Make a result unless it exists."""
    stem = results / arm / f"{slug(config.prompt)}-{config.seed}"
    if stem.with_suffix(".json").exists():
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    result = run_one(config, arm, stem.with_suffix(".png"))
    # Written atomically, for the other process.
    write_atomically(stem.with_suffix(".json"), json.dumps(result, indent=1).encode())
    print(
        f"{arm:16} {config.prompt:28} {config.seed} PSNR {result['psnr_best']:5.2f} IoU {result['iou_best']:.3f} "
        f"calls {result['predictor_calls']:4d} {result['cpu_seconds']:5.1f} s",
        flush=True,
    )


def means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Average over the runs of an arm; scores that do not apply to an object are left out."""
    keys = [*COLUMNS, *(key for key in rows[0] if key.startswith("psnr_") and key not in COLUMNS)]
    found = {key: [float(row[key]) for row in rows if row[key] is not None] for key in keys}
    return {key: mean(values) for key, values in found.items() if values} | {"runs": len(rows)}


def table(results: Path, arms: dict[str, str]) -> list[str]:
    """Format one line per arm; differences of PSNR are paired by prompt and seed, with their standard error."""
    heads = [name for name, _ in COLUMNS.values()]
    reference = next(iter(arms))
    lines = [f"| arm | {' | '.join(heads)} | PSNR against `{reference}` | runs |", "|---" * (len(heads) + 3) + "|"]
    paired = {(row["prompt"], row["seed"]): row["psnr_best"] for row in rows_of(results, reference)}
    for arm, words in arms.items():
        rows = rows_of(results, arm)
        if not rows:
            continue
        average = means(rows)
        cells = [format(average[key], form) if key in average else "–" for key, (_, form) in COLUMNS.items()]
        pairs = [(row["psnr_best"], paired.get((row["prompt"], row["seed"]))) for row in rows]
        gains = [own - other for own, other in pairs if other is not None]
        gain = "–"
        if arm != reference and len(gains) > 1:
            gain = f"{mean(gains):+.2f} ± {stdev(gains) / len(gains) ** 0.5:.2f}"
        lines.append(f"| {words} | {' | '.join(cells)} | {gain} | {len(rows)} |")
    return [*lines, ""]


def stage_table(results: Path) -> list[str]:
    """Format run by run: the field, the first splats and the last, compared with a cold start."""
    cold = {(row["prompt"], row["seed"]): row for row in rows_of(results, "cold")}
    lines = ["| prompt | seed | field | first splats | their PSNR to the field | end | cold start |", "|---" * 7 + "|"]
    for row in rows_of(results, "two-stage"):
        other = cold.get((row["prompt"], row["seed"]))
        scores = [row["psnr_best_field"], row["psnr_best_first"], row["psnr_first_to_field"], row["psnr_best"]]
        cells = [format(score, ".2f") for score in scores]
        cells.append("–" if other is None else format(other["psnr_best"], ".2f"))
        lines.append(f"| {row['prompt']} | {row['seed']} | {' | '.join(cells)} |")
    return [*lines, ""]


def sheet(results: Path, path: Path) -> None:
    """Draw a row per prompt, seed 0: front and side of the field, of the first splats and of the last."""
    from PIL import Image

    files = [results / "two-stage" / f"{slug(prompt)}-0.png" for prompt in PROMPTS]
    rows = [Image.open(file).convert("RGB") for file in files if file.exists()]
    if rows:
        width, height = rows[0].size
        page = Image.new("RGB", (width, height * len(rows)), "white")
        for line, row in enumerate(rows):
            page.paste(row, (0, line * height))
        page.save(path, optimize=True)


def main() -> None:
    """Parse the arguments, make missing results, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="where results are kept")
    parser.add_argument("--docs", type=Path, help="folder of warm-start.md, whose tables and picture are written")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--part", default="1/1", help="k/n: only every n-th run, from the k-th on")
    parser.add_argument("--trials", action="store_true", help="only the settings of the stages, at half the steps")
    options = parser.parse_args()
    preset = preset_named("toybox-ideal").config
    if options.trials:
        config = replace(preset, prompt=TRIAL_PROMPT, seed=TRIAL_SEED, steps=TRIAL_STEPS)
        runs = [(arm, config) for arm in TRIALS]
    else:
        configs = [replace(preset, prompt=prompt, seed=seed) for prompt in options.prompts for seed in options.seeds]
        runs = [(arm, config) for config in configs for arm in options.arms]
    part, parts = map(int, options.part.split("/"))
    for arm, config in runs[part - 1 :: parts]:
        ensure(options.results, arm, config)
    if options.docs is not None:
        lines = table(options.results, ARMS) + stage_table(options.results)
        insert_table(options.docs / "warm-start.md", "\n".join(lines), MARKS)
        sheet(options.results, options.docs / "warm-start.png")
    everything = [*ARMS, *TRIALS]
    print(json.dumps({arm: means(rows) for arm in everything if (rows := rows_of(options.results, arm))}))


if __name__ == "__main__":
    main()
