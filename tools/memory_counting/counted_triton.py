"""Triton's kernels of a field, counted on tensors without data: the launch is recorded, and nothing is computed.

Reading a corner of a cell takes a sector of memory somewhere in the table, which the points of a warp share if they
need the same one (``field_samples``); an atomic addition reads and writes a sector. Tables that stay in a card's cache
would make it faster, so that this is an upper bound. A product of networks is three in TF32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

from torch import Tensor

import sdi_gs.representations.ngp.kernels as kernels_of_fields
from memory_counting.meter import StepMeter
from sdi_gs.representations.ngp import compositing, marching, networks

SECTOR_BYTES = 32
"""The least that a card reads from memory."""
CORNERS = 8
NUMBER, LONG = 4, 8
"""Bytes."""
POINT, PAIR = 3 * NUMBER, 2 * NUMBER
"""Bytes of three coordinates, and of what a point has on a level."""
PRODUCTS = 3
"""TF32 products that make one of float32."""


@contextmanager
def triton_counted(meter: StepMeter) -> Iterator[None]:
    """Let fields on the meta device take Triton's way, with kernels that only count."""
    counting = _Counting(meter)
    with ExitStack() as stack:
        for module, name, device_of in (
            (networks, "query_backend", lambda points, *_: points.device),
            (marching, "backend_for", lambda tensor: tensor.device),
            (compositing, "backend_for", lambda tensor: tensor.device),
            (compositing, "compositing_backend", lambda device, _: device),
        ):
            stack.enter_context(patch.object(module, name, _triton_on_meta(getattr(module, name), device_of)))
        stack.enter_context(patch.object(marching, "num_marched", lambda _: counting.marched))
        for name, kernels in counting.modules().items():
            stack.enter_context(patch.dict(sys.modules, {kernels.__name__: kernels}))
            stack.enter_context(patch.object(kernels_of_fields, f"triton_{name}", kernels, create=True))
        yield


def _triton_on_meta(chosen: Callable[..., Any], device_of: Callable[..., Any]) -> Callable[..., Any]:
    def choose(*given: Any) -> Any:
        return "triton" if device_of(*given).type == "meta" else chosen(*given)

    return choose


class _Kernel:
    """Takes launches like a kernel of Triton's."""

    def __init__(self, count: Callable[..., None]) -> None:
        self._count = count

    def __getitem__(self, programs: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **constants: Any) -> None:
            self._count(programs, *arguments, **constants)

        return launch


class _Counting:
    """The kernels' traffic and operations; arguments are those of the kernels, after the numbers of programs."""

    def __init__(self, meter: StepMeter) -> None:
        self._meter = meter
        self.marched = 0
        """Samples that the last walk through the grid found."""

    def modules(self) -> dict[str, ModuleType]:
        """Return stand-ins for the modules of kernels, by their short names."""
        found = {}
        for name, constants, kernels in (
            ("encoding", {"POINTS": 256}, (self.features_forward, self.slopes_forward)),
            ("encoding", {}, (self.directions_backward, self.table_backward)),
            ("networks", {"POINTS": 16, "MOST_UNITS": 64}, (self.forward, self.density_backward)),
            ("networks", {}, (self.albedo_backward,)),
            ("marching", {"RAYS": 128}, (self.count_samples, self.write_samples)),
            ("compositing", {"SAMPLES": 32}, (self.mark_visible, self.composite, self.composite_backward)),
        ):
            module: Any = found.setdefault(name, ModuleType(f"sdi_gs.representations.ngp.kernels.triton_{name}"))
            vars(module).update(constants)
            for kernel in kernels:
                setattr(module, kernel.__name__, _Kernel(kernel))
        return found

    # ---- encoding: every level reads the points anew ----

    def _read(self) -> int:
        """Return the bytes of the table that a point reads on a level."""
        return round(self._meter.assumptions.sector_share * CORNERS * SECTOR_BYTES)

    def features_forward(self, programs: tuple[int, int], points: Tensor, *_: Any, **__: Any) -> None:
        self._meter.record(traffic=len(points) * programs[1] * (self._read() + POINT + PAIR))

    def slopes_forward(self, _: Any, points: Tensor, *rest: Any, **__: Any) -> None:
        self._meter.record(traffic=len(points) * (rest[-1] * (self._read() + PAIR) + 2 * POINT))

    def directions_backward(self, programs: tuple[int, int], points: Tensor, *_: Any, **__: Any) -> None:
        self._meter.record(traffic=len(points) * programs[1] * (self._read() + 2 * POINT + PAIR))

    def table_backward(
        self,
        programs: tuple[int, int],
        points: Tensor,
        *_: Any,
        SLOPES: bool,
        **__: Any,  # noqa: N803
    ) -> None:
        added = 2 * CORNERS * SECTOR_BYTES + POINT + PAIR + (POINT + PAIR if SLOPES else 0)
        self._meter.record(traffic=len(points) * programs[1] * added)

    # ---- networks: features are read once for every group of hidden units ----

    def _network(self, features: Tensor, *, own: int, passes: int, products: int, constants: dict[str, int]) -> None:
        """Record a kernel that reads or writes so many numbers of a point, and the features' size so many times."""
        levels, count = features.shape[:2]
        groups = -(-constants["HIDDEN"] // constants["UNITS"])
        self._meter.record(
            traffic=count * (own * NUMBER + groups * passes * levels * PAIR),
            flops=2 * count * constants["WIDE"] * constants["UNITS"] * groups * products * PRODUCTS,
        )

    def forward(self, _: Any, features: Tensor, *__: Any, COLOUR: bool, SLOPES: bool, **constants: int) -> None:  # noqa: N803
        own, products = (4 if COLOUR else 1), 1 + COLOUR + SLOPES
        self._network(features, own=own, passes=1 + SLOPES, products=products, constants=constants)

    def density_backward(self, _: Any, features: Tensor, *__: Any, SLOPES: bool, **constants: int) -> None:  # noqa: N803
        self._network(features, own=1, passes=2 + 2 * SLOPES, products=4, constants=constants)

    def albedo_backward(self, _: Any, features: Tensor, *__: Any, **constants: int) -> None:
        self._network(features, own=3, passes=3, products=3, constants=constants)

    # ---- marching: the grid stays in the cache ----

    def count_samples(self, _: Any, origins: Tensor, *rest: Any, **__: Any) -> None:
        rays, places = rest[6:8]
        self.marched = round(self._meter.assumptions.nonzero_share * rays * places)
        self._meter.record(traffic=rays * (2 * POINT + 3 * NUMBER + LONG + places * NUMBER))

    def write_samples(self, _: Any, origins: Tensor, *rest: Any, **__: Any) -> None:
        rays, places = rest[9:11]
        walk = rays * (2 * POINT + 3 * NUMBER + LONG + places * NUMBER)
        self._meter.record(traffic=walk + self.marched * (NUMBER + POINT + LONG))

    # ---- compositing ----

    def mark_visible(self, programs: tuple[int], density: Tensor, *_: Any, **__: Any) -> None:
        self._meter.record(traffic=len(density) * (NUMBER + 1) + programs[0] * LONG)

    def composite(self, programs: tuple[int], _: Tensor, values: Tensor, *__: Any, **___: Any) -> None:
        count, channels = values.shape
        of_rays = programs[0] * (LONG + (1 + channels) * NUMBER)
        self._meter.record(traffic=count * (3 + channels) * NUMBER + of_rays)

    def composite_backward(self, programs: tuple[int], values: Tensor, *_: Any, **__: Any) -> None:
        count, channels = values.shape
        of_rays = programs[0] * (LONG + (1 + channels) * NUMBER)
        self._meter.record(traffic=count * (4 + 2 * channels) * NUMBER + of_rays)
