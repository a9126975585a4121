"""Two objects in one prompt: are both there, each in its own colour, in the right relation?

``run --out FOLDER [--arm NAME ...] [--shard K/N]`` adds a line to FOLDER/runs-K.jsonl per run that is not there yet;
``table FOLDER`` prints a row per arm and per relation, and saves a sheet per arm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scored_runs import Shared, of_shard, parse_shard, shared_by, sheet, train_and_score

from sdi_gs.configs.presets import preset
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.captions import parse_prompt
from sdi_gs.toybox.sheet import PAIRS

ARMS: dict[str, dict[str, object]] = {
    "sds": {"guidance.noise": "random"},
    "sdi": {"guidance.noise": "inversion"},
    "sds-ngp": {"guidance.noise": "random", "representation": "ngp"},
    "sdi-ngp": {"guidance.noise": "inversion", "representation": "ngp"},
}
"""Settings over those of the preset ``toybox-ideal``."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or print, as the arguments ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--arm", action="append", choices=tuple(ARMS))
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    run.add_argument("--shard", type=parse_shard, default=(1, 1))
    table = commands.add_parser("table")
    table.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    if given.command == "run":
        run_all(given.out, given.arm or list(ARMS), given.seeds, given.shard)
    else:
        print_table(given.folder)


def run_all(out: Path, arms: Sequence[str], seeds: Sequence[int], shard: tuple[int, int]) -> None:
    """Run what has no line yet, prompt by prompt, so that runs of one prompt share their renders."""
    out.mkdir(parents=True, exist_ok=True)
    done = {(row["arm"], row["prompt"], row["seed"]) for row in rows_in(out)}
    for prompt in of_shard(PAIRS, shard):
        shared: Shared | None = None
        for arm in arms:
            for seed in seeds:
                if (arm, prompt, seed) in done:
                    continue
                config = arm_config(arm, prompt, seed)
                shared = shared or shared_by(config)
                name = f"{arm}-{prompt.replace(' ', '-')}-{seed}"
                scores = train_and_score(config, out / f"{name}.png", shared=shared)
                with (out / f"runs-{shard[0]}.jsonl").open("a") as file:
                    file.write(f"{json.dumps({'arm': arm, **scores})}\n")


def arm_config(arm: str, prompt: str, seed: int) -> RunConfig:
    """Return the settings of one run."""
    return preset("toybox-ideal", ARMS[arm], prompt=prompt, seed=seed)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return all finished runs of a folder."""
    files = sorted(folder.glob("runs-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def print_table(folder: Path) -> None:
    """Print a row per arm, then one per relation of every arm, and save a sheet per arm."""
    rows = rows_in(folder)
    print("| arm | runs | both, own colours | swapped | relation | judge: class, colour | PSNR | IoU | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for arm in ARMS:
        of_arm = [row for row in rows if row["arm"] == arm]
        if not of_arm:
            continue
        print(line_of(arm, of_arm))
        for relation in dict.fromkeys(relation_of(row) for row in of_arm):
            print(line_of(f"{arm}: {relation}", [row for row in of_arm if relation_of(row) == relation]))
        first = min(row["seed"] for row in of_arm)
        names = [f"{arm}-{prompt.replace(' ', '-')}-{first}.png" for prompt in PAIRS]
        pictures = [folder / name for name in names if (folder / name).is_file()]
        if pictures:
            sheet(pictures, folder / f"sheet-{arm}.png")


def line_of(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line of the table."""
    judged_class = mean_of(rows, "first_judge_class", "second_judge_class")
    judged_colour = mean_of(rows, "first_judge_colour", "second_judge_colour")
    return (
        f"| {title} | {len(rows)} | {mean_of(rows, 'bound'):.0%} | {mean_of(rows, 'colours_swapped'):.0%} |"
        f" {mean_of(rows, 'relation_right'):.0%} | {judged_class:.2f}, {judged_colour:.2f} |"
        f" {mean_of(rows, 'psnr_free'):.1f} | {mean_of(rows, 'iou_free'):.3f} |"
        f" {mean_of(rows, 'loop_cpu_seconds'):.0f} |"
    )


def mean_of(rows: Sequence[Mapping[str, Any]], *keys: str) -> float:
    """Return the mean over rows and keys."""
    values = [float(row[key]) for row in rows for key in keys]
    return sum(values) / len(values)


def relation_of(row: Mapping[str, Any]) -> str:
    """Return the relation of a run's prompt."""
    second = parse_prompt(row["prompt"]).second
    assert second is not None
    return second.relation


if __name__ == "__main__":
    main()
