"""Shared by scripts that train in their own process: training and scoring a run, writing tables into pages."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from sdi_gs.evaluation.metrics.judge import judge_scene
from sdi_gs.evaluation.metrics.truth import score_scene
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.priors.catalog import load_prior
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.warm_up import warm_up
from sdi_gs.training.trainer import Trainer

Item = TypeVar("Item")

CPU = torch.device("cpu")


def train_and_score(config: RunConfig, picture: Path) -> dict[str, Any]:
    """Train, score, and save a row of four views.

    ``train_seconds`` include loading and the warm-up; ``loop_seconds`` are the warm steps only.
    """
    started = time.perf_counter()
    trainer = Trainer(config, load_prior(config, device=CPU), device=CPU)
    warm_up(trainer)
    loop_started, cpu_started, calls = time.perf_counter(), time.process_time(), 0
    while trainer.step < config.steps:
        calls += trainer.train_step().predictor_calls
    ended, cpu_ended = time.perf_counter(), time.process_time()
    views = ring_cameras(config.cameras, 4, 96, elevation_deg=15.0)
    made = trainer.scene.representation
    save_contact_sheet(picture, render_views(made, views).rgb, columns=4, overwrite=True)
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        "steps": config.steps,
        "predictor_calls": calls,
        "train_seconds": ended - started,
        "loop_seconds": ended - loop_started,
        "loop_cpu_seconds": cpu_ended - cpu_started,
        "n_gaussians": made.num_points,
        **score_scene(made, config.prompt, floor=False).as_json(),
        **judge_scene(made, config.prompt).as_json(),
    }


def of_shard(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Return the k-th of every n items, for the k-th of n processes; k from 1."""
    number, count = shard
    return list(items[number - 1 :: count])


def parse_shard(text: str) -> tuple[int, int]:
    """Read "k/n" for argparse."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"a shard is k/n with k from 1 to n, as in 1/2, got {text}")
    return int(number), int(count)


def insert_table(page: Path, table: str, marks: tuple[str, str]) -> None:
    """Write tables between the page's two marks; raises SystemExit if the marks are missing."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(marks[0])
    _, ended, after = rest.partition(marks[1])
    if not (found and ended):
        raise SystemExit(f"{page} lacks the lines {marks[0]} and {marks[1]}, between which the tables go")
    page.write_text(f"{before}{marks[0]}\n\n{table}\n{marks[1]}{after}", encoding="utf-8")


def sheet(pictures: Sequence[Path], page: Path) -> None:
    """Save one picture of several runs: two per line, four views each."""
    from PIL import Image

    rows = [Image.open(picture) for picture in pictures]
    width, height = rows[0].size
    image = Image.new("RGB", (2 * width, height * ((len(rows) + 1) // 2)), "white")
    for index, row in enumerate(rows):
        image.paste(row, ((index % 2) * width, (index // 2) * height))
    image.save(page)
