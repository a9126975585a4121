"""The rasteriser's check passes what is right and names what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.doctor.check_rasterizer import check_rasterizer
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.rasterize import rasterization

pytestmark = pytest.mark.slow

Answer = tuple[Tensor, Tensor, dict[str, Any]]


def test_the_kernels_pass_beside_float64(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    rows = list(check_rasterizer(setup))
    assert failures(rows) == []
    assert {row.what.partition(":")[0] for row in rows} >= {"image", "alpha", "depth", "radii"}
    gradients = {row.what.removeprefix("gradient of ") for row in rows if row.what.startswith("gradient")}
    assert gradients == {
        *("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds", "means2d"),
    }
    for row in rows:
        assert len(row.details) == 22, "every case counts"


def brighter(answer: Answer) -> Answer:
    colours, alpha, meta = answer
    return torch.cat([colours[..., :3] + 3e-4, colours[..., 3:]], dim=-1), alpha, meta


def farther(answer: Answer) -> Answer:
    colours, alpha, meta = answer
    return torch.cat([colours[..., :3], colours[..., 3:] * 1.001], dim=-1), alpha, meta


def broken_pixel(answer: Answer) -> Answer:
    colours, alpha, meta = answer
    spot = torch.zeros_like(alpha)
    spot[0, 3, 3] = float("nan")
    return colours, alpha + spot, meta


def wider(answer: Answer) -> Answer:
    colours, alpha, meta = answer
    return colours, alpha, meta | {"radii": meta["radii"] + 2 * (meta["radii"] > 0)}


def fewer(answer: Answer) -> Answer:
    colours, alpha, meta = answer
    radii = meta["radii"].clone()
    radii[: len(radii) // 2 + 1] = 0
    return colours, alpha, meta | {"radii": radii}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (brighter, "image: pixels off"),
        (farther, "depth: pixels off"),
        (broken_pixel, "alpha: worst pixel"),
        (wider, "radii: largest difference"),
        (fewer, "visible Gaussians that differ"),
    ],
)
def test_a_wrong_picture_or_radius_is_named(
    wrong: Callable[[Answer], Answer], named: str, setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    rows = check_rasterizer(setup, tested=lambda **given: wrong(rasterization(**given)), oracle=rasterization)
    assert named in failures(rows)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds"])
def test_a_gradient_that_is_off_in_one_mode_is_named_with_its_case(
    name: str, setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    class Stretched(torch.autograd.Function):
        """A value whose gradient comes back 2 % too long."""

        @staticmethod
        def forward(ctx: Any, value: Tensor) -> Tensor:
            return value.view_as(value)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return 1.02 * gradients[0]

    def tested(**given: Any) -> Answer:
        if given["packed"] and given["rasterize_mode"] == "antialiased" and given["sh_degree"] == 2:
            given[name] = Stretched.apply(given[name])
        return rasterization(**given)

    rows = list(check_rasterizer(setup, tested=tested, oracle=rasterization))
    assert failures(rows) == [f"gradient of {name}"]
    [row] = [row for row in rows if row.verdict == "fail"]
    assert row.note == "worst: antialiased, degree 2, packed"
    assert row.figure == pytest.approx(0.02, rel=1e-3)


def test_a_gradient_that_does_not_come_is_a_failure(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    def tested(**given: Any) -> Answer:
        return rasterization(**given | {"quats": given["quats"].detach()})

    assert failures(check_rasterizer(setup, tested=tested, oracle=rasterization)) == ["gradient of quats"]


def test_a_case_that_stops_is_named_and_the_others_are_looked_at(
    setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    def tested(**given: Any) -> Answer:
        if given["packed"] and given["sh_degree"] == 2:
            raise AssertionError("torch.Size([2, 4])")
        return rasterization(**given)

    rows = list(check_rasterizer(setup, tested=tested))
    assert failures(rows) == ["classic, degree 2, packed", "antialiased, degree 2, packed"]
    assert next(row for row in rows if row.verdict == "fail").note == "AssertionError: torch.Size([2, 4])"
    assert "image: worst pixel" in {row.what for row in rows}
