"""Score several scenes in one process; what failed is scored as a blank picture and stays in every mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.evaluation.evaluate import Evaluation, evaluate, truth_renders_for
from sdi_gs.evaluation.foreign_scenes import BlankScene
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE, Metric
from sdi_gs.evaluation.networks.kept import Networks
from sdi_gs.runs.loading import SavedScene
from sdi_gs.settings.protocols import ORBIT, ViewProtocol
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.truth import NUM_DRAWS
from sdi_gs.toybox.truth_renders import TruthRenders


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One scene to score."""

    path: Path
    """Of a run, a checkpoint or a file."""
    prompt: str | None = None
    """What it should show; None for the run's own prompt."""
    seed: int | None = None
    """Seed of its run; None for the run's own, and for files."""
    failure: str | None = None
    """Why there is nothing to open; None where there should be something."""
    may_fail: bool = False
    """Whether a scene that cannot be opened counts as failed, as a batch's row does, instead of ending all."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One scene with its scores."""

    entry: Entry
    evaluation: Evaluation
    """Of the scene, or of a blank picture in its place."""
    seed: int | None
    """Seed of its run; None for a file."""
    failure: str | None
    """Why there was no scene; None where there was one."""

    def as_json(self) -> dict[str, Any]:
        """Return a line of the report."""
        return {
            "source": str(self.entry.path),
            "prompt": self.evaluation.prompt,
            "seed": self.seed,
            "failed": self.failure,
            "scores": dict(self.evaluation.scores),
        }


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How scenes are scored."""

    metrics: Sequence[Metric] | None = None
    """None for all that apply and whose networks are here."""
    num_draws: int = NUM_DRAWS
    image_size: int = IMAGE_SIZE
    """Side of the views that are compared with truth."""
    ceiling_of: Callable[[SavedScene], RunConfig | None] = lambda _: None
    """The settings that a scene's ceiling is fitted with; None for no ceiling."""
    protocol: ViewProtocol = ORBIT
    prompts: tuple[str, ...] = ()
    """Prompts beside the scenes' own, among which a picture has to find its own."""
    networks: Networks = field(default_factory=Networks)

    @cached_property
    def truth_renders(self) -> TruthRenders:
        """Renders of true objects, for all scenes."""
        return truth_renders_for(self.image_size)

    def of(self, scene: SavedScene, prompt: str | None = None) -> Evaluation:
        """Score one scene (UserError as ``evaluate``)."""
        return evaluate(
            scene,
            prompt,
            metrics=self.metrics,
            num_draws=self.num_draws,
            image_size=self.image_size,
            ceiling_config=self.ceiling_of(scene),
            protocol=self.protocol,
            prompts=self.prompts,
            networks=self.networks,
            truth_renders=self.truth_renders,
        )


def score_all(
    entries: Iterable[Entry],
    scoring: Scoring,
    *,
    open_scene: Callable[[Path], SavedScene],
    done: Callable[[Scored], None] = lambda _: None,
) -> list[Scored]:
    """Score every entry; ``done`` gets each when it is scored.

    The prompts of all entries are those among which a picture has to find its own. Raises UserError where a scene
    cannot be opened that may not fail, and where a metric that was named cannot be computed.
    """
    entries = list(entries)
    if len(entries) > 1:
        entries = [_with_prompt(entry, open_scene) for entry in entries]
    prompts = [*scoring.prompts, *(entry.prompt for entry in entries if entry.prompt is not None)]
    scoring = replace(scoring, prompts=tuple(dict.fromkeys(prompts)))
    found = []
    for entry in entries:
        scored = _score(entry, scoring, open_scene)
        done(scored)
        found.append(scored)
    return found


def _with_prompt(entry: Entry, open_scene: Callable[[Path], SavedScene]) -> Entry:
    """Return an entry with its run's prompt, which the pictures of all others have to be told from."""
    if entry.prompt is not None or entry.failure is not None:
        return entry
    return replace(entry, prompt=open_scene(entry.path).prompt)


def _score(entry: Entry, scoring: Scoring, open_scene: Callable[[Path], SavedScene]) -> Scored:
    failure, scene, seed = entry.failure, None, entry.seed
    if failure is None:
        try:
            scene = open_scene(entry.path)
        except UserError as error:
            if not entry.may_fail:
                raise
            failure = " ".join(str(error).split())
    if scene is None:
        scene = SavedScene(representation=BlankScene(), path=entry.path, run=None)
        scoring = replace(scoring, ceiling_of=lambda _: None)
    elif scene.run is not None and seed is None:
        seed = scene.run.config.seed
    return Scored(entry=entry, evaluation=scoring.of(scene, entry.prompt), seed=seed, failure=failure)
