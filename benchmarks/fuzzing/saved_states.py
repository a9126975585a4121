"""Seeded damage to what programs save: trees of JSON, and tables of tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuzzing.mutations import EXTREME_FLOATS

WRONG_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 3, 2**70, 1.5, 1e308, float("nan"), "", "x", "step", [], [1, 2], {}, {"a": 1}),
    *({"tensor": "nowhere"}, {"dict": [["a", 1]]}, {"dict": [[["a"], 1]]}, {"dict": [1]}, {"list": [1]}),
    *({"tuple": [0.9, 0.99]}, "\x1b[31m", "a" * 5000, "../../etc", "ÿ", -(2**63), 10**400),
)


def places_of(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a tree of JSON."""
    if path:
        yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places_of(value, (*path, key))


def damage_json(tree: Any, rng: np.random.Generator) -> str:
    """Remove a value of a tree, or replace it by a wrong one or by that of another place; return what was done."""
    places = list(places_of(tree))
    if not places:
        return "nothing"
    *above, last = places[rng.integers(len(places))]
    inside = value_at(tree, above)
    name, how = "/".join(map(str, (*above, last))), rng.random()
    if how < 0.3:
        del inside[last]
        return f"{name} gone"
    if how < 0.8:
        inside[last] = WRONG_VALUES[rng.integers(len(WRONG_VALUES))]
        return f"{name} = {inside[last]!r:.40}"
    other = places[rng.integers(len(places))]
    inside[last] = json.loads(json.dumps(value_at(tree, other)))
    return f"{name} = {'/'.join(map(str, other))}"


def value_at(tree: Any, path: Sequence[Any]) -> Any:
    """Return what is at a path of keys."""
    for key in path:
        tree = tree[key]
    return tree


def damage_tensors(tensors: dict[str, Tensor], rng: np.random.Generator) -> str:
    """Remove a tensor of a table, or change its shape, type or values; return what was done."""
    name = sorted(tensors)[rng.integers(len(tensors))]
    how = list(_CHANGES)[rng.integers(len(_CHANGES))]
    if how == "gone" and len(tensors) > 1:
        del tensors[name]
    elif how == "another":
        tensors[name] = tensors[sorted(tensors)[rng.integers(len(tensors))]]
    else:
        tensors[name] = _CHANGES[how](tensors[name], rng)
    return f"{name}: {how}"


def _filled(tensor: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.full_like(tensor, _extreme(rng)) if tensor.is_floating_point() else tensor * 0


def _one_value(tensor: Tensor, rng: np.random.Generator) -> Tensor:
    out = tensor.clone().contiguous()
    if out.is_floating_point() and out.numel():
        out.view(-1)[int(rng.integers(out.numel()))] = _extreme(rng)
    return out


def _extreme(rng: np.random.Generator) -> float:
    # What float32 cannot hold is an error of torch, not a tensor.
    return float(np.clip(EXTREME_FLOATS[rng.integers(len(EXTREME_FLOATS))], -3.4e38, 3.4e38))


_CHANGES: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "gone": lambda tensor, rng: tensor,
    "another": lambda tensor, rng: tensor,
    "empty": lambda tensor, rng: tensor[:0] if tensor.dim() else tensor,
    "twice": lambda tensor, rng: torch.cat([tensor, tensor]) if tensor.dim() else tensor[None],
    "double": lambda tensor, rng: tensor.double(),
    "half": lambda tensor, rng: tensor.half(),
    "whole numbers": lambda tensor, rng: (
        tensor.double().nan_to_num(0.0, 1.0, -1.0).clamp(-(2**31), 2**31).to(torch.int64)
    ),
    "other shape": lambda tensor, rng: tensor.flatten() if tensor.dim() != 1 else tensor[:, None],
    "a number": lambda tensor, rng: torch.tensor(3.0),
    "negative": lambda tensor, rng: -tensor if tensor.is_floating_point() else tensor,
    "filled": _filled,
    "one value": _one_value,
}
"""What is done to a tensor; the first two are done to the table of all."""
