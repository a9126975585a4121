"""Compute a batch in groups of rows, recomputing each group in the backward pass instead of keeping its activations.

Rows of a step's views are independent in rendering, encoding and prediction. Computed in groups and concatenated, they
give the losses and gradients of the whole batch up to rounding, whatever the losses divide by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch.utils.checkpoint import checkpoint

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def row_groups(count: int, at_once: int) -> list[slice]:
    """Return consecutive slices of at most ``at_once`` rows; one slice of all rows for 0."""
    size = at_once or max(count, 1)
    return [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]


def recomputed(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function without keeping its intermediate results; the backward pass calls it again.

    All random numbers must be passed in as arguments.
    """
    # The function uses no global generator, and reading a GPU generator's state would wait for the GPU.
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, **options)  # pyright: ignore[reportReturnType]
