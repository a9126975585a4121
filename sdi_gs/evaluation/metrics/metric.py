"""The protocol of metrics, their input, and the rows that they add to the printed table.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.pictures.views import render_views
from sdi_gs.runs.loading import RunOrigin
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.truth import NUM_DRAWS, held_out_cameras

IMAGE_SIZE = 64
"""Side of the held-out views in pixels, that of the images which the toybox priors know."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A scene that is being scored."""

    representation: Representation
    run: RunOrigin | None
    """The run it was loaded from; None for a file and for a scene in memory."""
    prompt: str
    """What the scene should show."""
    toybox: ToyboxPrompt | None
    """The prompt as toybox understands it; None where it has no truth. Metrics with ``needs_truth`` never see None."""
    image_size: int = IMAGE_SIZE
    """Side of the held-out views in pixels."""
    num_draws: int = NUM_DRAWS
    """K of "best of K"."""
    ceiling_config: RunConfig | None = None
    """How the ceiling is fitted; None for no ceiling."""
    scores: dict[str, Any] = field(default_factory=dict)
    """The values of the metrics before this one, by key."""

    @cached_property
    def cameras(self) -> CameraBatch:
        """V = 24 held-out cameras around the scene."""
        return held_out_cameras(self.image_size)

    @cached_property
    def views(self) -> RenderOutput:
        """Renders of the held-out cameras over white: rgb [V, H, W, 3] in [0, 1], alpha [V, H, W, 1], on the CPU."""
        return render_views(self.representation, self.cameras)


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the printed table; each text may name scores by key in braces, such as ``{psnr_best}``."""

    title: str
    score: str
    ceiling: str = ""
    floor: str = ""

    def cells(self, scores: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """Return the four texts with the scores filled in; "-" stands for a score that was not computed."""
        shown = _Shown({key: _number(value) for key, value in scores.items()})
        title, *values = (text.format_map(shown) for text in (self.title, self.score, self.ceiling, self.floor))
        # "- (-)" says no more than "-".
        score, ceiling, floor = ("-" if text and set(text) <= set("- ()") else text for text in values)
        return title, score, ceiling, floor


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, or several that are computed together."""

    name: str
    """Value of ``--metrics``."""
    compute: Callable[[Subject], dict[str, Any]]
    """Return the scores by key: numbers, texts, booleans and None, which JSON can hold."""
    needs_truth: bool = False
    """Whether it is computed for toybox prompts only."""
    rows: tuple[TableRow, ...] | None = None
    """Its part of the printed table; None for a row per key."""

    def rows_for(self, values: Mapping[str, Any]) -> tuple[TableRow, ...]:
        """Return the rows of the printed table for computed values; none if the metric does not apply."""
        if not values:
            return ()
        if self.rows is not None:
            return self.rows
        return tuple(TableRow(title=key, score=f"{{{key}}}") for key in values)


class _Shown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "-"


def _number(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)
