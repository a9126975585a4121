"""The changes of the preset sd21-fast, made to the same recipe on toybox's network, against truth.

    python benchmarks/fast_steps.py --results fast-results                    # goes on where it stopped
    python benchmarks/fast_steps.py --results fast-results --docs docs/reports

Written down before the first run. The base is sd21-base's step on toybox's network: SDI with ten inversion steps,
Perp-Neg in every call, a loss in latents, new targets in every step. The arms change what sd21-fast changes, one by one
and together; together once for as many targets as the base has (four steps on each) and once for as many steps (a
quarter of the targets), between which Stable Diffusion's thousands of steps lie. Compared are PSNR, IoU, detail and the
judge's class and colour, arm minus base, prompt by prompt with one seed, with bootstrap intervals over prompts; PSNR
is the first of them. Prompts come first, so that an unfinished comparison is one of fewer prompts. The last line
printed is one JSON object.
"""

from __future__ import annotations

import os

# Two OpenMP runtimes whose idle threads spin cost more than the work; read when they are loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scored_runs import Shared, insert_table, shared_by, train_and_score

from sdi_gs.configs.presets import preset
from sdi_gs.files import write_atomically
from sdi_gs.runs.folder import slug
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.intervals import bootstrap
from sdi_gs.study.spec import TWELVE as PROMPTS

STEPS, PER_TARGET, VIEWS = 150, 4, 4
_CHEAPER = {"guidance.inversion_steps": 5, "guidance.perp_neg_calls": "last"}
_REPLAY = {"losses.space": "pixels", "replay.steps_per_target": PER_TARGET, "replay.views": 10 * VIEWS}

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("sd21-base's step", {}),
    "fast-targets": ("sd21-fast, as many targets", {**_CHEAPER, **_REPLAY, "steps": STEPS * PER_TARGET}),
    "fast-steps": ("sd21-fast, as many steps", {**_CHEAPER, **_REPLAY}),
    "five-steps": ("five inversion steps", {"guidance.inversion_steps": 5}),
    "perp-neg-last": ("Perp-Neg in the last call", {"guidance.perp_neg_calls": "last"}),
    "half-vae": ("VAE in float16", {"compute.vae_precision": "float16"}),
}
"""Title and changes of each arm."""

SCORES = {
    "psnr_best": ("PSNR", "+.1f"),
    "iou_best": ("IoU", "+.3f"),
    "detail": ("detail", "+.3f"),
    "judge_class": ("class", "+.3f"),
    "judge_colour": ("colour", "+.3f"),
}
MARKS = ("<!-- tables: benchmarks/fast_steps.py -->", "<!-- end of tables -->")


def arm_config(arm: str, prompt: str, seed: int) -> RunConfig:
    """Return the settings of one run."""
    base = {
        "steps": STEPS,
        "views_per_step": VIEWS,
        "losses.space": "latents",
        "replay.steps_per_target": 1,
        "replay.views": None,
        "guidance.noise": "inversion",
        "guidance.inversion_steps": 10,
        "guidance.perp_neg": True,
    }
    return preset("toybox", {**base, **ARMS[arm][1]}, prompt=prompt, seed=seed)


def run_missing(results: Path, arms: list[str], prompts: list[str], seed: int) -> None:
    """Make the runs that have no result yet, prompt by prompt."""
    shared: Shared | None = None
    for prompt in prompts:
        for arm in arms:
            kept = results / arm / f"{slug(prompt)}-{seed}.json"
            if kept.exists():
                continue
            kept.parent.mkdir(parents=True, exist_ok=True)
            config = arm_config(arm, prompt, seed)
            shared = shared or shared_by(config)
            scores = train_and_score(config, kept.with_suffix(".png"), shared=shared)
            write_atomically(kept, json.dumps(scores).encode())
            print(f"{arm}, {prompt}: {scores['psnr_best']:.1f} dB, {scores['loop_cpu_seconds']:.0f} CPU s", flush=True)


def report(results: Path, seed: int) -> dict[str, Any]:
    """Return each arm's mean scores, and its differences to the base over the prompts that both have."""
    found = {
        arm: {path.stem: json.loads(path.read_text()) for path in sorted((results / arm).glob(f"*-{seed}.json"))}
        for arm in ARMS
    }
    rows = {}
    for arm, runs in found.items():
        common = sorted(runs.keys() & found["base"].keys())
        if not common:
            continue
        names = [*SCORES, "predictor_calls", "loop_cpu_seconds"]
        means = {name: float(np.mean([runs[key][name] for key in common])) for name in names}
        apart = {}
        for name in SCORES:
            differences = np.array([[float(runs[key][name]) - float(found["base"][key][name])] for key in common])
            interval = bootstrap(differences)
            apart[name] = [interval.mean, interval.low, interval.high]
        rows[arm] = {"prompts": len(common), "means": means, "minus_base": apart}
    return {"rows": rows}


def table(rows: dict[str, Any]) -> str:
    """Format the comparison for the page."""
    heads = ("arm", "prompts", *(title for title, _ in SCORES.values()), "calls", "CPU s")
    lines = [heads, ("---",) * len(heads)]
    for arm, row in rows.items():
        cells = []
        for name, (_, form) in SCORES.items():
            mean, low, high = row["minus_base"][name]
            plain = form.removeprefix("+")
            cells.append(
                f"{row['means'][name]:{plain}}" if arm == "base" else f"{mean:{form}} [{low:{form}}, {high:{form}}]"
            )
        means = row["means"]
        lines.append(
            (
                *(ARMS[arm][0], row["prompts"], *cells),
                *(f"{means['predictor_calls']:.0f}", f"{means['loop_cpu_seconds']:.0f}"),
            )
        )
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    """Make the missing runs and print the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs' scores")
    parser.add_argument("--arms", nargs="*", choices=tuple(ARMS), default=list(ARMS), help="arms to run")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many prompts to run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docs", type=Path, help="folder of the page that gets the table, instead of running")
    options = parser.parse_args()
    if options.docs is None:
        run_missing(options.results, options.arms, list(PROMPTS[: options.prompts]), options.seed)
    found = report(options.results, options.seed)
    if options.docs is not None:
        insert_table(options.docs / "sd21.md", table(found["rows"]), MARKS)
    print(table(found["rows"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
