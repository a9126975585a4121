"""The part of a saved run that its guidance needs: kept targets and carried noise.

Letters: B views, C latent channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.representations.saved_state import Shape, count_of, misfit, part_of, require_names, require_tensor
from sdi_gs.settings.replay import ReplayConfig

_ROUND = ("cameras", "background", "target")
_CAMERAS: dict[str, Shape] = {
    "world_from_camera": (4, 4),
    "intrinsics": (3, 3),
    "azimuth_deg": (),
    "elevation_deg": (),
}
_LARGEST_SIDE = 2**16


def saved_noise(state: dict[str, Any]) -> Tensor | None:
    """Return what the noise source carries, [1 or B, C, h, w] or None; UserError for anything else."""
    if state.get("carried_noise") is None:
        return None
    noise = part_of(state, "carried_noise", Tensor)
    require_tensor(noise, "carried_noise", (None, None, None, None), any_float=True)
    return noise


def saved_replay(state: dict[str, Any], config: ReplayConfig) -> dict[str, Any]:
    """Return the part of a trainer's state that holds t of the latest target and the rounds that are kept.

    Raises UserError if it is missing from a run that keeps targets, or is not made of views with their targets.
    """
    kept = state.get("replay", {"timestep": 0, "rounds": []})
    count_of({"replay": kept}, "replay/timestep")
    rounds = part_of({"replay": kept}, "replay/rounds", list)
    if config.steps_per_target > 1 and state["step"] and not rounds:
        raise UserError(
            f"the state after step {state['step']} has no kept targets, which replay.steps_per_target "
            f"{config.steps_per_target} needs: go on from another checkpoint, or start a new run"
        )
    for index, views in enumerate(rounds):
        _require_round(views, f"replay/rounds/{index}")
    shapes = {tuple(views["target"].shape[1:]) for views in rounds}
    if len(shapes) > 1:
        raise misfit("replay/rounds has targets of several shapes")
    return kept


def require_latents(state: dict[str, Any], latent_of: Callable[[], Tensor]) -> None:
    """Raise UserError unless kept targets and carried noise have the shape and the type of the prior's latents.

    ``latent_of`` returns those of a picture [C, h, w], and is called only where there are any. ``state`` has passed
    ``saved_noise`` and ``saved_replay``.
    """
    rounds = state.get("replay", {}).get("rounds", [])
    found = {"carried_noise": state.get("carried_noise")}
    found |= {f"replay/rounds/{index}/target": views["target"] for index, views in enumerate(rounds)}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    if not tensors:
        return
    latent = latent_of()
    for name, tensor in tensors.items():
        if tensor.shape[1:] != latent.shape or tensor.dtype != latent.dtype:
            raise misfit(f"{name} must be of latents {_described(latent)}, found {_described(tensor[0])}")


def _described(latent: Tensor) -> str:
    return f"{tuple(latent.shape)} in {str(latent.dtype).removeprefix('torch.')}"


def _require_round(views: Any, name: str) -> None:
    """Raise UserError unless one round's saved views are B cameras with a background and a target each."""
    require_names(_table(views, name), _ROUND, name)
    target = views["target"]
    if not isinstance(target, Tensor) or target.dim() != 4 or not len(target):
        raise misfit(f"{name}/target must be latents of one view or more")
    require_tensor(target, f"{name}/target", (None, None, None, None), any_float=True)
    require_tensor(part_of(views, "background", Tensor), f"{name}/background", (len(target), 3))
    cameras = _table(views["cameras"], f"{name}/cameras")
    require_names(cameras, (*_CAMERAS, "width", "height"), f"{name}/cameras")
    for key, shape in _CAMERAS.items():
        require_tensor(part_of(cameras, key, Tensor), f"{name}/cameras/{key}", (len(target), *shape))
    for key in ("width", "height"):
        if not count_of(cameras, key, most=_LARGEST_SIDE):
            raise misfit(f"{name}/cameras/{key} must be at least 1")


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise misfit(f"{name} must be a table")
    return value
