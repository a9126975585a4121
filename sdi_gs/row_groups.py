"""Compute a batch in groups of rows, recomputing each group in the backward pass instead of keeping its activations.

Rows of a step's views are independent in rendering and encoding, and in prediction unless a prior denoises several of
them together. Computed in groups and concatenated, they give the losses and gradients of the whole batch up to
rounding, whatever the losses divide by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from torch.utils.checkpoint import checkpoint

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@runtime_checkable
class GroupedPrior(Protocol):
    """A ``DiffusionPrior`` that denoises several views of one object together, from known cameras."""

    views_per_group: int
    """Views that it takes together, at equal turns around the object: the views of each call are such groups, one
    after another (``cameras.views_per_group``)."""


def views_together(prior: object) -> int:
    """Return the number of views that a prior denoises together; 1 for one that takes each view for itself."""
    return prior.views_per_group if isinstance(prior, GroupedPrior) else 1


def row_groups(count: int, at_once: int, *, together: int = 1) -> list[slice]:
    """Return consecutive slices of at most ``at_once`` rows; one slice of all rows for 0.

    Rows that belong ``together``, so many after each other, share a slice, even where that is more than ``at_once``.
    """
    size = max(at_once // together, 1) * together if at_once else max(count, 1)
    return [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]


def recomputed(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function without keeping its intermediate results; the backward pass calls it again.

    All random numbers must be passed in as arguments.
    """
    # The function uses no global generator, and reading a GPU generator's state would wait for the GPU.
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False, **options)  # pyright: ignore[reportReturnType]
