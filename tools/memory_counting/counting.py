"""Count memory and operations of one training step of the real trainer, on tensors without data.

Prior, guidance, representation, losses and optimisers are the real ones, with tensors on torch's meta device. Two parts
cannot run there and are replaced: gsplat's kernels (``sdi_gs.rasterize.counted``), those of a field's hash grid
(``memory_counting.counted_triton``) and the number of its samples per ray (``memory_counting.field_samples``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from memory_counting.allocator import reserved_bytes
from memory_counting.counted_triton import triton_counted
from memory_counting.field_samples import SamplesPerRay, samples_of_rays, shares_met
from memory_counting.meter import Kernels, Operation, Part, StepMeter
from sdi_gs.cameras import Rays, sample_cameras
from sdi_gs.doctor.miniature import prior_of_networks
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.published import ModelName, published_networks
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.representations.ngp.marching import Samples
from sdi_gs.representations.ngp.rendering import SMALLEST_IMAGE, FieldRenderer
from sdi_gs.representations.ngp.scene import NgpScene
from sdi_gs.settings.run import RunConfig
from sdi_gs.training import trainer as trainer_module
from sdi_gs.training.replay import TargetViews, most_kept_views
from sdi_gs.training.trainer import Trainer

META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class StepCount:
    """Memory and operations of one step."""

    peak: dict[Part, int]
    """Bytes at the peak, by part."""
    held: int
    """Bytes held before the step: weights, parameters, moments."""
    reserved: int
    """Bytes that torch's allocator reserves: the peak with rounding and fragmentation."""
    operations: tuple[Operation, ...]
    """All kernels of the step."""
    predictor_calls: int
    """Calls of the predictor; one call covers all branches of all views."""

    @property
    def peak_bytes(self) -> int:
        """Peak bytes of tensors."""
        return sum(self.peak.values())

    def flops(self, part: Part) -> int:
        """Return the operations of one part."""
        return sum(operation.flops for operation in self.operations if operation.part == part)


def published_prior(model: ModelName, *, image_size: int | None, dtype: torch.dtype) -> LatentDiffusionPrior:
    """Return a published model on the meta device, for images of ``image_size`` pixels or its own size."""
    networks = published_networks(model, device=META, dtype=dtype, image_size=image_size)
    return prior_of_networks(networks, model=model)


def count_step(
    config: RunConfig, prior: LatentDiffusionPrior, *, kernels: Kernels = "cuda", inversion_steps: int = 1
) -> StepCount:
    """Count a late step of a run that computes targets, with all levels of a field and all optimisers' moments.

    The prior is on ``META``; as many targets are kept as the run keeps at most. If rays have different numbers of
    samples, memory is counted for the fullest step and operations for the mean. Inversion has ``inversion_steps``: one
    is enough for the memory, which all share.
    """
    return _count_steps(config, prior, kernels=kernels, num_steps=1, inversion_steps=inversion_steps)[0]


def count_round(
    config: RunConfig, prior: LatentDiffusionPrior, *, kernels: Kernels = "cuda"
) -> tuple[StepCount, StepCount]:
    """Count a step that computes targets, as ``count_step``, and the next, which is on kept targets.

    The second's ``reserved`` is that of both, since the allocator keeps what the first has freed.
    """
    if config.replay.steps_per_target == 1:
        raise ValueError("without replay every step computes targets: use count_step")
    first, later = _count_steps(config, prior, kernels=kernels, num_steps=2)
    return first, later


def _count_steps(
    config: RunConfig, prior: LatentDiffusionPrior, *, kernels: Kernels, num_steps: int, inversion_steps: int = 1
) -> list[StepCount]:
    guidance = replace(config.guidance, inversion_steps=inversion_steps, fixed_point_iterations=1)
    config = replace(config, guidance=guidance)
    if config.representation != "ngp":
        return _counted(config, prior, StepMeter(kernels=kernels), num_steps)
    steps = samples_of_rays(config, image_size=config.render.size_at(1.0, prior.image_size))
    means, fullest = (
        _counted_rays(config, prior, groups, kernels=kernels, num_steps=num_steps)
        for groups in ((steps.mean,), steps.fullest)
    )
    return [replace(full, operations=mean.operations) for mean, full in zip(means, fullest, strict=True)]


def _counted_rays(
    config: RunConfig, prior: LatentDiffusionPrior, groups: Sequence[SamplesPerRay], *, kernels: Kernels, num_steps: int
) -> list[StepCount]:
    """Count steps whose groups of rays have these samples, group after group."""
    assumptions = [shares_met(config.ngp, samples) for samples in groups]
    meter = StepMeter(kernels=kernels, assumptions=assumptions[0])
    turns, find = cycle(assumptions), FieldRenderer.find_visible

    def find_as_many(renderer: FieldRenderer, rays: Rays, offsets: Tensor) -> Samples:
        meter.assumptions = next(turns)
        return find(renderer, rays, offsets)

    with patch.object(FieldRenderer, "find_visible", find_as_many):
        return _counted(config, prior, meter, num_steps)


def _counted(config: RunConfig, prior: LatentDiffusionPrior, meter: StepMeter, num_steps: int) -> list[StepCount]:
    """Count the first steps of a round."""
    for network in (prior.unet, prior.vae):
        meter.adopt(_weights(network), "weights")
    compute = config.compute
    if compute.free_text_encoder:
        meter.leave_out(_weights(prior.text_encoder))
    else:
        meter.adopt(_weights(prior.text_encoder), "text")
    # The text encoder on the host is left out above; compiling and fusing do not change the memory of a step.
    compute = replace(compute, free_text_encoder=False, compile_unet=False, fused_adam=False)
    config = replace(config, prompt=config.prompt or "anything", compute=compute)
    with meter, _sections(prior, meter), triton_counted(meter):
        trainer = Trainer(config, prior, device=META)
        trainer.step = _late_round(config)
        scene = trainer.scene
        assert isinstance(scene, GaussianScene | NgpScene)
        for optimizer in scene.optimizers.values():
            optimizer.register_step_pre_hook(lambda *_: meter.begin("optimiser"))
            optimizer.register_step_post_hook(lambda *_: meter.end())
        _make_moments(trainer)
        if config.replay.steps_per_target > 1:
            _keep_targets(trainer)
        return [_next_step(trainer, meter) for _ in range(num_steps)]


def _late_round(config: RunConfig) -> int:
    """Return the finished steps when the round of the last step but one begins."""
    per_target = config.replay.steps_per_target
    return max(config.steps - 2, 0) // per_target * per_target


def _next_step(trainer: Trainer, meter: StepMeter) -> StepCount:
    meter.restart_peak()
    held = meter.live.total()
    report = trainer.train_step()
    return StepCount(
        peak={part: size for part, size in meter.peak.items() if size},
        held=held,
        reserved=reserved_bytes(meter.allocations),
        operations=tuple(meter.operations),
        predictor_calls=report.predictor_calls,
    )


def _make_moments(trainer: Trainer) -> None:
    """Update the parameters once, without the prior, so that the optimisers have their moments."""
    config, size = trainer.config, SMALLEST_IMAGE
    count = config.cameras.views_per_group
    cameras = sample_cameras(config.cameras, count, width=size, height=size, generator=trainer.host_generator)
    background = torch.ones(count, 3, device=META)
    render = trainer.scene.render(cameras.to(META), background, progress=0.0, generator=trainer.device_generator)
    trainer.scene.backward(render.rgb.sum(), render, step=trainer.step)
    trainer.scene.update(render, step=trainer.step, generator=trainer.host_generator)


def _keep_targets(trainer: Trainer) -> None:
    """Keep as many targets as the run can keep."""
    config, prior = trainer.config, trainer.prior
    views, size = config.views_per_step, prior.image_size
    cameras = sample_cameras(config.cameras, views, width=size, height=size, generator=trainer.host_generator)
    in_pixels = config.losses.space == "pixels"
    with torch.no_grad():
        latents = prior.encode_images(torch.ones(1, size, size, 3, device=META), trainer.device_generator)[0]
    for _ in range(most_kept_views(config) // views):
        trainer.replay.push(
            TargetViews(
                cameras=cameras.to(META),
                background=torch.ones(views, 3, device=META),
                target=torch.ones(views, *latents.shape, device=META),
                pictures=torch.ones(views, size, size, 3, device=META) if in_pixels else None,
            )
        )


@contextmanager
def _sections(prior: Any, meter: StepMeter) -> Iterator[None]:
    """Assign operations to networks, backward passes included, and to the guidance around the U-Net's calls."""

    def begins(part: Part) -> Any:
        return lambda *_: meter.begin(part)

    def ends(*_: Any) -> None:
        meter.end()

    def encoder_begins(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda _: meter.set_part("scene"))
        meter.begin("vae")

    def encoder_ends(_: Any, __: Any, output: Tensor) -> None:
        meter.end()
        if output.requires_grad:
            output.register_hook(lambda _: meter.set_part("vae"))

    def guided(*given: Any, **named: Any) -> Any:
        with meter.within("guidance"):
            return distill(*given, **named)

    handles = [
        prior.unet.register_forward_pre_hook(begins("unet")),
        prior.unet.register_forward_hook(ends),
        prior.text_encoder.register_forward_pre_hook(begins("text")),
        prior.text_encoder.register_forward_hook(ends),
        prior.vae.encoder.register_forward_pre_hook(encoder_begins),
        prior.vae.encoder.register_forward_hook(encoder_ends),
        prior.vae.decoder.register_forward_pre_hook(begins("vae")),
        prior.vae.decoder.register_forward_hook(ends),
    ]
    try:
        with patch.object(trainer_module, "distill", guided):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _weights(network: Any) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
