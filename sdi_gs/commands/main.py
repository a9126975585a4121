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
from typing import TYPE_CHECKING, Any, assert_never

from sdi_gs import __version__
from sdi_gs.commands.options import (
    Command,
    Doctor,
    Eval,
    Export,
    Priors,
    Render,
    Train,
    View,
    parse_command,
    peek,
)
from sdi_gs.configs.presets import preset_for_prior, preset_named
from sdi_gs.console import say
from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS
from sdi_gs.settings.probe import ProbeOptions
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import differing_keys, flatten, with_values

if TYPE_CHECKING:
    import torch

    from sdi_gs.runs.folder import RunFolder
    from sdi_gs.training.trainer import Trainer
    from sdi_gs.viewer.server import LiveViewer

EXIT_CHECK_FAILED = 1
"""A check of ``doctor --full`` did not pass."""
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, what a shell reports of a program that Ctrl-C ended."""

CPU_PRESET = "toybox-ideal"
"""What a run without a GPU starts from if nothing is asked for, its prior included; one line to change, with the README
and docs/reports/evidence.md, which say why."""
GPU_PRESET = "sd21-base"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input (one line on stderr), 130 after Ctrl-C.

    ``doctor --full`` alone returns 1: where a check fails.
    """
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

    from sdi_gs.runs.memory_tier import tier_of_run

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
        from sdi_gs.runs.prepare import load_run_config

        return load_run_config(Path(resume)), f"settings of {resume}"
    if prior is not None:
        name = preset_for_prior(prior) or GPU_PRESET
        return preset_named(name).config, f"preset {name} fits this prior"
    defaults = preset_named(CPU_PRESET).config
    command = parse_command(arguments, train_defaults=defaults)
    if isinstance(command, Train) and _pick_device(command.device).type == "cuda":
        return preset_named(GPU_PRESET).config, f"preset {GPU_PRESET}"
    return defaults, f"preset {CPU_PRESET}"


def _train(command: Train, chosen: str, started: float) -> int:
    from sdi_gs.runs.loop import keep_within_tier
    from sdi_gs.runs.memory_tier import tier_of_run
    from sdi_gs.runs.prepare import prepare_resume, prepare_run
    from sdi_gs.runs.saving import change_settings

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
        levers = _require_same_config(command, command.resume)
        say(_choice_line(command.config, chosen, device, asked=command.device is not None))
        trainer, folder = prepare_resume(command.resume, device=device)
        if levers:
            change_settings(trainer, folder, with_values(trainer.config, levers))
        say(f"resuming {folder.path} after step {trainer.step} of {trainer.config.steps}")
        tier = tier_of_run(command.tier, command.config.prior, device=device, say=say)
        if tier is not None:
            keep_within_tier(trainer, folder, tier)
    return _train_until_stopped(trainer, folder, started, command)


def _train_two_stages(command: Train, chosen: str, device: torch.device, started: float) -> int:
    """A field, then splats that start from it, each a run of its own."""
    from sdi_gs.runs.prepare import prepare_run, require_kernels
    from sdi_gs.runs.two_stage import field_stage, splat_stage

    if command.resume is not None:
        raise UserError("--two-stage does not go with --resume: resume the stage that stopped, by its own folder")
    if command.config.gaussians.init is not None or command.config.gaussians.init_from is not None:
        raise UserError("--two-stage starts the splats from its own field: leave --init and --init-from out")
    out = command.output_dir
    say(_choice_line(command.config, chosen, device, asked=command.device is not None))
    first = field_stage(command.config, command.stages)
    if out is not None and out.exists():
        raise UserError(f"{out} exists and is never overwritten: choose another --output-dir")
    # The second stage is no time to learn that gsplat does not compile.
    require_kernels(device)
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
    """Train, save and tell what was made; what Ctrl-C does is said in ``sdi_gs.runs.interrupts``."""
    from sdi_gs.console import training_progress
    from sdi_gs.contracts import TunablePrior
    from sdi_gs.runs.checkpoint import list_checkpoints
    from sdi_gs.runs.finish import finish
    from sdi_gs.runs.interrupts import Interrupts, StoppedAtOnce
    from sdi_gs.runs.loop import Observer, train

    resume_command = f"sdi-gs train --resume {folder.path}"
    if trainer.config.compute.compile_unet and isinstance(trainer.prior, TunablePrior):
        say("compiling the U-Net: the first step takes minutes, and so does one with another number of views")
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
    made = trainer.scene.representation
    described = f"{summary['n_exported']} Gaussians" if made.splats() is not None else made.describe()
    print(f"{described}, {summary['wall_seconds']:.1f} s, peak memory {summary['peak_rss_mb']:.0f} MiB")
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


def _require_same_config(command: Train, run: Path) -> dict[str, Any]:
    """UserError where an option says otherwise than the run to be resumed.

    Levers of memory and speed may; the values of those that do are returned by their dotted names.
    """
    from dataclasses import replace

    from sdi_gs.runs.prepare import load_run_config
    from sdi_gs.settings.steering import TUNABLE
    from sdi_gs.settings.tree import config_to_dict

    if command.output_dir is not None:
        raise UserError(f"--output-dir does not go with --resume: the run goes on in {run}")
    saved = load_run_config(run)
    given = command.config if command.config.prompt else replace(command.config, prompt=saved.prompt)
    differing = differing_keys(saved, given)
    before, now = (flatten(config_to_dict(config)) for config in (saved, given))
    fixed = [key for key in differing if key not in TUNABLE]
    if fixed:
        key = fixed[0]
        raise UserError(
            f"{run} is a run of another config: its {key} is {before[key]!r}, not {now[key]!r}; "
            "leave that option (or --preset) out to resume it, or start a new run"
        )
    return {key: now[key] for key in differing}


def _choice_line(config: RunConfig, chosen: str, device: torch.device, *, asked: bool) -> str:
    """What will be used and why."""
    from sdi_gs.devices import device_reason
    from sdi_gs.priors.catalog import CATALOG, is_instrument

    if is_instrument(config.prior):
        from sdi_gs.toybox.classes import CLASSES

        about = f"an instrument: it knows {len(CLASSES)} toy objects"
    else:
        known = {entry.name: entry.summary for entry in CATALOG}
        about = known.get(config.prior, "by path or hub id")
    return f"prior {config.prior} ({about}), {chosen}, device {device}: {device_reason(device, asked=asked)}"


def _pick_device(name: str | None) -> torch.device:
    """``sdi_gs.devices.pick_device``, with torch imported only now."""
    from sdi_gs.devices import pick_device

    return pick_device(name)


def _render(command: Render) -> int:
    from sdi_gs.commands.render import render_to_folder
    from sdi_gs.runs.loading import load_scene

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
    from sdi_gs.runs.interrupts import Interrupts
    from sdi_gs.runs.loading import load_scene
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
    from sdi_gs.runs.export import default_path, export
    from sdi_gs.runs.export_formats import export_format
    from sdi_gs.runs.loading import load_scene

    scene, chosen = load_scene(command.source), export_format(command.format)
    path = command.out or default_path(scene, chosen)
    exported = export(scene, path, format=chosen, frame=command.frame, mesh=command.mesh)
    _print_paths([exported.path])
    print(exported.summary)
    if exported.remark is not None:
        say(exported.remark)
    return 0


def _eval(command: Eval) -> int:
    import json

    from sdi_gs.evaluation.evaluate import evaluate
    from sdi_gs.files import refuse_existing, write_atomically
    from sdi_gs.runs.loading import load_scene

    if command.out is not None:
        refuse_existing(command.out)
    splats = load_scene(command.source, device=_pick_device(command.device), frame=command.frame)
    config = splats.run.config if splats.run is not None else preset_named(CPU_PRESET).config
    evaluation = evaluate(
        splats,
        command.prompt,
        num_draws=command.draws,
        image_size=command.image_size,
        ceiling_config=config if command.ceiling else None,
    )
    scores = evaluation.as_json()
    if command.out is not None:
        write_atomically(command.out, f"{json.dumps(scores, indent=2)}\n".encode())
    if command.json:
        print(json.dumps(scores))
    else:
        evaluation.print()
    if evaluation.left_out is not None:
        say(evaluation.left_out)
    return 0


def _doctor(command: Doctor) -> int:
    import json

    from sdi_gs.doctor.diagnosis import diagnose, report_lines

    if command.full:
        from sdi_gs.doctor.full_report import check_and_tell

        passed = check_and_tell(
            None if command.device is None else _pick_device(command.device),
            command.only,
            toybox=preset_named(CPU_PRESET).config,
            smoke=preset_named("smoke").config,
            stable_diffusion=preset_named(GPU_PRESET).config,
            out=command.report,
            as_json=command.json,
        )
        return 0 if passed else EXIT_CHECK_FAILED
    if command.build:
        from sdi_gs.gsplat_build.build import build_and_tell

        build_and_tell(command.arch, as_json=command.json)
        return 0
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
    from dataclasses import replace

    from sdi_gs.evaluation.probe import run_probe

    if command.guidance_scale is None:
        preset = preset_named(preset_for_prior(command.prior) or GPU_PRESET)
        command = replace(command, guidance_scale=preset.config.guidance.guidance_scale)
    _print_paths(run_probe(command, device=_pick_device(command.device)))
    return 0


def _print_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)
