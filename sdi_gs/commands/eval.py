"""``sdi-gs eval``: the scores of a finished scene."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from sdi_gs.commands.common import pick_device
from sdi_gs.commands.defaults import CPU_PRESET
from sdi_gs.configs.presets import preset_named
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.files import refuse_existing, write_atomically
from sdi_gs.settings.bounds import Range, check_settings
from sdi_gs.settings.cameras import LookConfig
from sdi_gs.settings.frames import Frame


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Score a scene (docs/eval.md); scores against truth exist for toybox prompts only."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder (its latest checkpoint is scored), a checkpoint, or a splat file."""
    prompt: str | None = None
    """What the scene should show; needed for a splat file, the run's own prompt if not given."""
    json: bool = False
    """Print one JSON object and nothing else."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics to compute; all that apply to the prompt if not given."""
    draws: Annotated[int, Range(1, 4096)] = 32
    """K of "best of K": random objects that the prompt may mean."""
    ceiling: bool = True
    """Also fit the same representation to true views, with the run's steps and until it converges."""
    image_size: Annotated[int, Range(16, 512)] = 64
    """Side of the 24 held-out views in pixels."""
    out: Path | None = None
    """File for the JSON object, which must not exist."""
    camera: LookConfig = LookConfig()
    frame: Frame = "viewer"
    """Axes that a splat file has: those of splat viewers, or those of training."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_settings(self)


def evaluate_scene(options: Eval) -> int:
    """Score a scene; print the scores and write them to ``out``."""
    from sdi_gs.evaluation.evaluate import evaluate
    from sdi_gs.evaluation.metrics.table import metric_named
    from sdi_gs.runs.loading import load
    from sdi_gs.runs.showing import shown_scene

    metrics = [metric_named(name) for name in options.metrics]
    if options.out is not None:
        refuse_existing(options.out)
    scene = load(options.source, device=pick_device(options.device), frame=options.frame)
    config = scene.run.config if scene.run is not None else preset_named(CPU_PRESET).config
    if scene.run is None:
        shown = shown_scene(scene, options.camera)
        scene = replace(scene, representation=shown.representation)
        for remark in shown.remarks:
            say(remark)
    elif options.camera != LookConfig():
        raise UserError("--camera.* options are for files: a run is scored from its training cameras")
    evaluation = evaluate(
        scene,
        options.prompt,
        metrics=metrics or None,
        num_draws=options.draws,
        image_size=options.image_size,
        ceiling_config=config if options.ceiling else None,
    )
    scores = evaluation.as_json()
    if options.out is not None:
        write_atomically(options.out, f"{json.dumps(scores, indent=2)}\n".encode())
    if options.json:
        print(json.dumps(scores))
    else:
        evaluation.print()
    if evaluation.left_out is not None:
        say(evaluation.left_out)
    return 0
