"""Named starting points: which prior, and the settings that suit it. Every leaf can be overridden."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sdi_gs.configs import mvdream, stable_diffusion
from sdi_gs.errors import UserError
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.ngp import NgpConfig, NgpLossConfig
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values

SCALED_NGP_LOSSES = ("orientation", "sparsity", "opaqueness", "z_variance", "convexity", "convexity_final")
"""Weights of a field's regularisers that depend on the unit of the distance beside them."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A run config with the one line that explains it."""

    summary: str
    """What it is for and what it needs."""
    config: RunConfig
    """The settings, with an empty prompt."""
    by_representation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings that suit another representation better, by its name and by their dotted names."""

    def config_for(self, representation: str | None) -> RunConfig:
        """Return the settings for a representation; None for the config's own. UserError for an unknown one."""
        if representation in (None, self.config.representation):
            return self.config
        suited = self.by_representation.get(representation, {})
        return with_values(self.config, {"representation": representation, **suited})


def presets() -> dict[str, Preset]:
    """All presets by name."""
    return {name: _made(name) for name in _makers()}


@functools.cache
def _made(name: str) -> Preset:
    """Make a preset once; checking a whole config takes milliseconds."""
    return _makers()[name]()


def _makers() -> dict[str, Callable[[], Preset]]:
    return {
        "toybox-ideal": lambda: Preset(
            summary="a minute on two CPU cores; knows the toybox's objects and colours and nothing else",
            config=_toybox_ideal(),
            by_representation={"ngp": _field_under_toybox_ideal(), "voxels": _voxels_under_toybox_ideal()},
        ),
        "toybox": lambda: Preset(
            summary="a minute on two CPU cores under a small trained network; knows what toybox-ideal knows",
            config=_toybox(),
            by_representation={"ngp": _field_under_toybox()},
        ),
        "smoke": lambda: Preset(
            summary="seconds on any machine: the same path with few Gaussians and steps, to see that it works",
            config=_smoke(),
        ),
        "sd21-base": lambda: Preset(
            summary="Stable Diffusion 2.1 base at 512 pixels, our own guess; needs a CUDA card and the weights",
            config=stable_diffusion.sd21_base(),
            by_representation={"ngp": stable_diffusion.field_settings()},
        ),
        "sd21-fast": lambda: Preset(
            summary="sd21-base in a ninth of its time, our own guess; needs a CUDA card and the weights",
            config=stable_diffusion.sd21_fast(),
            by_representation={"ngp": stable_diffusion.fast_field_settings()},
        ),
        "sd21-ngp": lambda: Preset(
            summary="a field under Stable Diffusion 2.1 base, our own guess; needs a CUDA card and the weights",
            config=stable_diffusion.sd21_ngp(),
        ),
        "sd21": lambda: Preset(
            summary="Stable Diffusion 2.1 at 768 pixels, our own guess; needs a CUDA card and the weights",
            config=stable_diffusion.sd21(),
            by_representation={"ngp": stable_diffusion.field_settings()},
        ),
        "sd15": lambda: Preset(
            summary="Stable Diffusion 1.5 and its fine-tunes, our own guess; needs a CUDA card and the weights",
            config=stable_diffusion.sd15(),
            by_representation={"ngp": stable_diffusion.field_settings()},
        ),
        "sdi-paper-ngp": lambda: Preset(
            summary="SDI's published run of a field, setting by setting; needs a CUDA card and the weights",
            config=stable_diffusion.sdi_paper_ngp(),
        ),
        "sdi-paper-3dgs": lambda: Preset(
            summary="SDI in LucidDreamer's settings of Gaussians; needs a CUDA card and the weights",
            config=stable_diffusion.sdi_paper_3dgs(),
        ),
        **_presets_of_four_views(),
    }


def _presets_of_four_views() -> dict[str, Callable[[], Preset]]:
    return {
        "toybox-ideal-4view": lambda: Preset(
            summary="toybox-ideal's run under a prior that denoises four orthogonal views of one object together",
            config=_toybox_ideal_4view(),
            by_representation={"ngp": _field_under_toybox_ideal() | {"views_per_step": 4}},
        ),
        "mvdream": lambda: Preset(
            summary="MVDream's published run of a field: four views at once; needs a CUDA card and the weights",
            config=mvdream.mvdream(),
            by_representation={"gaussians": mvdream.gaussian_settings()},
        ),
        "mvdream-sdi": lambda: Preset(
            summary="SDI under MVDream's prior of four views, our own guess; needs a CUDA card and the weights",
            config=mvdream.mvdream_sdi(),
            by_representation={"ngp": mvdream.field_settings()},
        ),
    }


def preset(name: str, values: Mapping[str, Any] | None = None, **settings: Any) -> RunConfig:
    """Return a preset's settings, those for the representation if one is named, with some of them changed.

    ``settings`` are fields of RunConfig, ``values`` any settings by their dotted names, as on the command line:
    ``preset("toybox-ideal", {"guidance.noise": "random"}, prompt="a blue robot", steps=100)``.

    Raises UserError for an unknown preset or setting, and for a value that the settings refuse.
    """
    given = {**settings, **(values or {})}
    return with_values(preset_named(name).config_for(given.get("representation")), given)


def preset_named(name: str) -> Preset:
    """Return a preset; raises UserError for an unknown name."""
    if name not in _makers():
        raise UserError(f'unknown preset "{name}"; known: {", ".join(_makers())}')
    return _made(name)


def preset_for_prior(prior: str) -> str | None:
    """Return the name of the preset made for a prior, which is the prior's own; None if it has no preset."""
    return prior if prior in _makers() and _made(prior).config.prior == prior else None


def _toybox_ideal() -> RunConfig:
    return RunConfig(
        prior="toybox-ideal",
        steps=1000,
        views_per_step=4,
        # Geometry takes some 150 rounds, detail some 600 optimiser steps; ten rounds of targets are kept.
        replay=ReplayConfig(steps_per_target=4, views=40),
        cameras=CameraConfig(elevation_deg=(-10.0, 40.0), distance=(3.3, 3.3), fov_y_deg=(40.0, 40.0)),
        # On white alone, white Gaussians can hide what they should not; three backgrounds give them away.
        backgrounds=("white", "gray", "black"),
        guidance=GuidanceConfig(
            # Ahead of SDI on whole objects, whose unknowns are few and global (docs/reports/gallery.md).
            noise="random",
            # A word leaves 90 degrees open: 2 dB.
            views="cameras",
            # An exact prior over-saturates at SD's scale of 7.5.
            guidance_scale=1.0,
            t_min=0.05,
            # For inversion: a cold start keeps its speckle, and five steps score as well as ten at half the calls.
            inversion_steps=5,
            random_fraction=0.4,
        ),
        # The ball starts with as many Gaussians as the 64 pixel views can use.
        densify=DensifyConfig(enabled=False),
        # The published weights go with Stable Diffusion's latents of unit variance. Pixels have about a tenth of it:
        # beside them those weights swallow the object (docs/reports/ngp.md).
        ngp=NgpConfig(losses=_ngp_losses(0.1)),
        # Inversion follows single renders: 1024 leave smaller gaps between their angles. Components as wide as 0.3 pass
        # on the speckle that they are given at low noise.
        ideal_prior=IdealPriorConfig(renders_per_view=1024, component_std=0.1),
    )


def _toybox_ideal_4view() -> RunConfig:
    base = _toybox_ideal()
    return replace(base, prior="toybox-ideal-4view", cameras=replace(base.cameras, views_per_group=4))


def _toybox() -> RunConfig:
    base = _toybox_ideal()
    return replace(
        base,
        prior="toybox",
        steps=550,
        # A word leaves the turn open. With four views tables turn; with two in each quarter, and first in its middle,
        # neither they do nor rockets (docs/reports/gallery.md).
        views_per_step=8,
        cameras=replace(base.cameras, word_spread=0.3, word_spread_until=0.4),
        replay=ReplayConfig(steps_per_target=5, views=80),
        # At 2.5 tables swell and turn, at 1 robots blur (docs/reports/gallery.md); the exact prior wants 1.
        guidance=replace(base.guidance, views="words", guidance_scale=1.5, t_min=0.1),
        # A step on pixels takes a fifth of the time of one through the autoencoder.
        losses=LossConfig(space="pixels"),
        # Finer Gaussians make slats that show another colour from each side.
        gaussians=replace(base.gaussians, smallest_scale=0.015),
    )


def _field_under_toybox_ideal() -> dict[str, Any]:
    """What a field wants otherwise than Gaussians do (docs/reports/ngp.md)."""
    return {
        # A render costs more than a target of the exact prior, so that every step has targets of its own.
        "steps": 550,
        "views_per_step": 2,
        "replay.steps_per_target": 1,
        "replay.views": None,
        # Under view words, views ninety degrees apart agree on no azimuth: thin legs dissolve, bodies bend.
        "guidance.views": "cameras",
        "guidance.noise": "random",
        "guidance.t_min": 0.05,
        "ideal_prior.component_std": IdealPriorConfig().component_std,
        "ngp.geometry_lr_final": 0.001,
        # Terms on normals take up to a quarter of a step's time.
        "ngp.losses.orientation": 0.0,
        "ngp.losses.convexity": 0.0,
        "ngp.losses.convexity_final": 0.0,
    }


def _voxels_under_toybox_ideal() -> dict[str, Any]:
    """What a field of this preset wants, without the settings of the hash grid."""
    return {name: value for name, value in _field_under_toybox_ideal().items() if not name.startswith("ngp.")}


def _field_under_toybox() -> dict[str, Any]:
    """The values of 0.2: eight views a round are for Gaussians, and a field was not tried with replay here."""
    published = NgpLossConfig()
    weights = {f"ngp.losses.{name}": getattr(published, name) for name in SCALED_NGP_LOSSES}
    return weights | {
        "steps": 150,
        "views_per_step": 4,
        "cameras.word_spread_until": 0.0,
        "replay.steps_per_target": 1,
        "replay.views": None,
        "losses.space": "latents",
        "guidance.noise": "inversion",
        "guidance.guidance_scale": 2.5,
    }


def _ngp_losses(factor: float) -> NgpLossConfig:
    """The published weights of the field's regularisers, all of them scaled."""
    published = NgpLossConfig()
    return replace(published, **{name: factor * getattr(published, name) for name in SCALED_NGP_LOSSES})


def _smoke() -> RunConfig:
    base = _toybox_ideal()
    return replace(
        base,
        steps=20,
        views_per_step=2,
        # The published method, which takes the longest path: inversion, view words, a target for every step.
        replay=ReplayConfig(),
        guidance=replace(base.guidance, noise="inversion", views="words", t_min=0.2),
        gaussians=replace(base.gaussians, num_initial=500),
        ideal_prior=IdealPriorConfig(renders_per_view=24, unconditional_renders=64),
        outputs=OutputConfig(preview_every=10, checkpoint_every=10, turntable_frames=8, turntable_size=64),
    )
