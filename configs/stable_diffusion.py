"""Presets for Stable Diffusion: two as published, and the project's own, none of them run on real weights.

Sources, by the short names below:

- sdi.yaml: ``configs/sdi.yaml`` of the SDI code, and of threestudio, whose defaults hold where it is silent;
- LucidDreamer: ``arguments/__init__.py`` and ``configs/bagel.yaml`` of LucidDreamer, into which the SDI paper ported
  its method with four changes (figure 14): t from 0.98 to 0.1, linearly, conditional inversion with minus the guidance
  scale, and all of kappa. That port is not public.

``tests/configs/published/`` records both, leaf by leaf, with a reason for every leaf that differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sdi_gs.settings.cameras import CameraConfig, JitterConfig
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.densify import DensifyConfig
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.guidance import GuidanceConfig
from sdi_gs.settings.losses import LossConfig
from sdi_gs.settings.ngp import PUBLISHED
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict, differing_keys, flatten, with_values

NEGATIVE_PROMPT = (
    "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, oversaturation."
)
"""LucidDreamer's, in every one of its configs."""

LATENTS_OF_STEP = 4 * 4 * 64 * 64
"""Numbers in the latents of four views at 512 pixels."""

_OUTPUTS = OutputConfig(preview_every=100, checkpoint_every=500)


def sdi_paper_ngp() -> RunConfig:
    """SDI on a field as the paper ran it (sdi.yaml); never run on real weights.

    Its arithmetic is held to the published class on a tiny network, its settings to the published files.
    """
    return RunConfig(
        prior="sd21-base",
        representation="ngp",
        # trainer.max_steps, data.batch_size.
        steps=10_000,
        views_per_step=1,
        # Prompts of threestudio name the view alone.
        prompt_background=False,
        cameras=CameraConfig(
            # data.elevation_range, camera_distance_range, fovy_range.
            elevation_deg=(-10.0, 45.0),
            distance=(1.5, 2.0),
            fov_y_deg=(40.0, 70.0),
            # Defaults of RandomCameraDataModuleConfig: how it draws, camera_perturb, center_perturb, up_perturb.
            elevation_law="threestudio",
            jitter=JitterConfig(position=0.1, look_at=0.2, up=0.02),
        ),
        guidance=GuidanceConfig(
            # guidance.guidance_scale and inversion_guidance_scale, under prompt_processor.use_perp_neg.
            guidance_scale=7.5,
            inversion_guidance_scale=-7.5,
            perp_neg=True,
            # inversion_n_steps, inversion_eta.
            inversion_steps=10,
            inversion_eta=0.3,
            # The code predicts from the inverted latents, not from kappa at t as the paper writes.
            renoise="reference",
            # max_step_percent, min_step_percent, t_anneal.
            t_max=0.98,
            t_min=0.25,
            annealing="linear",
        ),
        # Geometry, background, renderer, material, loss weights and their schedules, optimiser.
        ngp=PUBLISHED,
        outputs=_OUTPUTS,
    )


def sdi_paper_3dgs() -> RunConfig:
    """SDI on Gaussians as the paper ported it into LucidDreamer; never run on real weights, and the port is not public.

    Weights of the terms, learning rates and thresholds are LucidDreamer's, in this project's units.
    """
    return RunConfig(
        prior="sd21-base",
        negative_prompt=NEGATIVE_PROMPT,
        # iterations, C_batch_size.
        steps=5000,
        views_per_step=4,
        prompt_background=False,
        # _white_background; bg_aug_ratio 0.66, half of it random colours and half black.
        backgrounds=("white", "random", "black"),
        background_weights=(0.34, 0.33, 0.33),
        cameras=CameraConfig(
            # theta_range 45 to 105 from the pole; max_radius_range, max_fovy_range in radians.
            elevation_deg=(-15.0, 45.0),
            distance=(3.5, 5.0),
            fov_y_deg=(9.17, 34.38),
            # jitter_center is the whole width, 0.05; jitter_target, jitter_up.
            jitter=JitterConfig(position=0.025, look_at=0.05, up=0.01),
        ),
        guidance=GuidanceConfig(
            # guidance_scale; the third change of the port.
            guidance_scale=7.5,
            inversion_guidance_scale=-7.5,
            # xs_delta_t 200 of 1000, which the port's changes do not name; xs_eta; to t itself.
            inversion_steps=5,
            inversion_eta=0.0,
            inversion_overshoot=0.0,
            # perpneg of bagel.yaml, and of five of the nine configs.
            perp_neg=False,
            # max_t_range, and the first two changes of the port.
            t_max=0.98,
            t_min=0.1,
            annealing="linear",
        ),
        losses=LossConfig(
            # lambda_guidance 0.1 on sigma(t) (eps - kappa) = z - target, summed; the mean here divides by their number.
            distillation=0.1 * LATENTS_OF_STEP,
            # lambda_tv for pictures and disparity, lambda_scale; nothing else.
            picture_tv=1.0,
            depth_tv=1.0,
            mean_scale=1.0,
            fog=0.0,
            needles=0.0,
        ),
        gaussians=_gaussians_of_lucid_dreamer(),
        densify=_growth_of_lucid_dreamer(),
        outputs=_OUTPUTS,
    )


def _gaussians_of_lucid_dreamer() -> GaussiansConfig:
    """LucidDreamer's start and learning rates."""
    return GaussiansConfig(
        # init_num_pts, init_shape "sphere": within 0.5 of the origin, grey.
        num_initial=100_000,
        initial_radius=0.5,
        initial_opacity=0.1,
        initial_colour_spread=0.0,
        # position_lr_init and position_lr_final, times default_radius 3.5.
        means_lr=5.6e-4,
        means_lr_final=5.6e-6,
        # scaling_lr, rotation_lr, opacity_lr, feature_lr, with their *_final.
        scales_lr=5e-3,
        scales_lr_final=1e-3,
        quats_lr=1e-3,
        quats_lr_final=2e-4,
        opacities_lr=5e-2,
        sh0_lr=5e-3,
        sh0_lr_final=3e-3,
        # torch's own, which LucidDreamer leaves.
        adam_betas=(0.9, 0.999),
    )


def _growth_of_lucid_dreamer() -> DensifyConfig:
    """LucidDreamer's growth, pruning and resets."""
    return DensifyConfig(
        strategy="threshold",
        # densify_from_iter, densify_until_iter, densification_interval.
        start=0.02,
        stop=0.6,
        every=100,
        # densify_grad_threshold 7.5e-4; gsplat multiplies gradients by the number of views.
        grow_grad2d=4 * 7.5e-4,
        # percent_dense 0.003, and a tenth, of default_radius 3.5.
        grow_scale3d=0.0105,
        prune_scale3d=0.35,
        prune_opacity=0.005,
        # opacity_reset_interval, to 0.01, whatever the timestep.
        reset_opacity_every=300,
        reset_min_timestep=0.0,
        max_gaussians=2_000_000,
        min_gaussians=1,
    )


def sd21_base() -> RunConfig:
    """This project's own guess for Gaussians, from what text-to-3D systems have in common; never run on real weights.

    A step has been timed on a card with random weights (docs/reports/sd21.md).
    """
    return RunConfig(
        prior="sd21-base",
        steps=5000,
        views_per_step=4,
        # Views are named and backgrounds are not, as in every published recipe.
        prompt_background=False,
        cameras=CameraConfig(elevation_deg=(-10.0, 45.0), distance=(2.6, 3.2), fov_y_deg=(40.0, 50.0)),
        guidance=GuidanceConfig(guidance_scale=7.5, t_min=0.2, perp_neg=True),
        gaussians=GaussiansConfig(
            num_initial=20_000,
            initial_radius=0.5,
            means_lr=1.6e-3,
            means_lr_final=1.6e-5,
            scales_lr=5e-3,
            quats_lr=1e-3,
            # Discs may be thin, needles may not: every text-to-3D system lacks such a limit and shows them.
            axis_ratio_cap=10.0,
            opacities_lr=5e-2,
            sh0_lr=1.5e-2,
        ),
        densify=DensifyConfig(
            # Latent losses come in units of their own; a threshold copied from elsewhere grows nothing or everything.
            strategy="share",
            # The user's knob; text-to-3D systems end between 50 000 and 500 000.
            max_gaussians=200_000,
            # From 100 to 3000 of 5000 steps, every 100 (LucidDreamer).
            start=0.02,
            stop=0.6,
            every=100,
            # 20 000 grow tenfold in 25 of the 29 refinements.
            grow_share=0.1,
            # Clones below it, splits above: 0.003 to 0.02 of the extent in text-to-3D systems.
            grow_scale3d=0.01,
            prune_opacity=0.005,
            # A fifth of the object's radius; pruning by size goes on after growth (HumanGaussian's prune-only phase).
            prune_scale3d=0.1,
            prune_stop=0.9,
            # Pieces that hold less than a hundredth of the opacity are no part of an object.
            prune_component=0.01,
        ),
        outputs=_OUTPUTS,
    )


def sd21_fast() -> RunConfig:
    """sd21-base in a ninth of its time; never run on real weights (docs/sd21.md lists what differs and what it costs).

    Every change was measured on toybox's network against truth (docs/reports/sd21.md).
    """
    base = sd21_base()
    return replace(
        base,
        # Three of four steps train on kept pictures and need neither U-Net nor VAE.
        replay=ReplayConfig(steps_per_target=4, views=40),
        losses=replace(base.losses, space="pixels"),
        guidance=replace(
            base.guidance,
            # What the paper's port kept of LucidDreamer (shared by all nine of its configs): steps of 200 of 1000.
            inversion_steps=5,
            # The inversion follows the prompt alone; the target is still pushed away from wrong views.
            perp_neg_calls="last",
        ),
        # As published: half weights and a scaled loss.
        compute=ComputeConfig(vae_precision="float16"),
    )


def fast_field_settings() -> dict[str, Any]:
    """Return what a field wants otherwise under ``sd21_fast``: its render costs more than a target."""
    return field_settings() | {
        "replay.steps_per_target": 1,
        "replay.views": None,
        "losses.space": "latents",
    }


def field_settings() -> dict[str, Any]:
    """Return what a field wants otherwise than Gaussians do under Stable Diffusion; never run on real weights.

    It is the published run but for three things: the paper's target, the paper's convexity, and renders that grow.
    """
    paper, own = sdi_paper_ngp(), sd21_base()
    flat = flatten(config_to_dict(paper))
    # Minus the guidance scale follows from the method here, and is written out there.
    left_out = {"representation", "guidance.inversion_guidance_scale"}
    wanted = {key: flat[key] for key in differing_keys(own, paper) if key not in left_out}
    return wanted | {
        # Algorithm 2 of the paper, which its theory is about; the code's target pulls latents towards grey.
        "guidance.renoise": "paper",
        # A dent costs the same from every side.
        "ngp.losses.convexity_form": "camera",
        # At 512 pixels from the first step, a step's time is nearly all the field's; detail comes last.
        "render.sizes": [128, 256, 512],
        "render.milestones": [0.3, 0.8],
    }


def sd21_ngp() -> RunConfig:
    """This project's own guess for a field (``field_settings``); never run on real weights."""
    return with_values(sd21_base(), {"representation": "ngp", **field_settings()})


def sd21() -> RunConfig:
    """sd21-base's settings for the model of 768 pixels, which predicts v; never run on real weights."""
    return replace(
        sd21_base(),
        prior="sd21",
        # A view takes two and a half times as long as at 512 pixels (docs/reports/gpu-memory.md).
        views_per_step=2,
        # Pixels are two thirds as wide, and so are the Gaussians that are worth splitting.
        densify=replace(sd21_base().densify, grow_scale3d=0.007, max_gaussians=400_000),
    )


def sd15() -> RunConfig:
    """sd21-base's settings for Stable Diffusion 1.5 and what is made of it; never run on real weights."""
    return replace(sd21_base(), prior="sd15", negative_prompt=NEGATIVE_PROMPT)
