"""Contact sheets of a study: the arms side by side, a row per prompt.

Letters: A arms, P prompts, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sdi_gs.batch.state import BatchState
from sdi_gs.pictures.images import save_contact_sheet
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.runs.loading import load
from sdi_gs.study.plan import Plan, PlannedRun
from sdi_gs.study.results import is_finished

SIDE, VIEWS = 96, 2
"""Pixels of a view, and views of each object: from the front, and from behind."""


def write_sheets(plan: Plan, state: BatchState, runs: Path, out: Path) -> list[Path]:
    """Write a sheet for every setting and budget of the first seed's complete groups, over earlier ones."""
    groups = [group for group in plan.groups if all(is_finished(state, run) for run in group)]
    seed = min((group[0].config.seed for group in groups), default=0)
    paths = []
    for setting in plan.study.settings:
        for budget in plan.study.budgets:
            rows = [
                [run for run in group if run.budget == budget]
                for group in groups
                if (group[0].setting, group[0].config.seed) == (setting.name, seed)
            ]
            by_prompt: dict[str, dict[str, PlannedRun]] = {}
            for run in (run for row in rows for run in row):
                by_prompt.setdefault(run.plain_prompt, {})[run.arm] = run
            arms = [arm for arm in plan.study.arms if any(arm.name in row for row in by_prompt.values())]
            if not arms:
                continue
            shown = [(arm.title, row.get(arm.name)) for row in by_prompt.values() for arm in arms]
            pictures = torch.stack([_picture(run, runs) for _, run in shown])
            path = out / f"sheet-{setting.name}-{budget}.png"
            _save(path, pictures, columns=len(arms), labels=[title for title, _ in shown])
            paths.append(path)
    return paths


def _picture(run: PlannedRun | None, runs: Path) -> Tensor:  # [H, W, 3] in [0, 1]
    """Return a run's object from both sides, side by side; white where there is none."""
    if run is None:
        return torch.ones(SIDE, VIEWS * SIDE, 3)
    made = load(run.row.folder(runs), device=torch.device("cpu")).representation
    views = render_views(made, ring_cameras(run.config.cameras, VIEWS, SIDE, elevation_deg=15.0)).rgb
    return torch.cat(list(views), dim=1)


def _save(path: Path, pictures: Tensor, *, columns: int, labels: Sequence[str]) -> None:
    # pictures: [P A, H, W, 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_contact_sheet(path, pictures, columns=columns, labels=labels, overwrite=True)
