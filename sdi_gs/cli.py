"""The program ``sdi-gs``: picks presets and devices, hands over to the parts, and turns errors into one line.

The only module that knows ``configs`` and the viewer. Whatever imports torch is imported where it is used.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never

from sdi_gs import __version__
from sdi_gs.backgrounds import BACKGROUND_COLOURS
from sdi_gs.command_line import (
    Command,
    Doctor,
    Eval,
    Export,
    Priors,
    Render,
    SplatFormat,
    Train,
    View,
    parse_command,
    peek,
)
from sdi_gs.configs.presets import preset_named
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.probe_config import ProbeOptions
from sdi_gs.run_config import RunConfig, differing_keys, flatten

if TYPE_CHECKING:
    import torch

    from sdi_gs.loading import SavedScene
    from sdi_gs.run_folder import RunFolder
    from sdi_gs.trainer import Trainer
    from sdi_gs.viewer.server import LiveViewer

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, what a shell reports of a program that Ctrl-C ended."""

CPU_PRESET = "toybox-ideal"
GPU_PRESET = "sd21-base"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C."""
    started = time.perf_counter()
    # Two OpenMP runtimes live in one process; threads of one that spin while waiting starve the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with _warnings_in_one_line():
            return _run(list(sys.argv[1:] if arguments is None else arguments), started)
    except UserError as error:
        say(f"sdi-gs: {' '.join(str(error).split())}")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        say("sdi-gs: stopped")
        return EXIT_INTERRUPTED
    except SystemExit as stop:
        # Help was shown.
        return int(stop.code or 0)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Say what this project warns a user of without the line of code that it comes from."""

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if category is UserWarning:
            say(f"sdi-gs: warning: {message}")
        else:
            usual(message, category, *place)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def _run(arguments: list[str], started: float) -> int:
    if arguments == ["--version"]:
        print(f"sdi-gs {__version__}")
        return 0
    command, chosen = _parse(arguments)
    match command:
        case Train():
            return _train(command, chosen, started)
        case Render():
            return _render(command)
        case View():
            return _view(command)
        case Export():
            return _export(command)
        case Eval():
            return _eval(command)
        case Doctor():
            return _doctor(command)
        case Priors():
            return _priors(command)
        case ProbeOptions():
            return _probe(command)
        case _:
            assert_never(command)


def _parse(arguments: list[str]) -> tuple[Command, str]:
    """The command with the defaults that fit it, and a word on how these were chosen."""
    defaults, chosen = _defaults(arguments)
    command = parse_command(arguments, train_defaults=defaults)
    if not isinstance(command, Train) or command.resume is not None:
        return command, chosen
    from dataclasses import replace

    from sdi_gs.planning.choice import tier_of_run

    tier = tier_of_run(command.tier, command.config.prior, device=_pick_device(command.device), say=say)
    if tier is None:
        return command, chosen
    # As defaults, so that what the user asked for by name stands.
    return parse_command(arguments, train_defaults=replace(defaults, compute=tier.compute)), chosen


def _defaults(arguments: list[str]) -> tuple[RunConfig, str]:
    """The settings that a command starts from, and why."""
    preset, prior, resume = (peek(arguments, name) for name in ("--preset", "--prior", "--resume"))
    if arguments[:1] != ["train"]:
        return preset_named(CPU_PRESET).config, ""
    if preset is not None:
        return preset_named(preset).config, f"preset {preset} as asked"
    if resume is not None:
        from sdi_gs.run import load_run_config

        return load_run_config(Path(resume)), f"settings of {resume}"
    if prior is not None:
        name = CPU_PRESET if prior == CPU_PRESET else GPU_PRESET
        return preset_named(name).config, f"preset {name} fits this prior"
    defaults = preset_named(CPU_PRESET).config
    command = parse_command(arguments, train_defaults=defaults)
    if isinstance(command, Train) and _pick_device(command.device).type == "cuda":
        return preset_named(GPU_PRESET).config, f"preset {GPU_PRESET}"
    return defaults, f"preset {CPU_PRESET}"


def _train(command: Train, chosen: str, started: float) -> int:
    from sdi_gs.planning.choice import tier_of_run
    from sdi_gs.run import keep_within_tier, prepare_resume, prepare_run

    device = _pick_device(command.device)
    if command.viewer:
        from sdi_gs.viewer.guard import free_port

        # Before anything is made: a viewer that cannot be had is no reason for half a run.
        free_port(command.viewer_host, command.viewer_port)
    if command.two_stage:
        return _train_two_stages(command, chosen, device, started)
    if command.resume is None:
        say(_choice_line(command.config, chosen, device, asked=command.device is not None))
        trainer, folder = prepare_run(command.config, device=device, folder=command.output_dir)
    else:
        _require_same_config(command, command.resume)
        say(_choice_line(command.config, chosen, device, asked=command.device is not None))
        trainer, folder = prepare_resume(command.resume, device=device)
        say(f"resuming {folder.path} after step {trainer.step} of {trainer.config.steps}")
        tier = tier_of_run(command.tier, command.config.prior, device=device, say=say)
        if tier is not None:
            keep_within_tier(trainer, folder, tier)
    return _train_until_stopped(trainer, folder, started, command)


def _train_two_stages(command: Train, chosen: str, device: torch.device, started: float) -> int:
    """A field, then splats that start from it, each a run of its own."""
    from sdi_gs.run import prepare_run
    from sdi_gs.two_stage import field_stage, splat_stage

    if command.resume is not None:
        raise UserError("--two-stage does not go with --resume: resume the stage that stopped, by its own folder")
    if command.config.gaussians.init is not None or command.config.gaussians.init_from is not None:
        raise UserError("--two-stage starts the splats from its own field: leave --init and --init-from out")
    out = command.output_dir
    say(_choice_line(command.config, chosen, device, asked=command.device is not None))
    first = field_stage(command.config, command.stages)
    if out is not None and out.exists():
        raise UserError(f"{out} exists and is never overwritten: choose another --output-dir")
    say(f"stage 1 of 2: a field, {first.steps} steps")
    trainer, field = prepare_run(first, device=device, folder=out and out.with_name(f"{out.name}-field"))
    code = _train_until_stopped(trainer, field, started, command)
    second = splat_stage(command.config, command.stages, field.path)
    if code:
        say(
            f"once the field is done, start the splats with this run's options, but for --two-stage: --init-from "
            f"{field.path} --steps {second.steps} --guidance.t-max {second.guidance.t_max} --guidance.random-fraction 0"
        )
        return code
    say(f"stage 2 of 2: splats from {field.path}, {second.steps} steps")
    trainer, folder = prepare_run(second, device=device, folder=out)
    return _train_until_stopped(trainer, folder, started, command)


def _train_until_stopped(trainer: Trainer, folder: RunFolder, started: float, command: Train) -> int:
    """Train, save and tell what was made; what Ctrl-C does is said in ``sdi_gs.interrupts``."""
    from sdi_gs.checkpoint import list_checkpoints
    from sdi_gs.console import training_progress
    from sdi_gs.interrupts import Interrupts, StoppedAtOnce
    from sdi_gs.run import Observer, finish, train

    resume_command = f"sdi-gs train --resume {folder.path}"
    try:
        with (
            Interrupts("stopping after this step, then saving; Ctrl-C once more stops at once") as interrupts,
            _viewer(command, trainer, folder, lambda: interrupts.requested) as viewer,
        ):
            with training_progress(trainer.config.steps, done=trainer.step) as show:
                observers: list[Observer] = [lambda _, report: show(report)]
                complete = train(
                    trainer,
                    folder,
                    observers=observers if viewer is None else [*observers, viewer.observe],
                    should_stop=lambda: interrupts.requested or (viewer is not None and viewer.stop_requested),
                    say=say,
                )
            say("saving and exporting")
            if viewer is not None:
                viewer.saving()
            summary = finish(trainer, folder, started=started)
            if viewer is not None and command.viewer_keep_open and not interrupts.requested:
                say("the viewer stays open; Ctrl-C closes it")
                viewer.keep_open(lambda: interrupts.requested)
    except StoppedAtOnce:
        saved = list_checkpoints(folder.checkpoints)
        way_on = f"{saved[-1].name} is saved; go on with: {resume_command}" if saved else "no step had been saved"
        raise UserError(f"stopped at once; {way_on}") from None
    results = (folder.splats, folder.turntable, folder.contact_sheet, folder.summary)
    _print_paths([path for path in results if path.exists()])
    made = "a field" if summary["representation"] == "ngp" else f"{summary['n_exported']} Gaussians"
    print(f"{made}, {summary['wall_seconds']:.1f} s, peak memory {summary['peak_rss_mb']:.0f} MiB")
    if complete:
        return 0
    say(f"stopped after step {trainer.step} of {trainer.config.steps}; go on with: {resume_command}")
    return EXIT_INTERRUPTED


@contextmanager
def _viewer(
    command: Train, trainer: Trainer, folder: RunFolder, interrupted: Callable[[], bool]
) -> Iterator[LiveViewer | None]:
    """The live viewer while the body runs, if it was asked for."""
    if not command.viewer:
        yield None
        return
    from sdi_gs.viewer.server import LiveViewer

    with LiveViewer(
        trainer, folder, host=command.viewer_host, port=command.viewer_port, interrupted=interrupted
    ) as viewer:
        _print_address(viewer.address)
        yield viewer


def _print_address(address: tuple[str, list[str]]) -> None:
    line, remarks = address
    print(line, flush=True)
    for remark in remarks:
        say(remark)


def _require_same_config(command: Train, run: Path) -> None:
    """UserError where an option says otherwise than the run to be resumed."""
    from dataclasses import replace

    from sdi_gs.run import load_run_config
    from sdi_gs.run_config import config_to_dict

    if command.output_dir is not None:
        raise UserError(f"--output-dir does not go with --resume: the run goes on in {run}")
    saved = load_run_config(run)
    given = command.config if command.config.prompt else replace(command.config, prompt=saved.prompt)
    differing = differing_keys(saved, given)
    if differing:
        key = differing[0]
        before, now = (flatten(config_to_dict(config))[key] for config in (saved, given))
        raise UserError(
            f"{run} is a run of another config: its {key} is {before!r}, not {now!r}; "
            "leave that option (or --preset) out to resume it, or start a new run"
        )


def _choice_line(config: RunConfig, chosen: str, device: torch.device, *, asked: bool) -> str:
    """What will be used and why."""
    from sdi_gs.priors.catalog import CATALOG, TOYBOX_IDEAL

    if config.prior == TOYBOX_IDEAL.name:
        from sdi_gs.toybox.classes import CLASSES

        about = f"an instrument: it knows {len(CLASSES)} toy objects"
    else:
        known = {entry.name: entry.summary for entry in CATALOG}
        about = known.get(config.prior, "by path or hub id")
    return f"prior {config.prior} ({about}), {chosen}, device {device}: {_device_reason(device, asked)}"


def _device_reason(device: torch.device, asked: bool) -> str:
    if asked:
        return "as asked"
    if device.type == "cuda":
        import torch

        return f"found {torch.cuda.get_device_name(device)}"
    return "no CUDA device found"


def _pick_device(name: str | None) -> torch.device:
    """The named device, or the best one there is."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} means nothing: use cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported: use cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r} is not there, torch finds {torch.cuda.device_count()} CUDA devices: "
            "use --device cpu, or see sdi-gs doctor"
        )
    return device


def _render(command: Render) -> int:
    from sdi_gs.loading import load_scene
    from sdi_gs.rendering import render_to_folder

    written = render_to_folder(
        load_scene(command.source, device=_pick_device(command.device), frame=command.frame),
        out=command.out,
        size=command.size,
        num_frames=command.frames,
        num_views=command.views,
        elevation_deg=command.elevation,
        background=BACKGROUND_COLOURS[command.background],
        save_frames=command.save_frames,
    )
    _print_paths(written)
    return 0


def _view(command: View) -> int:
    from sdi_gs.interrupts import Interrupts
    from sdi_gs.loading import load_scene
    from sdi_gs.viewer.server import FinishedViewer

    device = _pick_device(command.device)
    splats = load_scene(command.source, device=device, frame=command.frame)
    with (
        Interrupts("closing the viewer") as interrupts,
        FinishedViewer(splats, host=command.host, port=command.port, device=device) as viewer,
    ):
        _print_address(viewer.address)
        viewer.serve_until(lambda: interrupts.requested)
    return 0


def _export(command: Export) -> int:
    from sdi_gs.files import refuse_existing
    from sdi_gs.loading import load_scene

    scene = load_scene(command.source)
    match command.format:
        case "ply" | "splat":
            return _export_splats(command, command.format, scene)
        case "glb" | "obj" | "ply-mesh":
            from sdi_gs.export.mesh import mesh_of_scene
            from sdi_gs.export.mesh_files import SUFFIXES, write_mesh

            out = _export_path(command, scene, kind="mesh", suffix=SUFFIXES[command.format])
            refuse_existing(out)
            mesh, report = mesh_of_scene(scene.representation, command.mesh)
            write_mesh(out, mesh, command.format, frame=command.frame)
            _print_paths([out])
            print(report.line())
            return 0
        case _:
            assert_never(command.format)


def _export_splats(command: Export, file_format: SplatFormat, scene: SavedScene) -> int:
    from sdi_gs.export.conversion import splat_cloud
    from sdi_gs.export.formats import write_splats
    from sdi_gs.run import ply_comments

    run, cloud = scene.run, splat_cloud(scene.gaussians)
    out = _export_path(command, scene, kind="splats", suffix=f".{file_format}")
    comments = ply_comments(run.config, run.step) if run is not None else [f"sdi-gs {__version__}"]
    report = write_splats(out, cloud, file_format, frame=command.frame, comments=comments)
    _print_paths([out])
    origin = f"after {run.step} steps" if run is not None else f"of {command.source}"
    print(f"{report.written} of {report.total} Gaussians, {origin}")
    if file_format == "splat" and cloud.sh_rest.shape[1]:
        say("a .splat holds one colour per Gaussian: what changed with the direction of view is left out")
    return 0


def _export_path(command: Export, scene: SavedScene, *, kind: Literal["splats", "mesh"], suffix: str) -> Path:
    """The file asked for, else one in the run folder, else one beside the source."""
    if command.out is not None:
        return command.out
    if scene.run is not None:
        return scene.run.folder.path / f"{kind}_step_{scene.run.step:06d}{suffix}"
    ending = "export" if kind == "splats" else "mesh"
    return command.source.with_name(f"{command.source.stem}-{ending}{suffix}")


def _eval(command: Eval) -> int:
    import json

    from sdi_gs.console import print_scores
    from sdi_gs.evaluation import evaluate
    from sdi_gs.files import refuse_existing, write_atomically
    from sdi_gs.loading import load_scene

    if command.out is not None:
        refuse_existing(command.out)
    splats = load_scene(command.source, device=_pick_device(command.device), frame=command.frame)
    config = splats.run.config if splats.run is not None else preset_named(CPU_PRESET).config
    scores = evaluate(
        splats,
        prompt=command.prompt,
        num_draws=command.draws,
        image_size=command.image_size,
        ceiling_config=config if command.ceiling else None,
    ).as_json()
    if command.out is not None:
        write_atomically(command.out, f"{json.dumps(scores, indent=2)}\n".encode())
    if command.json:
        print(json.dumps(scores))
    else:
        print_scores(scores)
    return 0


def _doctor(command: Doctor) -> int:
    import json

    from sdi_gs.doctor import diagnose, report_lines

    presets = {"cpu": CPU_PRESET, "cuda": GPU_PRESET}
    diagnosis = diagnose(
        presets_by_device={kind: (preset_named(name).config.prior, name) for kind, name in presets.items()}
    )
    print(json.dumps(diagnosis.as_json()) if command.json else "\n".join(report_lines(diagnosis)))
    return 0


def _priors(command: Priors) -> int:
    match command.action:
        case "list":
            import json

            from sdi_gs.priors.listing import known_priors, prior_status, status_lines

            statuses = known_priors() if command.name is None else [prior_status(command.name)]
            if command.json:
                print(json.dumps({"priors": [status.as_json() for status in statuses]}))
            else:
                print("\n".join(status_lines(statuses)))
        case "fetch":
            from sdi_gs.priors.listing import fetch_prior

            folder = fetch_prior(command.name or "", say=say)
            if folder is None:
                say(f"{command.name} has no weights: there is nothing to fetch")
            else:
                _print_paths([folder])
        case _:
            assert_never(command.action)
    return 0


def _probe(command: ProbeOptions) -> int:
    from sdi_gs.probe import run_probe

    _print_paths(run_probe(command, device=_pick_device(command.device)))
    return 0


def _print_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)
