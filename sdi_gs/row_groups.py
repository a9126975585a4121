"""A batch in groups of rows, each of which is computed once more in the backward pass instead of being kept.

The rows of a step's views do not depend on each other in rendering, encoding or prediction. Taken in groups, with the
results joined again, they give the losses and gradients of the whole up to rounding, whatever the losses divide by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch.utils.checkpoint import checkpoint

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def row_groups(count: int, at_once: int) -> list[slice]:
    """Consecutive slices of at most ``at_once`` rows; one of all rows for 0."""
    size = at_once or max(count, 1)
    return [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]


def recomputed(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function and keep none of its inner results for the backward pass, which calls it again.

    Everything random in it has to come in as an argument.
    """
    # Torch's global generators have no say here, and asking a GPU's for its state would wait for it.
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, **options)  # pyright: ignore[reportReturnType]
