"""A renderer of one's own in the trainer: run folder, resume, export, and what the program says of such a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, camera_rays
from sdi_gs.commands.main import main
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import DensityField, RenderOutput, StartScene, cube
from sdi_gs.errors import NonFiniteError, UserError
from sdi_gs.pictures.views import render_views, ring_cameras
from sdi_gs.priors.catalog import load_prior
from sdi_gs.representations.initial_gaussians import initial_gaussians
from sdi_gs.representations.parameter_scene import ParameterScene
from sdi_gs.runs.checkpoint import latest_checkpoint, load_checkpoint
from sdi_gs.runs.export import export
from sdi_gs.runs.finish import finish
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loading import load, load_run_scene
from sdi_gs.runs.loop import train
from sdi_gs.runs.prepare import prepare_resume, prepare_run
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.settings.run import OutputConfig, RunConfig
from sdi_gs.splats.splat_cloud import SplatCloud, sh_dc_from_rgb
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
STEPS = 6


class Ball(ParameterScene):
    """A soft ball of one colour: nothing but ``render`` is written."""

    def __init__(self) -> None:
        super().__init__(
            {"radius": torch.tensor([0.6]), "colour": torch.zeros(3)}, learning_rates={"radius": 0.01, "colour": 0.2}
        )

    def render(self, cameras: CameraBatch, background: Tensor, **_: Any) -> RenderOutput:
        rays = camera_rays(cameras)
        nearest = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1)
        alpha = torch.sigmoid(40.0 * (self.params["radius"] - nearest))
        alpha = alpha.view(len(cameras), cameras.height, cameras.width, 1)
        colour = torch.sigmoid(self.params["colour"])
        return RenderOutput(rgb=alpha * colour + (1.0 - alpha) * background[:, None, None], alpha=alpha)


class SolidBall(Ball):
    """The same with a density, so that it can be exported as a mesh and start splats."""

    def density(self, *, resolution: int | None = None) -> DensityField:
        radius, colour = self.params["radius"].detach(), torch.sigmoid(self.params["colour"].detach())
        return DensityField(
            density_of=lambda points: 100.0 * torch.sigmoid(40.0 * (radius - points.norm(dim=-1))),
            albedo_of=lambda points: colour.expand(len(points), 3),
            box=cube(1.0),
            surface_level=50.0,
        )


class OneSplat(Ball):
    """The same as a single splat."""

    def splats(self) -> SplatCloud:
        colour = torch.sigmoid(self.params["colour"].detach())
        return SplatCloud(
            means=torch.zeros(1, 3),
            log_scales=self.params["radius"].detach().log().expand(1, 3),
            quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
            opacity_logit=torch.tensor([4.0]),
            sh_dc=sh_dc_from_rgb(colour)[None],
            sh_rest=torch.zeros(1, 0, 3),
        )


def config(**changes: Any) -> RunConfig:
    base = preset_named("smoke").config
    small = replace(
        base,
        prompt="a blue robot",
        steps=STEPS,
        ideal_prior=replace(base.ideal_prior, renders_per_view=2, unconditional_renders=4),
        outputs=OutputConfig(preview_every=3, checkpoint_every=2, turntable_frames=0, turntable_size=32),
    )
    return replace(small, **changes)


def trained(folder: Path, scene: ParameterScene, *, stop: int = STEPS) -> tuple[Trainer, RunFolder]:
    trainer, run = prepare_run(config(), device=CPU, folder=folder, scene=scene)
    train(trainer, run, should_stop=lambda: trainer.step == stop)
    finish(trainer, run, started=0.0)
    return trainer, run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of a ball."""
    return trained(tmp_path_factory.mktemp("runs") / "ball", Ball())[1]


def summary_of(run: RunFolder) -> dict[str, Any]:
    return json.loads(run.summary.read_text())


def test_a_scene_of_ones_own_is_trained_and_leaves_a_runs_files(run: RunFolder) -> None:
    files = {path.name for path in run.path.iterdir()}
    assert {"config.yaml", "steps.jsonl", "checkpoints", "previews", "contact_sheet.png", "summary.json"} <= files
    assert "splats.ply" not in files
    summary = summary_of(run)
    assert (summary["representation"], summary["n_gaussians"], summary["n_exported"]) == ("Ball", 0, 0)
    assert summary["step"] == STEPS
    assert len(list(run.previews.iterdir())) == 2


def test_its_parameters_move_towards_what_the_prompt_names(run: RunFolder) -> None:
    scene = Ball()
    before = torch.sigmoid(scene.params["colour"].detach())
    load_run_scene(run.path, scene=scene)
    after = torch.sigmoid(scene.params["colour"].detach())
    assert float(after[2] - after[0]) > float(before[2] - before[0]) + 0.03, "bluer"


@pytest.mark.parametrize("stop", [2, 5])
def test_a_resumed_run_ends_bit_equal(run: RunFolder, tmp_path: Path, stop: int) -> None:
    trained(tmp_path / "stopped", Ball(), stop=stop)
    trainer, folder = prepare_resume(tmp_path / "stopped", device=CPU, scene=Ball())
    assert trainer.step == stop
    assert train(trainer, folder)
    finish(trainer, folder, started=0.0)
    ours, theirs = (load_checkpoint(latest_checkpoint(each.checkpoints)) for each in (folder, run))
    assert set(ours.tensors) == set(theirs.tensors)
    assert [name for name, value in ours.tensors.items() if not torch.equal(value, theirs.tensors[name])] == []
    assert folder.contact_sheet.read_bytes() == run.contact_sheet.read_bytes()


def test_it_is_loaded_and_rendered_from_python(run: RunFolder) -> None:
    loaded = load(run.path, scene=Ball())
    assert loaded.run is not None
    assert (loaded.run.step, loaded.run.representation, loaded.prompt) == (STEPS, "Ball", "a blue robot")
    views = render_views(loaded.representation, ring_cameras(config().cameras, 2, 32, elevation_deg=15.0))
    assert views.rgb.shape == (2, 32, 32, 3)
    assert 0.05 < float(views.alpha.mean()) < 0.9


@pytest.mark.parametrize(
    "command",
    [
        ["view"],
        ["render", "--views", "2", "--frames", "0"],
        ["export"],
        ["export", "--format", "glb"],
        ["eval"],
        ["train", "--resume"],
        ["train", "--preset", "smoke", "--prompt", "a blue robot", "--init-from"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_the_program_refuses_it_in_one_line(
    run: RunFolder,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command
    arguments = [name, *options, str(run.path)] if name == "train" else [name, str(run.path), *options]
    assert main(arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sdi-gs: ")]
    assert len(said) == 1
    assert f"{run.path} is a run of a scene of one's own, Ball" in said[0]
    assert "scene=Ball(...)" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_scene_of_another_class_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pass scene=Ball\(\.\.\.\).*, not a SolidBall"):
        load(run.path, scene=SolidBall())
    trainer, folder = prepare_run(config(), device=CPU, folder=tmp_path / "gaussians")
    finish(trainer, folder, started=0.0)
    with pytest.raises(UserError, match="is a run of representation gaussians, not of a Ball"):
        prepare_resume(folder.path, device=CPU, scene=Ball())


def test_a_state_of_other_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit a Ball"):
        Ball().load_state({"gaussians": {}})
    with pytest.raises(ValueError, match="learning_rates must name radius, not size"):

        class Sized(Ball):
            def __init__(self) -> None:
                ParameterScene.__init__(self, {"radius": torch.ones(1)}, learning_rates={"size": 0.1})

        Sized()


def test_a_scene_without_splats_or_density_says_so_on_export(run: RunFolder, tmp_path: Path) -> None:
    loaded = load(run.path, scene=Ball())
    with pytest.raises(UserError, match="cannot make splats: a Ball has neither splats nor a density"):
        export(loaded, tmp_path / "ball.ply")
    with pytest.raises(UserError, match="cannot make a mesh: a Ball has no density"):
        export(loaded, tmp_path / "ball.glb")
    assert list(tmp_path.iterdir()) == []


def test_a_scene_with_a_density_is_exported_as_a_mesh_and_starts_splats(tmp_path: Path) -> None:
    _, folder = trained(tmp_path / "solid", SolidBall(), stop=1)
    scene = SolidBall()
    loaded = load(folder.path, scene=scene)
    made = export(loaded, tmp_path / "solid.glb", mesh=MeshConfig(resolution=48))
    assert "watertight" in made.summary
    assert made.path.stat().st_size > 10_000
    views = ring_cameras(config().cameras, 4, 32, elevation_deg=15.0)
    gaussians = initial_gaussians(
        GaussiansConfig(init="run", init_from="solid", num_initial=300),
        generator=torch.Generator().manual_seed(0),
        device=CPU,
        start=StartScene(representation=scene, cameras=views),
    )
    assert len(gaussians) == 300
    radius = float(scene.params["radius"].detach())
    assert float(gaussians.params["means"].detach().norm(dim=-1).median()) == pytest.approx(radius, abs=0.1)


def test_a_scene_with_splats_leaves_a_splat_file(tmp_path: Path) -> None:
    trainer, folder = trained(tmp_path / "splat", OneSplat(), stop=1)
    assert (summary_of(folder)["n_gaussians"], summary_of(folder)["n_exported"]) == (1, 1)
    splats = load(folder.splats).splats()
    torch.testing.assert_close(splats.log_scales[0, 0], trainer.scene.state()["params"]["radius"].log()[0])


def test_a_start_without_splats_or_density_is_refused() -> None:
    views = ring_cameras(config().cameras, 2, 32, elevation_deg=15.0)
    with pytest.raises(UserError, match="cannot start from runs/ball: a Ball has neither splats nor a density"):
        initial_gaussians(
            GaussiansConfig(init="run", init_from="runs/ball"),
            generator=torch.Generator(),
            device=CPU,
            start=StartScene(representation=Ball(), cameras=views),
        )


def test_a_step_that_comes_to_nothing_leaves_the_scene_as_it_was() -> None:
    settings = config()
    prior = load_prior(settings, device=CPU)
    trainer = Trainer(settings, prior, device=CPU, scene=Ball())
    trainer.train_step()
    before = {name: value.clone() for name, value in trainer.scene.state()["params"].items()}
    encode = prior.encode_images
    prior.encode_images = lambda images, generator: encode(images, generator) * torch.nan
    with pytest.raises(NonFiniteError, match="non-finite latents"):
        trainer.train_step()
    after = trainer.scene.state()["params"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert trainer.scene.gradients() == {}


def test_its_learning_rates_follow_the_runs() -> None:
    settings = config(learning_rate_scale=0.5)
    prior = load_prior(settings, device=CPU)
    scene = Ball()
    trainer = Trainer(settings, prior, device=CPU, scene=scene)
    assert [group["lr"] for group in scene.optimizer.param_groups] == pytest.approx([0.005, 0.1])
    trainer.change_settings(replace(settings, learning_rate_scale=2.0))
    assert [group["lr"] for group in scene.optimizer.param_groups] == pytest.approx([0.02, 0.4])


def test_a_copy_stays_as_it_was_when_training_goes_on() -> None:
    settings = config()
    trainer = Trainer(settings, load_prior(settings, device=CPU), device=CPU, scene=Ball())
    copied = trainer.scene.representation.detached_copy()
    cameras = ring_cameras(settings.cameras, 1, 16, elevation_deg=0.0)
    before = render_views(copied, cameras).rgb
    trainer.train_step()
    assert torch.equal(render_views(copied, cameras).rgb, before)
    assert not torch.equal(render_views(trainer.scene.representation, cameras).rgb, before)


def test_a_scene_on_another_device_is_refused() -> None:
    settings = config()
    scene = Ball()
    scene.params = {name: torch.nn.Parameter(value.to("meta")) for name, value in scene.params.items()}
    with pytest.raises(ValueError, match="the scene is on meta, the trainer on cpu"):
        Trainer(settings, load_prior(settings, device=CPU), device=CPU, scene=scene)


def test_a_state_key_of_the_trainers_own_is_refused() -> None:
    class Clash(Ball):
        def state(self) -> dict[str, Any]:
            return super().state() | {"step": 3}

    settings = config()
    prior = load_prior(settings, device=CPU)
    with pytest.raises(ValueError, match="must not have the key 'step'"):
        Trainer(settings, prior, device=CPU, scene=Clash()).state()
