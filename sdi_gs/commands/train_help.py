"""The help of ``sdi-gs train``: everyday options on one screen, all of them with ``--help-all``; imports no torch."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sdi_gs.commands.defaults import CPU_PRESET, named_settings
from sdi_gs.commands.given import given_type, shown_value
from sdi_gs.commands.parsing import width_for_tyro
from sdi_gs.commands.train import Train
from sdi_gs.configs.presets import preset_named, presets
from sdi_gs.errors import UserError
from sdi_gs.runs.export_formats import export_formats
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.settings.tree import config_to_dict, flatten

HELP_FLAGS = ("-h", "--help", "--help-all")
WIDTH = 100
TEXT_COLUMN = 35
LONGEST_DEFAULT = 60
"""Letters of a default that are shown; a preset's negative prompt has some hundred."""

EVERYDAY: dict[str, tuple[tuple[str, str, str], ...]] = {
    "object": (
        ("--prompt TEXT", "prompt", 'what to make, such as "a blue robot"'),
        ("--negative-prompt TEXT", "negative_prompt", "what to steer away from"),
        ("--init-from FILE|RUN", "gaussians.init_from", "start from splats, points, a mesh or another run"),
        ("--representation NAME", "representation", "splats or a field: {choices}"),
        ("--two-stage", "two_stage", "train a field first, then splats from its surface"),
        ("--densify.max-gaussians INT", "densify.max_gaussians", "most Gaussians of a cloud that grows"),
    ),
    "settings": (
        ("--preset NAME", "preset", "settings to start from: {choices}"),
        ("--prior NAME|FOLDER|FILE|HUB-ID", "prior", "diffusion model; sdi-gs priors lists them"),
        ("--lora FILE[:WEIGHT]", "lora", "LoRA files for it, each with its weight"),
        ("--embedding FILE", "embedding", "textual inversions for it: words learned from pictures"),
        ("--steps INT", "steps", "optimisation steps"),
        ("--seed INT", "seed", "seed of all random draws"),
        ("--views-per-step INT", "views_per_step", "cameras rendered in each step"),
        ("--learning-rate-scale FLOAT", "learning_rate_scale", "factor on every learning rate"),
        ("--noise NAME", "guidance.noise", "source of the noise: {choices}"),
        ("--guidance.guidance-scale FLOAT", "guidance.guidance_scale", "strength of the prompt"),
        ("--guidance.perp-neg", "guidance.perp_neg", "Perp-Neg: push away from the wrong views"),
    ),
    "run": (
        ("--output-dir PATH", "output_dir", "the run's new folder, if not the next free outputs/<prompt>-<n>"),
        ("--resume PATH", "resume", "continue the run in this folder"),
        ("--export FORMAT ...", "export", "also write the result as these at the end: {choices}"),
        ("--extend INT", "extend", "steps after the last one, schedules as they ended"),
        ("--at STEP", "at", "with --resume: go on from this checkpoint, in a new folder"),
        ("--device NAME", "device", "cpu, cuda or cuda:1; the first CUDA device if there is one"),
        ("--tier GB", "tier", "memory of the card: {choices}"),
    ),
    "viewer": (
        ("--viewer", "viewer", "watch and steer the run in a browser"),
        ("--viewer-host ADDRESS", "viewer_host", "address; 0.0.0.0 lets every machine in"),
        ("--viewer-port INT", "viewer_port", "port, or the next free one; 0 for any"),
        ("--viewer-keep-open", "viewer_keep_open", "show the finished object until Ctrl-C"),
    ),
}
"""By group: the option, the field of ``Train`` or ``RunConfig`` that it sets, and its meaning."""


def show_help(arguments: Sequence[str]) -> None:
    """Print the help that the arguments of ``train`` ask for, with the defaults of the preset that they name.

    Raises UserError for an unknown preset.
    """
    config = _shown_settings(arguments)
    if "--help-all" not in arguments:
        print("\n".join(short_help(config)))
        return
    settings = Annotated[given_type(RunConfig, shown=config), tyro.conf.arg(name="")]
    shown = type("Train", (Train,), {"__annotations__": {"settings": settings}, "__doc__": Train.__doc__})
    with width_for_tyro(is_help=True):
        tyro.cli(dataclass(frozen=True, kw_only=True)(shown), prog="sdi-gs train", args=["--help"])


def short_help(config: RunConfig) -> list[str]:
    """Return the everyday options as lines of at most 100 columns; ``config`` holds the defaults."""
    lines = ["usage: sdi-gs train --prompt TEXT [OPTIONS]", "", *textwrap.wrap(inspect.getdoc(Train) or "", WIDTH)]
    for group, rows in EVERYDAY.items():
        lines += ["", f"{group}:"]
        for option, key, meaning in rows:
            owner, name, default = _field_of(key, config)
            text = meaning.format(choices=", ".join(_choices(owner, name)))
            if default not in (None, "", False):
                text += f" (default: {textwrap.shorten(shown_value(default), LONGEST_DEFAULT, placeholder='...')})"
            # The column keeps a space before the text.
            left = f"  {option}".ljust(TEXT_COLUMN - 1) + " "
            lines += textwrap.wrap(text, WIDTH, initial_indent=left, subsequent_indent=" " * TEXT_COLUMN)
    num_others = num_options(config) - sum(map(len, EVERYDAY.values()))
    return [*lines, "", f"sdi-gs train --help-all shows the other {num_others} options."]


def num_options(config: RunConfig) -> int:
    """Return how many options ``train`` has."""
    own = [field for field in dataclasses.fields(Train) if field.name not in ("settings", "stages")]
    return len(own) + len(dataclasses.fields(StagesConfig)) + len(flatten(config_to_dict(config)))


def _shown_settings(arguments: Sequence[str]) -> RunConfig:
    """Return the settings whose values a help page shows as defaults.

    Only the options that decide them are read: mistakes in the others do not hide the help.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("preset", "prior", "resume", "representation"):
        parser.add_argument(f"--{name}")
    try:
        origin, _ = parser.parse_known_args([word for word in arguments if word not in HELP_FLAGS])
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    named = named_settings(origin.preset, origin.prior, origin.resume, origin.representation)
    if named is None:
        return preset_named(CPU_PRESET).config_for(origin.representation)
    config, _ = named
    if config is None:
        # Needs yaml, which takes longer to import than the help takes to print.
        from sdi_gs.runs.folder import load_run_config

        config = load_run_config(Path(origin.resume))
    return config


def _field_of(key: str, config: RunConfig) -> tuple[type[Any], str, Any]:
    """Return the dataclass that declares an option, its field there, and its default."""
    own = {field.name: field.default for field in dataclasses.fields(Train)}
    if key in own:
        return Train, key, own[key]
    *path, name = key.split(".")
    owner: Any = config
    for part in path:
        owner = getattr(owner, part)
    return type(owner), name, getattr(owner, name)


def _choices(owner: type[Any], name: str) -> list[str]:
    """Return the values that a field accepts, if these are a list."""
    if name == "preset":
        return list(presets())
    if name == "export":
        return [row.name for row in export_formats()]
    hint = typing.get_type_hints(owner)[name]
    return list(map(str, typing.get_args(hint))) if typing.get_origin(hint) is Literal else []
