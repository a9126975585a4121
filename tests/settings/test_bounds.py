"""Bounds of settings: how they are declared, checked and written, and that every number of a run has some."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from sdi_gs.commands.eval import Eval
from sdi_gs.commands.render import Render
from sdi_gs.commands.view import View
from sdi_gs.settings.bounds import Range, check_settings, range_of
from sdi_gs.settings.mesh import MeshConfig
from sdi_gs.settings.probe import ProbeOptions
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One field of every kind."""

    share: Annotated[float, Range(0.0, 1.0)] = 0.5
    open_share: Annotated[float, Range(0.0, 1.0, low_open=True, high_open=True)] = 0.5
    count: Annotated[int, Range(1, 64)] = 1
    group: Annotated[int, Range(4, 64, multiple_of=4, zero_means="all")] = 0
    limit: Annotated[float | None, Range(1.0, 9.0, low_open=True)] = None
    pair: Annotated[tuple[float, float], Range(-90.0, 90.0, ordered=True)] = (0.0, 0.0)
    many: Annotated[tuple[int, ...], Range(1, 9)] = (9, 1)
    kind: Literal["a", "b"] = "a"
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    choice: Literal[1, 2] | None = None
    text: str = ""

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    "accepted",
    [
        *({"share": value} for value in (0.0, 1.0, 1)),
        {"open_share": 0.001},
        *({"count": value} for value in (1, 64)),
        *({"group": value} for value in (0, 4, 64)),
        *({"limit": value} for value in (None, 1.01, 9)),
        *({"pair": value} for value in ((-90.0, 90.0), (3.0, 3.0))),
        *({"many": value} for value in ((), (5, 3, 9))),
        {"kinds": ("b", "a", "b")},
        {"choice": 2},
    ],
    ids=str,
)
def test_what_lies_within_the_bounds_is_accepted(accepted: dict[str, Any]) -> None:
    [(name, value)] = accepted.items()
    assert getattr(Sample(**accepted), name) == value


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": -0.1}, "share must be 0 to 1, got -0.1"),
        ({"share": math.nan}, "share must be 0 to 1, got nan"),
        ({"share": math.inf}, "share must be 0 to 1, got inf"),
        ({"share": "half"}, "share must be a number, got 'half'"),
        ({"open_share": 0.0}, "open_share must be above 0 and below 1, got 0.0"),
        ({"open_share": 1.0}, "open_share must be above 0 and below 1, got 1.0"),
        ({"count": 65}, "count must be 1 to 64, got 65"),
        ({"count": 1.0}, "count must be a whole number, got 1.0"),
        ({"count": True}, "count must be a whole number, got True"),
        ({"group": 2}, "group must be 0 (all) or 4 to 64, a multiple of 4, got 2"),
        ({"group": 6}, "group must be 0 (all) or 4 to 64, a multiple of 4, got 6"),
        ({"group": -4}, "group must be 0 (all) or 4 to 64, a multiple of 4, got -4"),
        ({"limit": 1.0}, "limit must be above 1 and at most 9, got 1.0"),
        ({"pair": (1.0, -1.0)}, "pair must be an ordered pair within -90 to 90, got 1.0 -1.0"),
        ({"pair": (0.0, 91.0)}, "pair must be -90 to 90, got 91.0"),
        ({"pair": (0.0, math.nan)}, "pair must be -90 to 90, got nan"),
        ({"pair": (0.0,)}, "pair must be a tuple of 2, got (0.0,)"),
        ({"pair": [0.0, 1.0]}, "pair must be a tuple of 2, got [0.0, 1.0]"),
        ({"many": (1, 10)}, "many must be 1 to 9, got 10"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"kinds": ("a", "c")}, "kinds must be one of a, b, got 'c'"),
        ({"choice": 3}, "choice must be one of 1, 2, got 3"),
    ],
    ids=str,
)
def test_anything_else_is_refused_by_name_with_the_accepted_values(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the text is compared below)
        Sample(**wrong)
    assert str(refused.value) == says


def test_a_number_without_bounds_is_a_mistake_of_its_author() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Careless:
        steps: int = 3

        def __post_init__(self) -> None:
            check_settings(self)

    # The annotations of a class within a function are resolved by what the module knows.
    with pytest.raises(TypeError, match="steps declares no Range"):
        Careless()


def test_the_bounds_of_a_leaf_are_found_by_its_dotted_name() -> None:
    assert range_of(RunConfig, "views_per_step") == Range(1, 64)
    assert range_of(RunConfig, "cameras.elevation_deg") == Range(-90.0, 90.0, ordered=True)
    # Within an optional.
    assert 7.5 in range_of(RunConfig, "guidance.inversion_guidance_scale")
    with pytest.raises(KeyError, match="prompt declares no range"):
        range_of(RunConfig, "prompt")


CONFIGS = (
    RunConfig(),
    MeshConfig(),
    StagesConfig(),
    ProbeOptions(prompt="a red ball"),
    Render(source=Path("run")),
    Eval(sources=(Path("run"),)),
    View(source=Path("run")),
)


def numeric_leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any, type[Any], Any]]:
    """Dotted name, owner, int or float, and annotation of every number, by the annotations alone."""
    for field in fields(config):
        value, hint = getattr(config, field.name), typing.get_type_hints(type(config))[field.name]
        name = f"{path}{field.name}"
        if is_dataclass(value):
            yield from numeric_leaves(value, f"{name}.")
            continue
        parts = {hint, *typing.get_args(hint)}
        for kind in (int, float):
            if kind in parts:
                yield name, config, kind, hint


LEAVES = [
    pytest.param(*leaf[1:], leaf[0].rpartition(".")[2], id=f"{type(config).__name__}:{leaf[0]}")
    for config in CONFIGS
    for leaf in numeric_leaves(config)
]


def test_all_numbers_of_a_run_are_found() -> None:
    names = {leaf[0] for leaf in numeric_leaves(RunConfig())}
    assert {"seed", "guidance.gradient_clip", "cameras.distance", "ngp.grid.growth", "outputs.turntable_size"} <= names
    assert len(names) > 80


@pytest.mark.parametrize(("owner", "kind", "hint", "name"), LEAVES)
def test_every_number_refuses_nan_infinity_and_what_is_far_out_of_range(
    owner: Any, kind: type[Any], hint: Any, name: str
) -> None:
    """No bounds of the source are read here: no setting has a use for any of these."""
    far = [math.nan, math.inf, -math.inf, kind(1e30), kind(-1e30)]
    for wrong in far:
        given = wrong
        if typing.get_origin(hint) is tuple:
            # Last, so that pairs stay in order for the large ones.
            given = (*getattr(owner, name)[:-1], wrong)
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got ") as refused:
            dataclasses.replace(owner, **{name: given})
        assert "\n" not in str(refused.value)


MAY_BE_NEGATIVE = ("elevation", "elevation_deg", "guidance_scale", "inversion_guidance_scale", "blob_scale")
"""The numbers that may be negative, by their last names."""


@pytest.mark.parametrize(("owner", "kind", "hint", "name"), LEAVES)
def test_only_angles_scales_and_the_bump_may_be_negative(owner: Any, kind: type[Any], hint: Any, name: str) -> None:
    wrong = kind(-1)
    given = (wrong, *getattr(owner, name)[1:]) if typing.get_origin(hint) is tuple else wrong
    if name in MAY_BE_NEGATIVE and type(owner) is not ProbeOptions:
        replace(owner, **{name: given})
    else:
        with pytest.raises(ValueError, match=f"^{name} must be "):
            replace(owner, **{name: given})


def test_a_list_of_any_length_has_an_end() -> None:
    assert len(ProbeOptions(prompt="a red ball", timesteps=(1,) * 1000).timesteps) == 1000
    with pytest.raises(ValueError, match="^timesteps must have at most 1000 members, got 1001$"):
        ProbeOptions(prompt="a red ball", timesteps=(1,) * 1001)


def test_numbers_that_no_float_can_hold_are_refused_without_being_written_out() -> None:
    for wrong in (10**5000, -(10**5000), 16**100_000):
        for name in ("share", "count"):
            with pytest.raises(ValueError, match=rf"^{name} must be .*, got a number of \d+ bits$"):
                Sample(**{name: wrong})


@pytest.mark.parametrize(
    ("owner", "wrong", "says"),
    [
        (RunConfig(), {"prompt": 3}, "prompt must be a text, got 3"),
        (RunConfig(), {"prompt": "a" * 10_001}, "prompt must have at most 10000 characters, got 10001"),
        (RunConfig().view_prompts, {"back": "caf\udce9"}, r"back must be UTF-8, got 'caf\udce9'"),
        (RunConfig().compute, {"fused_adam": 1}, "fused_adam must be True or False, got 1"),
        (RunConfig().guidance, {"inversion_order": True}, "inversion_order must be one of 1, 2, got True"),
        (RunConfig().gaussians, {"init_fit": "no"}, "init_fit must be True or False, got 'no'"),
        (RunConfig().ngp, {"radius": 1e-300}, "radius must be 0.001 to 1000, got 1e-300"),
        (RunConfig().ngp, {"blob_radius": 1e-300}, "blob_radius must be 0.001 to 1000, got 1e-300"),
        (
            RunConfig().ideal_prior,
            {"unconditional_renders": 1_000_000},
            "unconditional_renders must be at most 122070 with image_size 64, 500 million pixels, got 1000000",
        ),
        (
            RunConfig().ideal_prior,
            {"renders_per_view": 600, "image_size": 1024, "unconditional_renders": 1},
            "renders_per_view must be at most 476 with image_size 1024, 500 million pixels, got 600",
        ),
        (Eval(sources=(Path("run"),)), {"image_size": 1024}, "image_size must be 16 to 512, got 1024"),
    ],
    ids=str,
)
def test_texts_switches_and_sizes_are_checked_where_they_are_declared(
    owner: Any, wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the text is compared below)
        replace(owner, **wrong)
    assert str(refused.value) == says
