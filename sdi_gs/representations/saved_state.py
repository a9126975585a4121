"""Checks of a saved state against what its run needs, before anything takes it over.

A checkpoint may be whole, with the right checksums, and hold something else: of another run, of another version, or
edited. Every part is therefore looked at for its presence, its type, its shape and finite values.

Letters: N parameters of an optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from sdi_gs.errors import UserError

Kind = TypeVar("Kind")
Shape = tuple[int | None, ...]
"""Sizes of a tensor's dimensions; None for any."""

_ADAM_AVERAGES = ("exp_avg", "exp_avg_sq")
_NUMBERS = ("lr", "eps", "weight_decay")
_LARGEST_STEP = 2**53


def part_of(state: Any, name: str, kind: type[Kind]) -> Kind:
    """Return the part ``name`` ("optimizers/means") of nested dicts; UserError if it is missing or of another type."""
    found, passed = state, []
    for key in name.split("/"):
        if not isinstance(found, Mapping) or key not in found:
            raise misfit(f"{'/'.join([*passed, key])} is missing")
        found = found[key]
        passed.append(key)
    # True is an int, and no count.
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise misfit(f"{name} must be {_KINDS.get(kind, kind.__name__)}, found {_described(found)}")
    return found


def count_of(state: Any, name: str, *, most: int = _LARGEST_STEP) -> int:
    """Return a whole number from 0 to ``most``; UserError for anything else."""
    found = part_of(state, name, int)
    if not 0 <= found <= most:
        raise misfit(f"{name} must be 0 to {most}, found {found}")
    return found


def require_tensor(found: Tensor, name: str, shape: Shape, *, any_float: bool = False) -> None:
    """Raise UserError unless a tensor has this shape and holds finite numbers, float32 or of any float type."""
    fits = found.dim() == len(shape) and all(
        want in (None, size) for want, size in zip(shape, found.shape, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise misfit(f"{name} must have the shape ({sizes}), found {tuple(found.shape)}")
    if found.dtype != torch.float32 and not (any_float and found.is_floating_point()):
        raise misfit(f"{name} must be float32, found {str(found.dtype).removeprefix('torch.')}")
    broken = int((~found.isfinite()).sum())
    if broken:
        raise misfit(f"{name} holds {broken} values that are not finite")


def require_names(found: Mapping[str, Any], needed: Iterable[str], name: str) -> None:
    """Raise UserError unless a part has exactly these names."""
    needed = tuple(needed)
    if set(found) != set(needed):
        raise misfit(f"{name} must hold {', '.join(needed)}, found {', '.join(map(str, found)) or 'nothing'}")


def require_adam(saved: Any, optimizer: torch.optim.Optimizer, name: str) -> None:
    """Raise UserError unless ``optimizer.load_state_dict(saved)`` makes an Adam that can take the next step."""
    groups, state = part_of(saved, "param_groups", list), part_of(saved, "state", dict)
    own = optimizer.state_dict()["param_groups"]
    if len(groups) != len(own):
        raise misfit(f"{name} must have {len(own)} groups of parameters, found {len(groups)}")
    for group, expected in zip(groups, own, strict=True):
        _require_group(group, expected, f"{name}/param_groups")
    parameters = [value for group in optimizer.param_groups for value in group["params"]]  # N of them
    for index, averages in state.items():
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            raise misfit(f"{name}/state has an entry {index!r} for none of its {len(parameters)} parameters")
        here = f"{name}/state/{index}"
        if not isinstance(averages, dict):
            raise misfit(f"{here} must be a table, found {_described(averages)}")
        require_names(averages, ("step", *_ADAM_AVERAGES), here)
        _require_step(averages["step"], f"{here}/step")
        for average in _ADAM_AVERAGES:
            require_tensor(part_of(averages, average, Tensor), f"{here}/{average}", tuple(parameters[index].shape))
        if averages["exp_avg_sq"].numel() and averages["exp_avg_sq"].min() < 0.0:
            raise misfit(f"{here}/exp_avg_sq holds negative squares")


def misfit(what: str) -> UserError:
    """Return the error for a state that does not fit its run."""
    return UserError(
        f"the checkpoint does not fit its run: {what}; go on from another checkpoint of the run, or start a new one"
    )


_KINDS: dict[Any, str] = {dict: "a table", list: "a list", int: "a whole number", str: "a text", Tensor: "a tensor"}


def _described(value: Any) -> str:
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)


def _require_group(group: Any, own: Mapping[str, Any], name: str) -> None:
    """Raise UserError unless a group is of the same parameters and options as Adam's own, with any numbers."""
    if not isinstance(group, dict):
        raise misfit(f"{name} must hold tables, found {_described(group)}")
    # Earlier versions of torch had fewer options.
    unknown = set(group) - set(own)
    if unknown or "params" not in group:
        raise misfit(f"{name} must hold {', '.join(own)}, found {', '.join(map(str, group)) or 'nothing'}")
    for key, value in group.items():
        if key == "betas":
            fits = isinstance(value, tuple | list) and len(value) == 2 and all(_is_number(beta, 1.0) for beta in value)
        else:
            fits = _is_number(value) if key in _NUMBERS else value == own[key]
        if not fits:
            raise misfit(f"{name} has another {key} than this optimiser can have")


def _require_step(step: Any, name: str) -> None:
    """Raise UserError unless Adam can count on from a step."""
    number = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    if not _is_number(number, _LARGEST_STEP):
        raise misfit(f"{name} must be a count of steps, found {_described(step)}")


_LARGEST_NUMBER = 1e15
"""Of an optimiser's options; whole numbers of any length would not fit torch's."""


def _is_number(value: Any, below: float = _LARGEST_NUMBER) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value < below
