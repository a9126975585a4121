"""Triton's kernels of a field, counted on tensors without data: the launch is recorded, and nothing is computed.

A corner of a cell is one read of a sector of memory somewhere in the table; an atomic addition reads and writes one.
Coarse levels stay in a card's cache, so that this is an upper bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import sdi_gs.representations.ngp.kernels as kernels_of_fields
from memory_counting.meter import StepMeter
from sdi_gs.representations.ngp import networks

SECTOR_BYTES = 32
"""The least that a card reads from memory."""
CORNERS = 8
NUMBER_BYTES = 4
_NAME = "sdi_gs.representations.ngp.kernels.triton_encoding"

SECTORS = {
    "features_forward": CORNERS,
    "features_backward": 2 * CORNERS,
    "slopes_forward": CORNERS,
    # One read of the table, and one atomic addition to its gradient.
    "slopes_backward": 3 * CORNERS,
}
"""Sectors of the table that a kernel touches for a point on a level."""
NUMBERS = {"features_forward": 2, "features_backward": 2, "slopes_forward": 2, "slopes_backward": 4}
"""Numbers of its own that a point has on a level: features, directions, and their gradients."""


@contextmanager
def triton_counted(meter: StepMeter) -> Iterator[None]:
    """Let fields on the meta device take Triton's way, with kernels that only count."""
    chosen = networks.query_backend

    def choose(points: Any, *rest: Any) -> Any:
        return "triton" if points.device.type == "meta" else chosen(points, *rest)

    counting: Any = ModuleType(_NAME)
    counting.POINTS = 256
    for name in SECTORS:
        setattr(counting, name, _Kernel(meter, name))
    with (
        patch.object(networks, "query_backend", choose),
        patch.dict(sys.modules, {_NAME: counting}),
        patch.object(kernels_of_fields, "triton_encoding", counting, create=True),
    ):
        yield


class _Kernel:
    """Takes launches like a kernel of Triton's."""

    def __init__(self, meter: StepMeter, name: str) -> None:
        self._meter, self._name = meter, name

    def __getitem__(self, programs: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, WIDTH: int, **_: Any) -> None:  # noqa: N803
            count, *levels = (value for value in arguments if isinstance(value, int))
            num_levels = levels[0] if levels else programs[1]
            of_level = SECTORS[self._name] * SECTOR_BYTES + NUMBERS[self._name] * NUMBER_BYTES
            # Beside that three coordinates, and three slopes or their gradient.
            of_point = 3 * NUMBER_BYTES * (2 if "slopes" in self._name else 1)
            self._meter.record(traffic=count * (num_levels * of_level + of_point))

        return launch
