"""Options of the probe; free of torch, so that the command line can show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """Measure how well each kind of noise fits a prior: numbers as JSON and one figure (docs/reports/probe.md)."""

    prompt: str
    """What the latents should become."""
    prior: str = "toybox-ideal"
    """Which diffusion model: a name of the catalogue, a folder or a hub id."""
    out: Path | None = None
    """Folder for probe.json and probe.png, which must not exist; the next free probes/<prompt>-<n> if not given."""
    source: Path | None = None
    """A run folder or a .ply file whose renders are probed; the toybox truth of the prompt if not given."""
    guidance_scale: float | None = None
    """gamma_fwd; that of the prior's preset, or of Stable Diffusion's for a folder or a hub id, if not given."""
    timesteps: tuple[int, ...] = (300, 500, 700, 900)
    """Where to measure, each within the diffusion's length and not 0."""
    views: int = 4
    """Renders to probe, on a ring around the object."""
    repeats: int = 8
    """Draws of the noise for variances."""
    trajectory_steps: int = 40
    """Length of the short trajectory."""
    seed: int = 0
    """Of all draws."""
    device: str | None = None
    """Where to compute: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        if not self.timesteps or min(self.timesteps) < 1:
            raise ValueError(f"timesteps must be 1 or more, got {self.timesteps}")
        if not 1 <= self.views <= 64:
            raise ValueError(f"views must be 1 to 64, got {self.views}")
        if not 2 <= self.repeats <= 256:
            raise ValueError(f"repeats must be 2 to 256, got {self.repeats}")
        if not 2 <= self.trajectory_steps <= 1000:
            raise ValueError(f"trajectory-steps must be 2 to 1000, got {self.trajectory_steps}")
        if self.guidance_scale is not None and not 0.0 < self.guidance_scale <= 1000.0:
            raise ValueError(f"guidance-scale must be positive and at most 1000, got {self.guidance_scale}")
