"""Measure how well each noise source fits a prior: the paper's analysis for any model (docs/reports/probe.md).

All numbers are mean squares over the elements of the latents. The residual is that of the paper's eq. 8,
sigma (eps - kappa) = z - target: how far one guided prediction would move a latent that should not move.

Letters: B images, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DiffusionPrior
from sdi_gs.errors import UserError
from sdi_gs.evaluation.metrics.truth import toybox_prompt
from sdi_gs.evaluation.plots import save_probe_figure
from sdi_gs.files import make_new_folder, make_numbered_folder, refuse_used_folder, write_atomically
from sdi_gs.guidance.prompts import Conditions, PromptConditions
from sdi_gs.guidance.schedule import annealed_timestep
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import StepPlan
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.priors.catalog import load_prior
from sdi_gs.runs.folder import slug
from sdi_gs.runs.loading import load
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.noise_sources import NoiseName
from sdi_gs.settings.probe import ProbeOptions
from sdi_gs.settings.run import RunConfig
from sdi_gs.toybox.truth import render_truth, truth_draws
from sdi_gs.toybox.views import CAMERA_DISTANCE, CAMERA_FOV_Y_DEG

SOURCES: tuple[NoiseName, ...] = ("inversion", "unconditional", "random", "fixed-point")
INVERSION_SCALES = (-7.5, 0.0, 1.0, 7.5)
"""gamma_inv for a gamma_fwd of 7.5; scaled in proportion to gamma_fwd."""
INVERSION_STEPS = (2, 4, 8, 16)
TRAJECTORY_RATE = 0.2
"""Share of the distance to its target that the latent moves in each step of the trajectory."""
OUTPUT_ROOT = Path("probes")
ELEVATION_DEG = 15.0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A prior, the embeddings of its prompts, and the latents to measure on."""

    prior: DiffusionPrior
    latents: Tensor  # [B, C, h, w]
    conditions: Conditions

    def repeated(self, copies: int) -> Subject:
        """Repeat every latent ``copies`` times in a row."""
        repeated = Conditions(
            prompt_embeddings=self.conditions.prompt_embeddings.repeat_interleave(copies, dim=0),
            negative_embeddings=self.conditions.negative_embeddings.repeat_interleave(copies, dim=0),
        )
        return Subject(prior=self.prior, latents=self.latents.repeat_interleave(copies, dim=0), conditions=repeated)

    def target(
        self,
        config: GuidanceConfig,
        timestep: int,
        source: NoiseName,
        generator: torch.Generator,
        latents: Tensor | None = None,  # [B, C, h, w] the subject's own if None
    ) -> Tensor:
        """Return the latents [B, C, h, w] that the guidance moves to."""
        output = distill(
            replace(config, noise=source),
            self.prior,
            self.latents if latents is None else latents,
            self.conditions,
            plan=StepPlan(timestep=timestep),
            generator=generator,
        )
        return output.target


def probe(
    subject: Subject,
    *,
    guidance_scale: float,
    timesteps: tuple[int, ...] = (300, 500, 700, 900),
    repeats: int = 8,
    trajectory_steps: int = 40,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all measurements, ready for JSON; UserError for a timestep that the prior does not have."""
    length = subject.prior.schedule.num_timesteps
    if max(timesteps) >= length:
        raise UserError(f"timestep {max(timesteps)} is beyond this prior's {length}: use 1 to {length - 1}")
    config = GuidanceConfig(guidance_scale=guidance_scale, inversion_eta=0.0)
    device = subject.latents.device

    def residuals(source: NoiseName, **settings: Any) -> list[float]:
        chosen, values = replace(config, **settings), []
        for timestep in timesteps:
            generator = torch.Generator(device).manual_seed(seed)
            target = subject.target(chosen, timestep, source, generator)
            values.append((subject.latents - target).square().mean().item())
        return values

    scales = [scale * guidance_scale / 7.5 for scale in INVERSION_SCALES]
    sources: tuple[NoiseName, ...] = ("inversion", "random")
    eta_config = replace(config, inversion_eta=GuidanceConfig.inversion_eta)
    return {
        "prior": subject.prior.name,
        "views": len(subject.latents),
        "latent_mean_square": subject.latents.square().mean().item(),
        "guidance_scale": guidance_scale,
        "timesteps": list(timesteps),
        "residual_by_source": {source: residuals(source) for source in SOURCES},
        "residual_by_inversion_scale": {
            f"{scale:.3g}": residuals("inversion", inversion_guidance_scale=scale) for scale in scales
        },
        "residual_by_inversion_steps": {
            str(steps): residuals("inversion", inversion_steps=steps) for steps in INVERSION_STEPS
        },
        "target_variance": {
            source: [_target_variance(subject, eta_config, t, source, repeats, seed) for t in timesteps]
            for source in sources
        },
        "target_change": {
            source: _target_changes(subject, eta_config, source, trajectory_steps, seed) for source in sources
        },
    }


def _target_variance(
    subject: Subject, config: GuidanceConfig, timestep: int, source: NoiseName, repeats: int, seed: int
) -> float:
    """Return the variance of a fixed latent's target over draws of the noise."""
    generator = torch.Generator(subject.latents.device).manual_seed(seed)
    targets = subject.repeated(repeats).target(config, timestep, source, generator)
    return targets.unflatten(0, (-1, repeats)).var(dim=1).mean().item()


def _target_changes(
    subject: Subject, config: GuidanceConfig, source: NoiseName, num_steps: int, seed: int
) -> list[float]:
    """Return the target's mean squared change per step, for latents that start at zero and follow the target."""
    generator = torch.Generator(subject.latents.device).manual_seed(seed)
    latents, before, changes = torch.zeros_like(subject.latents), None, []
    for step in range(num_steps):
        timestep = annealed_timestep(
            step,
            num_steps,
            t_max=config.t_max,
            t_min=config.t_min,
            annealing="linear",
            num_timesteps=subject.prior.schedule.num_timesteps,
            # Linear annealing draws nothing.
            generator=generator,
        )
        target = subject.target(config, timestep, source, generator, latents)
        if before is not None:
            changes.append((target - before).square().mean().item())
        latents, before = latents + TRAJECTORY_RATE * (target - latents), target
    return changes


def run_probe(options: ProbeOptions, *, device: torch.device) -> list[Path]:
    """Probe renders, write ``probe.json`` and ``probe.png``, and return their paths.

    Raises UserError for a prior that cannot be loaded, for a prompt without a toybox truth if there is no ``source``,
    for a folder that exists, and where matplotlib is missing.
    """
    if options.out is not None:
        refuse_used_folder(options.out)
    prior = load_prior(RunConfig(prior=options.prior), device=device)
    images, cameras = _subject_images(options, prior.image_size, device)
    latents = prior.encode_images(images.to(device), torch.Generator(device).manual_seed(options.seed)).detach()
    conditions = PromptConditions(prior, options.prompt)
    backgrounds: list[BackgroundName] = ["white"] * len(cameras)
    subject = Subject(
        prior=prior, latents=latents, conditions=conditions.for_cameras(cameras, backgrounds, perp_neg=False)
    )
    measured = probe(
        subject,
        guidance_scale=GuidanceConfig.guidance_scale if options.guidance_scale is None else options.guidance_scale,
        timesteps=tuple(sorted(options.timesteps)),
        repeats=options.repeats,
        trajectory_steps=options.trajectory_steps,
        seed=options.seed,
    )
    report = {"prompt": options.prompt, "source": str(options.source or "toybox truth"), **measured}
    if options.out is None:
        folder = make_numbered_folder(OUTPUT_ROOT / slug(options.prompt))
    else:
        folder = options.out
        make_new_folder(folder)
    write_atomically(folder / "probe.json", f"{json.dumps(report, indent=2)}\n".encode())
    save_probe_figure(report, folder / "probe.png", pictures=prior.decode_latents(latents).cpu())
    return [folder / "probe.json", folder / "probe.png"]


def _subject_images(options: ProbeOptions, size: int, device: torch.device) -> tuple[Tensor, CameraBatch]:
    """Return renders [B, size, size, 3] over white and their cameras."""
    config = CameraConfig(distance=(CAMERA_DISTANCE, CAMERA_DISTANCE), fov_y_deg=(CAMERA_FOV_Y_DEG, CAMERA_FOV_Y_DEG))
    cameras = ring_cameras(config, options.views, size, elevation_deg=ELEVATION_DEG)
    if options.source is not None:
        return render_views(load(options.source, device=device).representation, cameras).rgb, cameras
    parsed = toybox_prompt(options.prompt)
    assert parsed.class_name is not None
    if parsed.colour is None:
        raise UserError(f'"{options.prompt}" leaves the colour open: name one, or give --source to probe its renders')
    if parsed.second is not None:
        raise UserError(f'"{options.prompt}" names two objects, and a probe starts from one: name one')
    return render_truth(truth_draws(parsed.class_name, parsed.colour, 1, parsed.style), cameras).rgb, cameras
