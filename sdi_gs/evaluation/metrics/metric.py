"""The protocol of metrics, their input, and the rows that they add to the printed table.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.evaluation.extent import Extent, Matter, extent_of, matter_of
from sdi_gs.evaluation.networks.kept import Networks
from sdi_gs.evaluation.protocol_views import Shown, cameras_of, shown_views
from sdi_gs.pictures.views import render_views
from sdi_gs.runs.loading import RunOrigin
from sdi_gs.settings.protocols import ORBIT, ViewProtocol
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.scoring import Role
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.truth import NUM_DRAWS, held_out_cameras
from sdi_gs.toybox.truth_renders import TruthRenders

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
    protocol: ViewProtocol = ORBIT
    """From where ``shown`` is seen."""
    prompts: tuple[str, ...] = ()
    """The prompts among which a picture has to find its own; with fewer than two there is nothing to find."""
    networks: Networks = field(default_factory=Networks)
    """The networks of the learned metrics, which all subjects of an evaluation share."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Embeddings of ``shown`` by network, for the metrics that share them."""
    truth_renders: TruthRenders | None = None
    """Renders of true objects in the held-out views that earlier subjects left; None for this subject's own."""

    @cached_property
    def cameras(self) -> CameraBatch:
        """V = 24 held-out cameras around the scene."""
        return held_out_cameras(self.image_size)

    @cached_property
    def views(self) -> RenderOutput:
        """Renders of the held-out cameras over white: rgb [V, H, W, 3] in [0, 1], alpha [V, H, W, 1], on the CPU."""
        return render_views(self.representation, self.cameras)

    @cached_property
    def truth(self) -> TruthRenders:
        """Renders of true objects in the held-out views, which the metrics share."""
        return TruthRenders(self.cameras) if self.truth_renders is None else self.truth_renders

    @cached_property
    def matter(self) -> Matter | None:
        """The points that the scene is made of; None where nothing is visible."""
        return matter_of(self.representation)

    @cached_property
    def extent(self) -> Extent | None:
        """Where it is and how large; None where nothing is visible."""
        return extent_of(self.representation, self.matter)

    @cached_property
    def shown(self) -> Shown:
        """The protocol's pictures."""
        return shown_views(self.representation, cameras_of(self.protocol, self.extent), self.protocol)

    def embeddings(self, role: Role) -> Tensor:  # [V, D] unit
        """Return the embeddings of the protocol's pictures by the CLIP network of a role."""
        source = self.networks.options.source(role)
        if source not in self.kept:
            self.kept[source] = self.networks.clip(role).pictures(self.shown.rgb)
        return self.kept[source]


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
        # "- (-)" says no more than "-", and "no (-)" no more than "no".
        score, ceiling, floor = (text.removesuffix(" (-)") for text in values)
        return title, score, ceiling, floor


def has_value(cells: Sequence[str]) -> bool:
    """Return whether any of a row's or a column's texts says something."""
    return any(set(text) - set("- (),") for text in cells)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, or several that are computed together."""

    name: str
    """Value of ``--metrics``."""
    compute: Callable[[Subject], dict[str, Any]]
    """Return the scores by key: numbers, texts, booleans and None, which JSON can hold."""
    needs_truth: bool = False
    """Whether it is computed for toybox prompts only."""
    why_not: Callable[[Subject], str | None] = lambda _: None
    """Return why it cannot be computed here, such as without its network; None where it can."""
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
