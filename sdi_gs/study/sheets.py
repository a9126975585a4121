"""Contact sheets of a study: the arms side by side, a row per prompt.

Letters: A arms, P prompts, H W pixels.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sdi_gs.batch.state import BatchState
from sdi_gs.files import disk_errors, write_atomically
from sdi_gs.pictures.images import to_uint8
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.runs.loading import load
from sdi_gs.study.plan import Plan, PlannedRun
from sdi_gs.study.results import is_finished

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

SIDE, VIEWS = 96, 2
"""Pixels of a view, and views of each object: from the front, and from behind."""
MARGIN, HEAD = 116, 34
"""Pixels left of the pictures, for the prompts, and above them, for the arms."""
TEXT_SIZE, LETTERS = 11, (15, 27)
"""Pixels of a letter, and letters in a line of a prompt and of an arm."""
QUALITY = 88
"""Of the WebP file, up to 100: colours stay, and a sheet of a study has tens of kilobytes."""


def write_sheets(plan: Plan, state: BatchState, runs: Path, out: Path) -> list[Path]:
    """Write a sheet for every setting and budget of the first seed's complete groups, over earlier ones."""
    groups = [group for group in plan.groups if all(is_finished(state, run) for run in group)]
    seed = min((group[0].config.seed for group in groups), default=0)
    paths = []
    for setting in plan.study.settings:
        for budget in plan.study.budgets:
            rows: dict[str, dict[str, PlannedRun]] = {}
            for run in (run for group in groups for run in group):
                if (run.setting, run.config.seed, run.budget) == (setting.name, seed, budget):
                    rows.setdefault(run.plain_prompt, {})[run.arm] = run
            arms = [arm for arm in plan.study.arms if any(arm.name in row for row in rows.values())]
            if not arms:
                continue
            pictures = [[_picture(row.get(arm.name), runs) for arm in arms] for row in rows.values()]
            path = out / f"sheet-{setting.name}-{budget}.webp"
            with disk_errors(out):
                out.mkdir(parents=True, exist_ok=True)
            sheet = labelled_sheet(pictures, rows=list(rows), columns=[arm.title for arm in arms])
            write_atomically(path, sheet, overwrite=True)
            paths.append(path)
    return paths


def labelled_sheet(pictures: Sequence[Sequence[np.ndarray]], *, rows: Sequence[str], columns: Sequence[str]) -> bytes:
    """Return a WebP file of P x A pictures [H, W, 3] of bytes, with a text for every row and every column."""
    from PIL import Image, ImageDraw

    grid = np.concatenate([np.concatenate(row, axis=1) for row in pictures])
    height, width, _ = pictures[0][0].shape
    sheet = Image.new("RGB", (MARGIN + grid.shape[1], HEAD + grid.shape[0]), "white")
    sheet.paste(Image.fromarray(grid), (MARGIN, HEAD))
    draw, font = ImageDraw.Draw(sheet), _font()
    for index, text in enumerate(columns):
        lines = "\n".join(textwrap.wrap(text, LETTERS[1])[:2])
        draw.multiline_text((MARGIN + (index + 0.5) * width, HEAD / 2), lines, "black", font, "mm", align="center")
    for index, text in enumerate(rows):
        lines = "\n".join(textwrap.wrap(text, LETTERS[0]))
        draw.multiline_text((6, HEAD + (index + 0.5) * height), lines, "black", font, "lm")
    encoded = io.BytesIO()
    sheet.save(encoded, "WEBP", quality=QUALITY, method=6)
    return encoded.getvalue()


def _picture(run: PlannedRun | None, runs: Path) -> np.ndarray:  # [H, W, 3] uint8
    """Return a run's object from both sides, side by side; white where there is none."""
    if run is None:
        return np.full((SIDE, VIEWS * SIDE, 3), 255, dtype=np.uint8)
    made = load(run.row.folder(runs), device=torch.device("cpu")).representation
    views = render_views(made, ring_cameras(run.config.cameras, VIEWS, SIDE, elevation_deg=15.0)).rgb
    return to_uint8(torch.cat(list(views), dim=1))


def _font() -> FreeTypeFont | ImageFont:
    """Return the font of figures, which has Greek letters and signs; without matplotlib PIL's own, which has none."""
    from PIL import ImageFont

    try:
        from matplotlib import get_data_path
    except ImportError:
        return ImageFont.load_default(TEXT_SIZE)
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT_SIZE)
