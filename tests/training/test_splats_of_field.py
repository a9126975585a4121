"""Splats of a field: fitted to its renders, the same every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DensityField, RenderOutput, cube
from sdi_gs.errors import UserError
from sdi_gs.pictures.framing import training_framing
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.settings.cameras import CameraConfig
from sdi_gs.training import splats_of_field
from sdi_gs.training.splats_of_field import FieldFit, psnr_of

CPU = torch.device("cpu")
USUAL = training_framing(CameraConfig())


class Fog:
    """A coloured medium whose splats nobody knows: a few wide Gaussians, rendered as such."""

    def __init__(self) -> None:
        generator, count = torch.Generator().manual_seed(0), 60
        self.hidden = Gaussians(
            {
                "means": 0.4 * torch.randn(count, 3, generator=generator),
                "scales": torch.full((count, 3), -2.0),
                "quats": torch.randn(count, 4, generator=generator),
                "opacities": torch.full((count,), 2.0),
                "sh0": torch.randn(count, 1, 3, generator=generator),
            }
        )
        self.device, self.num_points = CPU, 0

    def describe(self) -> str:
        return "a fog"

    def render(self, cameras: CameraBatch, background: Tensor, *, with_depth: bool = False) -> RenderOutput:
        return self.hidden.render(cameras, background, with_depth=with_depth)

    def detached_copy(self) -> Fog:
        return self

    def splats(self) -> None:
        return None

    def density(self, *, resolution: int | None = None) -> DensityField | None:
        return self.hidden.density(resolution=resolution)


class Bare(Fog):
    """A scene that is nothing but its pictures."""

    def density(self, *, resolution: int | None = None) -> DensityField | None:
        return None


class Void(Fog):
    """A field with nothing in it."""

    def density(self, *, resolution: int | None = None) -> DensityField | None:
        return DensityField(
            density_of=lambda points: torch.zeros(len(points)), albedo_of=torch.zeros_like, box=cube(1.0)
        )


@pytest.fixture(autouse=True)
def small_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splats_of_field, "VIEW_SIZE", 48)


def fitted(steps: int, seed: int = 0) -> tuple[FieldFit, list[int]]:
    heard: list[int] = []
    fit = splats_of_field.splats_of_field(Fog(), USUAL, count=400, steps=steps, seed=seed, after_step=heard.append)
    return fit, heard


def test_a_fit_comes_much_closer_to_the_field_and_reports_its_steps() -> None:
    fit, heard = fitted(60)
    assert heard == list(range(1, 61))
    assert (fit.steps, len(fit.gaussians)) == (60, 400)
    assert fit.psnr > fit.sampled_psnr + 4.0
    # Views that neither the calibration nor the fit has seen.
    other, field = USUAL.ring(7, 48, elevation_deg=40.0), Fog()
    wanted = field.render(other, torch.ones(7, 3)).rgb.detach()
    unfitted, _ = fitted(0)
    assert psnr_of(fit.gaussians, other, wanted) > psnr_of(unfitted.gaussians, other, wanted) + 3.0
    assert "60 steps of fitting" in fit.line()
    assert "not fitted" in unfitted.line()


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    (one, _), (two, _), (three, _) = fitted(3), fitted(3), fitted(3, seed=1)
    assert all(torch.equal(one.gaussians.params[name], two.gaussians.params[name]) for name in one.gaussians.params)
    assert not torch.equal(one.gaussians.params["means"], three.gaussians.params["means"])


def test_without_steps_the_splats_are_as_they_were_sampled() -> None:
    fit, heard = fitted(0)
    assert (heard, fit.psnr) == ([], fit.sampled_psnr)


def test_what_has_no_density_and_what_is_empty_is_refused() -> None:
    with pytest.raises(UserError, match="cannot make splats: a fog has neither splats nor a density"):
        splats_of_field.splats_of_field(Bare(), USUAL, count=400, steps=1, seed=0)
    with pytest.raises(UserError, match="the field is nearly empty"):
        splats_of_field.splats_of_field(Void(), USUAL, count=20, steps=1, seed=0)
