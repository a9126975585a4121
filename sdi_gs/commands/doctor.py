"""``sdi-gs doctor``: what this machine has, and what is missing for a card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sdi_gs.commands.common import EXIT_CHECK_FAILED, pick_device
from sdi_gs.commands.defaults import CPU_PRESET, GPU_PRESET, OWN_MODEL_PRESET
from sdi_gs.configs.presets import preset_named
from sdi_gs.console import print_lines
from sdi_gs.settings.check_names import CheckName


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Print what this machine has, what would be used, and what is missing and how to fix it."""

    json: bool = False
    """Print one JSON object and nothing else."""
    full: bool = False
    """Compare the CUDA card with the CPU, part by part, and time it: takes minutes; exit code 1 if a check fails."""
    only: tuple[CheckName, ...] = ()
    """With --full: run only these checks."""
    report: Path | None = None
    """With --full: a JSON file, which must not exist, to attach to a bug report."""
    device: str | None = None
    """With --full: the card, cuda or cuda:1; cpu is a dry run of the same checks at small size."""
    build: bool = False
    """Compile gsplat's CUDA code now, ahead of the first training (docs/gpu.md)."""
    arch: str | None = None
    """With --build: the compute capabilities to compile for, such as 8.9 or 8.0;8.9; those of the cards here if not
    given."""

    def __post_init__(self) -> None:
        if self.full and self.build:
            raise ValueError("--build compiles and --full checks: give one of the two, --build first")
        for name in ("only", "report", "device"):
            if getattr(self, name) and not self.full:
                raise ValueError(f"--{name} goes with the checks of --full: add --full")
        if self.arch is not None and not self.build:
            raise ValueError("--arch says what to compile for: add --build")


def doctor(options: Doctor) -> int:
    """Diagnose, check or compile; return 1 where a check of ``--full`` fails."""
    if options.full:
        from sdi_gs.doctor.full_report import check_and_print

        passed = check_and_print(
            None if options.device is None else pick_device(options.device),
            options.only,
            toybox=preset_named(CPU_PRESET).config,
            smoke=preset_named("smoke").config,
            stable_diffusion=preset_named(OWN_MODEL_PRESET).config,
            out=options.report,
            as_json=options.json,
        )
        return 0 if passed else EXIT_CHECK_FAILED
    if options.build:
        from sdi_gs.gsplat_build.build import build_and_print

        build_and_print(options.arch, as_json=options.json)
        return 0
    from sdi_gs.doctor.diagnosis import diagnose, report_lines

    presets = {"cpu": CPU_PRESET, "cuda": GPU_PRESET}
    diagnosis = diagnose(
        presets_by_device={kind: (preset_named(name).config.prior, name) for kind, name in presets.items()}
    )
    if options.json:
        print(json.dumps(diagnosis.as_json()))
    else:
        print_lines(*report_lines(diagnosis))
    return 0
