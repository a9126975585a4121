"""One training step of the real trainer on networks and scenes without data, counted.

Prior, guidance, representation, losses and optimisers are those that train; their tensors lie on torch's meta device.
Only what cannot run there has a stand-in: gsplat's kernels (``sdi_gs.rasterize.counted``) and how many samples the
rays of a field have (``memory_counting.field_samples``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from memory_counting.allocator import reserved_bytes
from memory_counting.field_samples import samples_of_rays, shares_met
from memory_counting.meter import Kernels, Operation, Part, StepMeter
from sdi_gs.cameras import sample_cameras
from sdi_gs.doctor.miniature import prior_of_networks
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.published import ModelName, published_networks
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.representations.ngp.ngp import SMALLEST_IMAGE
from sdi_gs.representations.ngp.scene import NgpScene
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class StepCount:
    """What one step needs."""

    peak: dict[Part, int]
    """Bytes held at the moment when their sum was largest, by what they belong to."""
    held: int
    """Bytes held before the step: weights, parameters, moments."""
    reserved: int
    """Bytes that torch's allocator would hold by the end: the peak, its rounding and its gaps."""
    operations: tuple[Operation, ...]
    """Every kernel of the step."""
    predictor_calls: int
    """Predictions among them, each of all branches of all views."""

    @property
    def peak_bytes(self) -> int:
        """The most bytes of tensors held at once."""
        return sum(self.peak.values())

    def flops(self, part: Part) -> int:
        """Operations of one part."""
        return sum(operation.flops for operation in self.operations if operation.part == part)


def published_prior(model: ModelName, *, image_size: int | None, dtype: torch.dtype) -> LatentDiffusionPrior:
    """Stable Diffusion 2.1 without data, for images of ``image_size`` pixels or its own."""
    networks = published_networks(model, device=META, dtype=dtype, image_size=image_size)
    return prior_of_networks(networks, model=model)


def count_step(config: RunConfig, prior: LatentDiffusionPrior, *, kernels: Kernels = "cuda") -> StepCount:
    """Count a late step of a run (all levels of a field, moments of all optimisers), whose prior lies on ``META``.

    Where rays see different numbers of samples, the memory is that of the largest numbers, the operations are those of
    the mean ones.
    """
    if config.representation != "ngp":
        return _counted(config, prior, StepMeter(kernels=kernels))
    mean, largest = (
        _counted(config, prior, StepMeter(kernels=kernels, assumptions=shares_met(config.ngp, samples)))
        for samples in samples_of_rays(config, image_size=prior.image_size)
    )
    return replace(largest, operations=mean.operations)


def _counted(config: RunConfig, prior: LatentDiffusionPrior, meter: StepMeter) -> StepCount:
    for network in (prior.unet, prior.vae):
        meter.adopt(_weights(network), "weights")
    compute = config.compute
    if compute.free_text_encoder:
        meter.leave_out(_weights(prior.text_encoder))
    else:
        meter.adopt(_weights(prior.text_encoder), "text")
    # What lies on the host is left out above; neither compiling nor fusing changes what a step must hold.
    compute = replace(compute, free_text_encoder=False, compile_unet=False, fused_adam=False)
    # One move of the inversion stands for all: each holds the same.
    guidance = replace(config.guidance, inversion_steps=1, fixed_point_iterations=1)
    config = replace(config, prompt=config.prompt or "anything", compute=compute, guidance=guidance)
    with meter, _sections(prior, meter):
        trainer = Trainer(config, prior, device=META)
        trainer.step = max(config.steps - 2, 0)
        scene = trainer.scene
        assert isinstance(scene, GaussianScene | NgpScene)
        for optimizer in scene.optimizers.values():
            optimizer.register_step_pre_hook(lambda *_: meter.begin("optimiser"))
            optimizer.register_step_post_hook(lambda *_: meter.end())
        _make_moments(trainer)
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
    """Move the parameters once, without the prior, so that the optimisers hold what they hold in a run."""
    config, size = trainer.config, SMALLEST_IMAGE
    cameras = sample_cameras(config.cameras, 1, width=size, height=size, generator=trainer.host_generator)
    background = torch.ones(1, 3, device=META)
    render = trainer.scene.render(cameras.to(META), background, progress=0.0, generator=trainer.device_generator)
    trainer.scene.backward(render.rgb.sum(), render, step=trainer.step)
    trainer.scene.update(render, step=trainer.step, generator=trainer.host_generator)


@contextmanager
def _sections(prior: Any, meter: StepMeter) -> Iterator[None]:
    """Tell the meter which network is at work, backward passes included."""

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

    handles = [
        prior.unet.register_forward_pre_hook(begins("unet")),
        prior.unet.register_forward_hook(ends),
        prior.text_encoder.register_forward_pre_hook(begins("text")),
        prior.text_encoder.register_forward_hook(ends),
        prior.vae.encoder.register_forward_pre_hook(encoder_begins),
        prior.vae.encoder.register_forward_hook(encoder_ends),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weights(network: Any) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
