"""The field's check passes what is right and names what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sdi_gs.doctor.check_field import check_field, rough_field
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.representations.ngp.ngp import Ngp
from sdi_gs.representations.ngp.rendering import FieldRender
from sdi_gs.settings.ngp import NgpConfig

pytestmark = pytest.mark.slow


def test_the_kernels_pass_beside_torch(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    rows = list(check_field(setup))
    assert failures(rows) == []
    assert {"rgb: worst pixel", "alpha: worst pixel", "depth by opacity: worst pixel", "gradient of field.table"} <= {
        row.what for row in rows
    }
    assert all(row.figure is not None and row.figure > 0.0 for row in rows if row.verdict == "pass"), "two sides differ"
    assert [row.what for row in rows if row.verdict == "skipped"] == ["nerfacc's compositing"]


@pytest.mark.parametrize("name", ["table", "density_hidden", "density_out", "albedo_hidden", "albedo_out"])
def test_a_gradient_that_is_off_is_named(name: str, setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    def tested(config: NgpConfig, device: torch.device) -> Ngp:
        field = rough_field(config, device)
        field.field.params[name].register_hook(lambda gradient: 1.05 * gradient)
        return field

    assert failures(check_field(setup, tested=tested)) == [f"gradient of field.{name}"]


def test_a_denser_field_is_seen_in_the_picture(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    def tested(config: NgpConfig, device: torch.device) -> Ngp:
        field = rough_field(config, device)
        plain = field.field._bump

        def denser(points: Tensor) -> Tensor:
            return plain(points) + 0.05

        field.field._bump = denser
        return field

    assert {"rgb: worst pixel", "alpha: worst pixel"} <= set(failures(check_field(setup, tested=tested)))


def with_depth(change: Callable[[FieldRender, Tensor], Tensor]) -> Callable[[NgpConfig, torch.device], Ngp]:
    """A field whose depths are what ``change`` makes of a render and its depths."""

    def build(config: NgpConfig, device: torch.device) -> Ngp:
        field = rough_field(config, device)
        render = field.render

        def changed(*args: Any, **kwargs: Any) -> FieldRender:
            made = render(*args, **kwargs)
            assert made.depth is not None
            return replace(made, depth=change(made, made.depth))

        field.render = changed
        return field

    return build


def test_a_depth_that_is_off_where_something_is_seen_is_named(
    setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    nearer = with_depth(lambda _, depth: depth - 0.01)
    assert failures(check_field(setup, tested=nearer)) == ["depth by opacity: worst pixel"]


def test_the_depth_of_what_can_hardly_be_seen_does_not_count(
    setup: CheckSetup, failures: Callable[..., list[str]]
) -> None:
    elsewhere = with_depth(lambda made, depth: torch.where(made.alpha < 3e-4, depth + 4.0, depth))
    assert failures(check_field(setup, tested=elsewhere)) == []
