"""Options of the probe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sdi_gs.settings.bounds import SEED, Range, check_settings


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Measure how well each kind of noise fits a prior: numbers as JSON and one figure (docs/reports/probe.md)."""

    prompt: str
    """Prompt of the object."""
    prior: str = "toybox-ideal"
    """Diffusion prior: a known name, a folder or a hub id."""
    out: Path | None = None
    """Folder for probe.json and probe.png, new or empty; the next free probes/<prompt>-<n> if not given."""
    source: Path | None = None
    """A run folder or a .ply file whose renders are probed; the toybox truth of the prompt if not given."""
    guidance_scale: Annotated[float | None, Range(0.0, 1000.0, low_open=True)] = None
    """gamma_fwd; that of the prior's preset, or of Stable Diffusion's for a folder or a hub id, if not given."""
    timesteps: Annotated[tuple[int, ...], Range(1, 1_000_000)] = (300, 500, 700, 900)
    """Timesteps to measure at, each above 0 and below the diffusion's length."""
    views: Annotated[int, Range(1, 64)] = 4
    """Renders to probe, on a ring around the object."""
    repeats: Annotated[int, Range(2, 256)] = 8
    """Draws of the noise from which variances are estimated."""
    trajectory_steps: Annotated[int, Range(2, 1000)] = 40
    """Steps of the short trajectory."""
    seed: Annotated[int, SEED] = 0
    """Seed of all draws."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.timesteps:
            raise ValueError("timesteps must name at least one")
