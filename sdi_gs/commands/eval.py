"""``sdi-gs eval``: the scores of finished scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sdi_gs.commands.common import pick_device, print_paths
from sdi_gs.commands.defaults import CPU_PRESET
from sdi_gs.configs.presets import preset_named
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.files import is_there, refuse_existing, refuse_used_folder
from sdi_gs.settings.bounds import Range, check_settings
from sdi_gs.settings.cameras import LookConfig
from sdi_gs.settings.frames import Frame
from sdi_gs.settings.protocols import ProtocolName, ViewOptions, protocol_with
from sdi_gs.settings.scoring import NetworkOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdi_gs.evaluation.many import Entry, Scored, Scoring
    from sdi_gs.evaluation.metrics.metric import Metric
    from sdi_gs.runs.loading import SavedScene
    from sdi_gs.settings.run import RunConfig

LayoutName = Literal["gpteval3d", "t3bench"]


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Score scenes (docs/eval.md); scores against truth exist for toybox prompts only."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE|BATCH")]
    """Run folders (their latest checkpoints are scored), checkpoints, splat files, meshes, folders of batches."""
    prompt: str | None = None
    """What the scenes should show; needed for files, a run's own prompt if not given."""
    json: bool = False
    """Print one JSON object and nothing else."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics to compute; all that apply and whose networks are here if not given (auto)."""
    protocol: ProtocolName = "orbit"
    """Cameras, size and background of the pictures that the metrics without a truth see."""
    views: ViewOptions = field(default_factory=ViewOptions)
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    prompts: Path | None = None
    """List of prompts that r-precision chooses among, beside the scenes' own: as sdi-gs batch takes it."""
    key: str | None = None
    """Which list of a prompt library (.json) --prompts means, where it holds several."""
    draws: Annotated[int, Range(1, 4096)] = 32
    """K of "best of K": random objects that the prompt may mean."""
    ceiling: bool = False
    """Also fit the same representation to true views, with the run's steps and until it converges."""
    image_size: Annotated[int, Range(16, 512)] = 64
    """Side of the 24 held-out views that are compared with truth, in pixels."""
    out: Path | None = None
    """File for the JSON object, which must not exist."""
    report: Path | None = None
    """New folder for eval.json (manifest, means, all scenes) and eval.jsonl (a line per scene)."""
    layout: LayoutName | None = None
    """Write pictures and normals into the folders that this tool reads, and score nothing; needs --report."""
    camera: LookConfig = LookConfig()
    frame: Frame = "viewer"
    """Axes that files have: those of viewers, or those of training."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_settings(self)


def evaluate_scene(options: Eval) -> int:
    """Score scenes; print the scores and write them to ``out`` and ``report``."""
    from sdi_gs.evaluation.many import Scoring, score_all
    from sdi_gs.evaluation.networks.kept import Networks
    from sdi_gs.evaluation.opening import open_scored
    from sdi_gs.evaluation.printing import print_scored

    metrics = _metrics(options)
    protocol = protocol_with(options.protocol, options.views)
    if options.out is not None:
        refuse_existing(options.out)
    if options.report is not None:
        refuse_used_folder(options.report)
    entries = _entries(options)
    device = pick_device(options.device)

    def open_scene(path: Path) -> SavedScene:
        return open_scored(path, device=device, frame=options.frame, look=options.camera, say=say)

    if options.layout is not None:
        return _write_layout(options, entries, open_scene)
    scoring = Scoring(
        metrics=metrics,
        num_draws=options.draws,
        image_size=options.image_size,
        ceiling_of=_ceiling_config if options.ceiling else lambda _: None,
        protocol=protocol,
        prompts=_listed_prompts(options),
        networks=Networks(options.networks, device=device),
    )
    scored = score_all(entries, scoring, open_scene=open_scene)
    alone = len(scored) == 1 and scored[0].failure is None
    _write(options, scored, scoring, device=str(device), alone=alone)
    if not options.json:
        print_scored(scored, alone=alone)
    for line in dict.fromkeys(one.evaluation.left_out for one in scored):
        if line is not None:
            say(line)
    return 0


def _metrics(options: Eval) -> list[Metric] | None:
    """Return the named metrics; None for all that can be computed."""
    from sdi_gs.evaluation.metrics.table import metric_named

    names = [name for given in options.metrics for name in given.split(",") if name]
    if not names or names == ["auto"]:
        return None
    return [metric_named(name) for name in dict.fromkeys(names)]


def _entries(options: Eval) -> list[Entry]:
    """Return what is to be scored; a batch's rows in its order."""
    from sdi_gs.batch.journal import JOURNAL
    from sdi_gs.evaluation.many import Entry

    if not options.sources:
        raise UserError("nothing to score: give a run folder, a checkpoint, a file or a batch's folder")
    found: list[Entry] = []
    for path in options.sources:
        if is_there(path) and (path / JOURNAL).is_file():
            found += _rows_of(path, options.prompt)
        else:
            found.append(Entry(path=path, prompt=options.prompt))
    return found


def _rows_of(batch: Path, prompt: str | None) -> list[Entry]:
    """Return a batch's rows that are made or failed; UserError where there is none."""
    from sdi_gs.batch.state import replay
    from sdi_gs.evaluation.many import Entry

    rows, left = [], 0
    for known in replay(batch).rows:
        row = known.row
        if known.status in ("finished", "failed"):
            failure = None if known.status == "finished" else known.reason or "failed"
            folder = row.folder(batch)
            rows.append(Entry(path=folder, prompt=prompt or row.prompt, seed=row.seed, failure=failure, may_fail=True))
        else:
            left += 1
    if not rows:
        raise UserError(f"{batch} is a batch with nothing to score: none of its {left} rows is made")
    if left:
        say(f"{batch}: {left} row{'s' * (left > 1)} not made yet, left out")
    return rows


def _listed_prompts(options: Eval) -> tuple[str, ...]:
    from sdi_gs.files.prompt_lists import read_prompts

    if options.prompts is None:
        if options.key is not None:
            raise UserError(f"--key {options.key} chooses a list of a prompt library: add --prompts FILE")
        return ()
    return tuple(dict.fromkeys(row.prompt for row in read_prompts(options.prompts, options.key)))


def _ceiling_config(scene: SavedScene) -> RunConfig:
    return scene.run.config if scene.run is not None else preset_named(CPU_PRESET).config


def _write(options: Eval, scored: list[Scored], scoring: Scoring, *, device: str, alone: bool) -> None:
    """Print and write the JSON objects that were asked for: the scores of a single scene, the report of several."""
    import json

    from sdi_gs.evaluation.report import report_json, write_report
    from sdi_gs.files import write_atomically

    report = report_json(scored, scoring, device=device) if options.report is not None or not alone else {}
    values = scored[0].evaluation.as_json() if alone else report
    if options.report is not None:
        write_report(options.report, report)
    if options.out is not None:
        write_atomically(options.out, f"{json.dumps(values, indent=2)}\n".encode())
    if options.json:
        print(json.dumps(values))


def _write_layout(options: Eval, entries: list[Entry], open_scene: Callable[[Path], SavedScene]) -> int:
    """Write the folders of another tool, and print those of the scenes' pictures."""
    from sdi_gs.evaluation.layouts import write_layout

    assert options.layout is not None
    if options.report is None:
        raise UserError(f"--layout {options.layout} needs a new folder to write into: add --report FOLDER")
    folders = write_layout(options.report, options.layout, entries, open_scene=open_scene, views=options.views)
    print_paths(folders)
    return 0
