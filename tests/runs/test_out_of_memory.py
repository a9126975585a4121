"""A step that runs out of memory is taken again with less, and the run is the one that had less from there on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refusal
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import NoiseSchedule
from sdi_gs.devices import is_out_of_memory
from sdi_gs.errors import UserError
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.runs.checkpoint import list_checkpoints, pack_state
from sdi_gs.runs.console_observer import line_of
from sdi_gs.runs.events import CheckpointSaved, Event, Observer, StepDone, TierLowered
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loop import keep_within_tier, run, train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.runs.saving import save_state
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TierName, tier_named
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
STEPS, FAILING = 6, 3


def gaussians_of(trainer: Trainer) -> Gaussians:
    assert isinstance(trainer.scene.representation, Gaussians)
    return trainer.scene.representation


class SmallCard:
    """A prior of one grey image on a card that holds so many views at once, from some step on."""

    name = "small"
    image_size = 32
    knows_cameras = False

    def __init__(self) -> None:
        self.schedule: NoiseSchedule = scaled_linear_schedule()
        self.room = 64
        self.at_once = 64
        self.sizes: list[int] = []
        self.error: Exception = torch.OutOfMemoryError("a card that is full")

    def configure(self, compute: ComputeConfig) -> None:
        self.at_once = compute.encoded_at_once or 64

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 4)

    def encode_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        # The draw of a step that is given up must be taken back.
        noise = 1e-3 * torch.randn(images.shape, generator=generator).permute(0, 3, 1, 2)
        self.hold(min(len(images), self.at_once))
        return images.permute(0, 3, 1, 2) + noise

    def decode_latents(self, latents: Tensor) -> Tensor:
        return latents.permute(0, 2, 3, 1)

    def predict_noise(
        self, noised_latents: Tensor, timestep: int, embeddings: Tensor, cameras: CameraBatch | None = None
    ) -> Tensor:
        level = self.schedule.alpha_cumprod(timestep)
        return (noised_latents - 0.5 * level**0.5) / (1.0 - level) ** 0.5

    def hold(self, views: int) -> None:
        self.sizes.append(views)
        if views > self.room:
            raise self.error


def config(replay: ReplayConfig | None = None, **compute: object) -> RunConfig:
    base = preset_named("smoke").config
    return replace(
        base,
        prompt="a blue robot",
        steps=STEPS,
        views_per_step=4,
        replay=replay or ReplayConfig(),
        gaussians=replace(base.gaussians, num_initial=120),
        guidance=replace(base.guidance, noise="cached"),
        outputs=replace(base.outputs, preview_every=0, checkpoint_every=2),
        compute=ComputeConfig(**compute),  # pyright: ignore[reportArgumentType]
    )


def start(
    monkeypatch: pytest.MonkeyPatch, folder: Path, prior: SmallCard, settings: RunConfig | None = None
) -> tuple[Trainer, RunFolder]:
    monkeypatch.setattr("sdi_gs.runs.prepare.load_prior", lambda *_, **__: prior)
    return prepare_run(settings or config(), device=CPU, folder=folder)


def shrinks(prior: SmallCard, room: int) -> Observer:
    """An observer after whose step ``FAILING`` - 1 the card has less room."""

    def observe(event: Event) -> None:
        if isinstance(event, StepDone) and event.report.step == FAILING - 1:
            prior.room = room

    return observe


def assert_equal_states(left: Trainer, right: Trainer) -> None:
    (tensors, rest), (others, other_rest) = pack_state(left.state()), pack_state(right.state())
    assert rest == other_rest
    assert [name for name, value in tensors.items() if not torch.equal(value, others[name])] == []


@pytest.mark.parametrize(("room", "name"), [(2, "24"), (1, "16")])
@pytest.mark.parametrize("replay", [None, ReplayConfig(steps_per_target=4, views=8)], ids=["new targets", "kept ones"])
def test_the_run_ends_as_one_that_took_the_lower_tier_from_that_step_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: int, name: TierName, replay: ReplayConfig | None
) -> None:
    prior, events = SmallCard(), list[Event]()
    trainer, folder = start(monkeypatch, tmp_path / "run", prior, config(replay))
    assert train(trainer, folder, observers=[shrinks(prior, room), events.append])

    planned = Trainer(config(replay), SmallCard(), device=CPU)
    while planned.step < FAILING - 1:
        planned.train_step()
    planned.change_settings(replace(planned.config, compute=trainer.config.compute))
    while planned.step < STEPS:
        planned.train_step()
    assert_equal_states(trainer, planned)
    # The first tier that helps: the VAE takes as few views as there is room for, the U-Net all of them still.
    tier = tier_named(name)
    compute = trainer.config.compute
    assert (compute.views_at_once, compute.encoded_at_once) == (0, room)
    assert (tier.compute.views_at_once, tier.compute.encoded_at_once) == (0, room)
    last = [event for event in events if isinstance(event, TierLowered)][-1]
    assert (last.step, last.tier) == (FAILING, tier)
    said = line_of(last)
    assert f"step {FAILING}: out of memory" in said
    assert f"tier {name} " in said
    assert "\n" not in said


def test_log_and_checkpoint_remember_so_that_a_resumed_run_keeps_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prior = SmallCard()
    trainer, folder = start(monkeypatch, tmp_path / "run", prior)
    train(
        trainer,
        folder,
        observers=[shrinks(prior, 1)],
        should_stop=lambda: trainer.step == FAILING + 1,
    )
    save_state(trainer, folder)
    lines = [json.loads(line) for line in folder.steps.read_text().splitlines()]
    changes = [line["changed"] for line in lines if line.get("event")]
    assert [change.get("compute.vae_views_at_once") for change in changes] == [2, 1]
    assert [line["step"] for line in lines if not line.get("event")] == [1, 2, 3, 4]

    prior.sizes.clear()
    resumed, folder = prepare_resume(folder.path, device=CPU)
    assert resumed.config.compute.vae_views_at_once == 1
    assert train(resumed, folder)
    assert set(prior.sizes) == {1}
    straight = Trainer(config(), SmallCard(), device=CPU)
    for _ in range(STEPS):
        straight.train_step()
    # The same draws: only the order of sums differs between the tiers.
    torch.testing.assert_close(gaussians_of(resumed).params["means"], gaussians_of(straight).params["means"])


def test_the_lowest_tier_ends_the_run_in_one_line_with_the_state_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prior, events = SmallCard(), list[Event]()
    trainer, folder = start(monkeypatch, tmp_path / "run", prior)
    with pytest.raises(UserError, match=rf"step {FAILING}: out of memory with all that saves") as stopped:
        train(trainer, folder, observers=[shrinks(prior, 0), events.append])
    assert "\n" not in str(stopped.value)
    assert trainer.step == FAILING - 1
    assert [path.name for path in folder.checkpoints.iterdir()] == [f"step_{FAILING - 1:06d}"]
    lowered = [event.tier.name for event in events if isinstance(event, TierLowered)]
    assert lowered == ["24", "16", "12", "8"]
    # What follows the last tier is the checkpoint.
    assert isinstance(events[-1], CheckpointSaved)


def errors_of_the_host() -> list[Exception]:
    """What torch and numpy raise when the host has no memory, asked for more than there is anywhere."""
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**60, np.uint8)
    assert not isinstance(of_torch.value, torch.OutOfMemoryError)
    return [of_torch.value, of_numpy.value, MemoryError(), RuntimeError("std::bad_alloc")]


def test_errors_of_memory_are_told_apart_from_others() -> None:
    of_cards = [torch.OutOfMemoryError("no room"), RuntimeError("CUDA error: out of memory")]
    assert all(map(is_out_of_memory, [*errors_of_the_host(), *of_cards]))
    others = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError("x")]
    assert not any(map(is_out_of_memory, others))


@pytest.mark.parametrize("kind", range(4))
def test_memory_of_the_host_that_runs_out_is_handled_as_that_of_a_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: int
) -> None:
    prior, events = SmallCard(), list[Event]()
    prior.error = errors_of_the_host()[kind]
    trainer, folder = start(monkeypatch, tmp_path / "run", prior)
    train(trainer, folder, observers=[shrinks(prior, 2), events.append], should_stop=lambda: trainer.step >= 4)
    assert [event.tier.name for event in events if isinstance(event, TierLowered)] == ["24"]
    prior.room = 0
    with pytest.raises(UserError, match="step 5: out of memory with all that saves") as stopped:
        train(trainer, folder)
    assert f"go on with sdi-gs train --resume {folder.path}, or with --views-per-step 2 as well" in str(stopped.value)
    # The finished step is saved, and not only the one that was due.
    assert list_checkpoints(folder.checkpoints)[-1].name == "step_000004"
    prior.room = 64
    assert_equal_states(prepare_resume(folder.path, device=CPU)[0], trainer)


def test_another_error_of_a_step_is_not_taken_for_one_of_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prior = SmallCard()
    prior.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    trainer, folder = start(monkeypatch, tmp_path / "run", prior)
    with pytest.raises(RuntimeError, match="mat1"):
        train(trainer, folder, observers=[shrinks(prior, 2)])


@pytest.mark.parametrize("kind", range(4))
def test_memory_that_runs_out_elsewhere_is_one_line_with_the_way_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: int
) -> None:
    trainer, folder = start(monkeypatch, tmp_path / "run", SmallCard())

    def full(*_: object, **__: object) -> None:
        raise errors_of_the_host()[kind]

    monkeypatch.setattr("sdi_gs.runs.finish.write_splat_ply", full)
    resume = f"sdi-gs train --resume {folder.path}"
    with pytest.raises(UserError, match="out of memory: close other programs; step_000006 is saved; go on") as stopped:
        run(trainer, folder)
    assert str(stopped.value).endswith(resume)


def test_a_command_that_runs_out_of_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in errors_of_the_host():

        def full(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("sdi_gs.runs.loading.load", full)
        assert "out of memory" in refusal(["render", str(tmp_path)], capsys)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["card", "host"])
def test_a_card_too_full_for_the_networks_is_one_line_and_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def load(*_: object, **__: object) -> SmallCard:
        raise error

    monkeypatch.setattr("sdi_gs.runs.prepare.load_prior", load)
    with pytest.raises(UserError, match="too little free memory to load the networks and the scene") as stopped:
        prepare_run(config(), device=CPU, folder=tmp_path / "run")
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "run").exists()


def test_memory_that_ends_once_parameters_move_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config(), SmallCard(), device=CPU)
    trainer.train_step()
    scene = trainer.scene
    assert isinstance(scene, GaussianScene)
    last = list(scene.optimizers.values())[-1]

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("no room for moments")

    last.register_step_pre_hook(fails)
    with pytest.raises(UserError, match="step 2: out of memory while the optimisers moved"):
        trainer.train_step()


def test_a_resumed_run_saves_at_least_what_the_tier_saves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trainer, folder = start(monkeypatch, tmp_path / "run", SmallCard())
    keep_within_tier(trainer, folder, tier_named("12"))
    assert trainer.config.compute == tier_named("12").compute
    keep_within_tier(trainer, folder, tier_named("40"))
    assert trainer.config.compute == tier_named("12").compute
    assert len(trainer.changes) == 1
