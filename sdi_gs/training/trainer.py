"""One step of a run: render, distill or take a kept target, compute gradients, check them, move the parameters.

Letters: B cameras, C latent channels, H W pixels, h w latent pixels.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import sample_cameras
from sdi_gs.contracts import (
    DiffusionPrior,
    GuidanceOutput,
    GuidedViews,
    RenderOutput,
    Scene,
    StartScene,
    StepReport,
)
from sdi_gs.devices import is_out_of_memory
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.guidance.noise_sources.catalog import load_noise_source
from sdi_gs.guidance.noise_sources.protocol import InfersNoise, source_name, with_defaults
from sdi_gs.guidance.score_distillation import distill
from sdi_gs.guidance.step_plan import plan_step
from sdi_gs.representations.catalog import make_scene
from sdi_gs.representations.saved_state import count_of, part_of
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.backgrounds import colours_of, draw_backgrounds
from sdi_gs.training.changes import allowed_changes
from sdi_gs.training.finite import finite_values
from sdi_gs.training.generators import restore_generator
from sdi_gs.training.prior_setup import conditions_of, require_decoder, tune
from sdi_gs.training.replay import ReplayBuffer, TargetViews
from sdi_gs.training.saved_rounds import saved_noise, saved_replay
from sdi_gs.training.views import SeenViews, decoded, resized


class Trainer:
    """Owns everything that a run changes, and takes its steps."""

    def __init__(
        self,
        config: RunConfig,
        prior: DiffusionPrior,
        *,
        device: torch.device | str = "cpu",
        scene: Scene | None = None,
        noise_source: InfersNoise | None = None,
        saved: dict[str, Any] | None = None,
        start: StartScene | None = None,
    ) -> None:
        """Set up a run on ``device``, or one that continues from ``saved``, which ``state`` returned.

        ``scene`` is a scene of your own on ``device``, which is trained instead of the configured one.
        ``noise_source`` infers kappa; None for the source that ``config.guidance.noise`` names.
        ``start`` is the result of the run that the configured scene starts from, if it does; a run that continues
        needs neither that nor a file to start from.
        Raises UserError for a prompt that the prior does not know, and for a start that cannot be had. Raises
        ValueError for a scene on another device.
        """
        self.config = config
        self.started_with = config
        self.changes: list[dict[str, Any]] = []
        """Changes by ``change_settings``, oldest first: {"step": finished steps, "changed": {key: [before, after]}}."""
        self.prior = prior
        self.device = device = torch.device(device)
        self.step = 0
        # Cameras and schedules draw on the host, noise where the latents are.
        self.host_generator = torch.Generator().manual_seed(config.seed)
        # Tensors without data, on the meta device, have no generator of their own.
        self.device_generator = torch.Generator("cpu" if device.type == "meta" else device)
        self.device_generator.manual_seed(config.seed + 1)
        require_decoder(prior, config)
        tune(prior, config)
        self.conditions = conditions_of(prior, config)
        self.noise_source_name = None if noise_source is None else source_name(noise_source)
        """The class of a noise source of one's own; None for the configured source."""
        configured = load_noise_source(config.guidance.noise)
        self.noise_source = configured if noise_source is None else with_defaults(noise_source)
        self.carried_noise: Tensor | None = None
        """What the noise source carries to the next step."""
        self.replay = ReplayBuffer(config.replay.views)
        """The latest targets, from which steps without new views draw."""
        self.round_timestep = 0
        """t of the latest target."""
        self.last_views: GuidedViews | None = None
        self._moving = False
        """Whether this step has begun to change the parameters."""
        self.scene_name = None if scene is None else type(scene).__qualname__
        """The class of a scene of one's own; None for the configured scene."""
        if scene is None:
            scene = make_scene(config, generator=self.device_generator, device=device, saved=saved, start=start)
        elif scene.representation.device.type == device.type:
            scene.update_config(config)
        else:
            raise ValueError(f"the scene is on {scene.representation.device}, the trainer on {device}: pass device=")
        self.scene: Scene = scene
        if saved is not None:
            self.load_state(saved)

    def train_step(self) -> StepReport:
        """Take one step: new views that share a timestep, or views whose targets are kept.

        Raises NonFiniteError, and whatever error ``is_out_of_memory`` knows before the parameters move, with the state
        as it was before, generators included. Raises UserError if memory ran out while they moved, which cannot be
        undone.
        """
        generators = (self.host_generator, self.device_generator)
        before = [generator.get_state() for generator in generators]
        self._moving = False
        try:
            return self._train_step()
        except (NonFiniteError, MemoryError, RuntimeError) as error:
            if not (isinstance(error, NonFiniteError) or is_out_of_memory(error)):
                raise
            if self._moving:
                raise UserError(
                    f"step {self.step + 1}: out of memory while the optimisers moved, which cannot be undone: "
                    "close other programs, or choose a lower --tier"
                ) from error
            for generator, state in zip(generators, before, strict=True):
                generator.set_state(state)
            self.scene.drop_gradients()
            raise

    def _train_step(self) -> StepReport:
        started = time.perf_counter()
        fresh = self.step % self.config.replay.steps_per_target == 0 or not len(self.replay)
        views, seen = self._new_round() if fresh else self._replayed()
        distance = self.config.losses.distillation * views.distance(seen.pictures, seen.latents)
        losses = {"distillation": distance} | self.scene.losses(seen.render, views.cameras, self._progress)
        watched = {} if seen.latents is None else {"latents": seen.latents}
        watched |= {"target": views.target} if views.pictures is None else {"target's pictures": views.pictures}
        values = self._optimise(losses, seen.render, watched, seen.timestep)
        if seen.guided is not None:
            self._end_round(views, seen, seen.guided)
        self.step += 1
        return StepReport(
            step=self.step,
            timestep=seen.timestep,
            losses=values,
            num_points=self.scene.representation.num_points,
            predictor_calls=0 if seen.guided is None else seen.guided.predictor_calls,
            num_rounds=self.num_rounds,
            seconds=time.perf_counter() - started,
        )

    @property
    def num_rounds(self) -> int:
        """Rounds so far, each with targets of its own; as many as steps without replay."""
        return math.ceil(self.step / self.config.replay.steps_per_target)

    @property
    def _progress(self) -> float:
        """The finished share of the schedules."""
        return self.config.scheduled(self.step) / self.config.steps

    def _new_round(self) -> tuple[TargetViews, SeenViews]:
        """Render new views and compute their targets; the step trains on the same renders."""
        config, host, size = self.config, self.host_generator, self._render_size
        cameras = sample_cameras(
            config.cameras, config.views_per_step, width=size, height=size, generator=host, progress=self._progress
        )
        plan = plan_step(
            config.guidance,
            config.scheduled(self.step),
            config.steps,
            num_timesteps=self.prior.schedule.num_timesteps,
            generator=host,
        )
        backgrounds = draw_backgrounds(config.backgrounds, len(cameras), host, config.background_weights)
        # Nothing waits for the device until ``_optimise`` reads the step's numbers.
        seen_by, colours = cameras.to(self.device), colours_of(backgrounds, host, self.device)
        render = self.scene.render(seen_by, colours, progress=self._progress, generator=self.device_generator)
        shown = resized(render.rgb, self.prior.image_size)
        latents = self._encoded(shown)
        guided = distill(
            config.guidance,
            self.prior,
            latents.detach(),
            self.conditions.for_cameras(cameras, backgrounds, perp_neg=config.guidance.perp_neg),
            plan=plan,
            generator=self.device_generator,
            noise_source=self.noise_source,
            carried_noise=self.carried_noise,
            compute=config.compute,
        )
        pictures = self._decoded(guided.target) if self._in_pixels else None
        views = TargetViews(cameras=seen_by, background=colours, target=guided.target, pictures=pictures)
        seen = SeenViews(
            render=render, pictures=shown, latents=latents, timestep=plan.timestep, cameras=cameras, guided=guided
        )
        return views, seen

    def _replayed(self) -> tuple[TargetViews, SeenViews]:
        """Render views whose targets are kept."""
        views = self.replay.draw(self.config.views_per_step, self.host_generator)
        cameras = views.cameras.of_size(self._render_size)
        render = self.scene.render(cameras, views.background, progress=self._progress, generator=self.device_generator)
        shown = resized(render.rgb, self.prior.image_size)
        latents = None if self._in_pixels else self._encoded(shown)
        seen = SeenViews(render=render, pictures=shown, latents=latents, timestep=self.round_timestep)
        return replace(views, cameras=cameras), seen

    def _end_round(self, views: TargetViews, seen: SeenViews, guided: GuidanceOutput) -> None:
        """Keep what later steps and spectators need of a round, once its first step has succeeded."""
        self.carried_noise = self.noise_source.carry(guided)
        self.round_timestep = guided.timestep
        side = self.prior.image_size
        cameras = views.cameras if seen.cameras is None else seen.cameras
        self.last_views = GuidedViews(
            cameras=cameras.of_size(side),
            rgb=seen.pictures.detach(),
            target=guided.target,
            timestep=guided.timestep,
            pictures=views.pictures,
        )
        if self.config.replay.steps_per_target > 1:
            # All of one size, so that views of different rounds can be drawn together.
            self.replay.push(replace(views, cameras=views.cameras.of_size(side)))

    @property
    def _render_size(self) -> int:
        """Side of this step's renders in pixels."""
        return self.config.render.size_at(self._progress, self.prior.image_size)

    @property
    def _in_pixels(self) -> bool:
        """Whether the loss compares pictures."""
        return self.config.losses.space == "pixels"

    def _encoded(
        self,
        pictures: Tensor,  # [B, H, W, 3] in [0, 1]
    ) -> Tensor:
        """Return latents [B, C, h, w], with gradients only where the loss compares latents."""
        with torch.set_grad_enabled(not self._in_pixels):
            return self.prior.encode_images(pictures, self.device_generator)

    def _decoded(
        self,
        target: Tensor,  # [B, C, h, w]
    ) -> Tensor:
        """Return the target's pictures [B, H, W, 3]."""
        return decoded(self.prior, target, self.config.compute.encoded_at_once)

    def _optimise(
        self,
        losses: dict[str, Tensor],  # weighted scalars
        render: RenderOutput,
        watched: dict[str, Tensor],
        timestep: int,
    ) -> dict[str, float]:
        """Compute the gradients, check that all is finite, move the parameters, and return the losses' values."""
        self.scene.backward(torch.stack(list(losses.values())).sum(), render, step=self.step)
        watched |= {f"{name} loss": value for name, value in losses.items()}
        watched |= {f"gradient of {name}": value for name, value in self.scene.gradients().items()}
        # The step's one wait for the device.
        values = finite_values(losses, watched, where=f"step {self.step + 1}, t = {timestep}")
        self._moving = True
        self.scene.update(
            render,
            step=self.step,
            generator=self.host_generator,
            timestep_fraction=timestep / self.prior.schedule.num_timesteps,
        )
        return values

    def change_settings(self, config: RunConfig) -> dict[str, list[Any]]:
        """Take over another config from the next step on, and return what differs as key: [before, after].

        Raises UserError, with everything as it was, for a prompt that the prior does not know, and for a setting that
        is not in ``CHANGEABLE``.
        """
        changed = allowed_changes(self.config, config)
        reworded = not {"prompt", "negative_prompt"}.isdisjoint(changed)
        conditions = conditions_of(self.prior, config) if reworded else self.conditions
        if self.config.compute != config.compute:
            tune(self.prior, config)
        if reworded:
            # Targets of another prompt would go on being trained on for many rounds.
            self.replay.keep_latest()
        self.config, self.conditions = config, conditions
        self.scene.update_config(config)
        if changed:
            self.changes.append({"step": self.step, "changed": changed})
        return changed

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dicts of tensors and numbers.

        Raises ValueError for a scene whose own state has a key of the trainer's.
        """
        step, scene = {"step": self.step}, self.scene.state()
        own_source = {} if self.noise_source_name is None else {"noise_source": self.noise_source_name}
        replay = {"replay": {"timestep": self.round_timestep, "rounds": self.replay.state()}}
        rest = {
            **own_source,
            **(replay if self.config.replay.steps_per_target > 1 else {}),
            "carried_noise": self.carried_noise,
            "host_generator": self.host_generator.get_state(),
            "device_generator": self.device_generator.get_state(),
        }
        taken = scene.keys() & (step.keys() | rest.keys())
        if taken:
            raise ValueError(f"{type(self.scene).__qualname__}.state() must not have the key {min(taken)!r}")
        return step | scene | rest

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned; on a CPU the run then ends bit-equal to an unbroken one.

        Raises UserError, with everything as it was, if the state is of a run with another noise source, lacks the
        targets of a run that keeps them, or does not fit the settings.
        """
        trained, given = state.get("noise_source"), self.noise_source_name
        if trained != given:
            names = f"{trained or 'the configured one'}, not {given or 'the configured one'}"
            fix = f"pass noise_source={trained}(...)" if trained else "leave noise_source out"
            raise UserError(f"the run's noise source is {names}: {fix}")
        step = count_of(state, "step", most=self.config.total_steps)
        kept = saved_replay(state, self.config.replay)
        carried = saved_noise(state)
        generators = [part_of(state, name, Tensor) for name in ("host_generator", "device_generator")]
        self.scene.load_state(state)
        self.step = step
        self.carried_noise = None if carried is None else carried.to(self.device)
        self.round_timestep = kept["timestep"]
        decode = self._decoded if self._in_pixels else None
        self.replay.load_state(kept["rounds"], device=self.device, decode=decode)
        for generator, saved in zip((self.host_generator, self.device_generator), generators, strict=True):
            restore_generator(generator, saved)
