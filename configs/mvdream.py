"""Presets for MVDream's prior of four views: as published, and with SDI's noise; neither was run on real weights.

The source is ``configs/mvdream-sd21.yaml`` of threestudio's MVDream (name "mvdream-sd21-rescale0.5"), with the defaults
of its camera, background and guidance classes and of threestudio. ``tests/configs/published/mvdream.json`` records it,
leaf by leaf, with a reason for every leaf that differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sdi_gs.configs.stable_diffusion import sd21_base
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.ngp import PUBLISHED_MVDREAM
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.render_size import RenderConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict, differing_keys, flatten

NEGATIVE_PROMPT = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, "
    "lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, "
    "bad proportions"
)
"""MVDream's, in all of its configs."""

LATENTS_OF_VIEW = 4 * 32 * 32
"""Numbers in the latents of one view at 256 pixels."""

_CAMERAS = CameraConfig(
    # data.elevation_range, camera_distance_range (relative), fovy_range, n_view; no perturbation of any kind.
    elevation_deg=(0.0, 30.0),
    distance=(0.8, 1.0),
    relative_distance=True,
    fov_y_deg=(15.0, 60.0),
    # Of RandomMultiviewCameraDataset: a coin between two laws.
    elevation_law="threestudio",
    views_per_group=4,
)


def mvdream() -> RunConfig:
    """MVDream on a field as threestudio's extension runs it: SDS towards a rescaled target, without shading."""
    return RunConfig(
        prior="mvdream",
        negative_prompt=NEGATIVE_PROMPT,
        representation="ngp",
        # trainer.max_steps; data.batch_size, from the milestone on.
        steps=10_000,
        views_per_step=4,
        prompt_background=False,
        cameras=_CAMERAS,
        # data.width and height, resolution_milestones of 10 000.
        render=RenderConfig(sizes=(64, 256), milestones=(0.5,)),
        guidance=GuidanceConfig(
            noise="random",
            # view_dependent_prompting is off: the camera says it.
            views="cameras",
            guidance_scale=50.0,
            # max_step_percent and min_step_percent: [0, 0.98, 0.50, 8000] and [0, 0.98, 0.02, 8000].
            annealing="widening",
            t_max=0.98,
            t_max_final=0.5,
            t_min=0.02,
            annealing_end=0.8,
            # recon_loss, recon_std_rescale.
            target_rescale=0.5,
        ),
        # lambda_sds 1 on half the sum of squares of a view; the mean here divides by their number.
        losses=LossConfig(distillation=float(LATENTS_OF_VIEW)),
        # geometry.radius, its levels, no-material; lambda_orient, sparsity, opaque, z_variance; renderer, background.
        ngp=PUBLISHED_MVDREAM,
        outputs=OutputConfig(preview_every=100, checkpoint_every=500),
    )


def mvdream_sdi() -> RunConfig:
    """This project's own guess: SDI on Gaussians under MVDream's prior, seen from its cameras; never run.

    sd21-base's run, with these changes: four views of 256 pixels in groups, the camera for the view word, no Perp-Neg,
    MVDream's negative prompt, and its cameras, outside of which the network was not trained.
    """
    base = sd21_base()
    return replace(
        base,
        prior="mvdream",
        negative_prompt=NEGATIVE_PROMPT,
        cameras=_CAMERAS,
        guidance=replace(base.guidance, views="cameras", perp_neg=False),
    )


def field_settings() -> dict[str, Any]:
    """Return what a field wants under ``mvdream_sdi``: the published field, its renders and its loss."""
    return _taken(mvdream(), mvdream_sdi(), ("ngp.", "render.", "losses."))


def gaussian_settings() -> dict[str, Any]:
    """Return what Gaussians want under ``mvdream``: those of this project's own preset."""
    return _taken(mvdream_sdi(), mvdream(), ("gaussians.", "densify.", "render.", "losses."))


def _taken(source: RunConfig, other: RunConfig, groups: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of some groups in which a config differs from another."""
    flat = flatten(config_to_dict(source))
    return {key: flat[key] for key in differing_keys(source, other) if key.startswith(groups)}
