"""What a checkpoint holds, checked: its state, its scene and the changes of its settings.

The checksums say that a checkpoint is as it was written; they do not say that a run can go on from it.
"""

from __future__ import annotations

from typing import Any

from sdi_gs.representations.saved_state import count_of, misfit, part_of
from sdi_gs.runs.checkpoint import Checkpoint, unpack_state


def state_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the state that the run saved; UserError for one that is no table or of another step."""
    packed = part_of(checkpoint.meta, "state", dict)
    try:
        state = unpack_state(checkpoint.tensors, packed)
    except KeyError as error:
        raise misfit(f"its state names the tensor {error}, which its file does not hold") from error
    except (TypeError, ValueError, RecursionError) as error:
        # Pairs that are none, keys that cannot be any, nesting without end.
        raise misfit("its state is not packed as this program packs it") from error
    if not isinstance(state, dict):
        raise misfit("its state is not a table")
    if count_of(state, "step") != checkpoint.step:
        raise misfit(f"its state is of step {state['step']}, its file of step {checkpoint.step}")
    return state


def changes_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Return the changes of settings while the run trained; UserError for anything else than the trainer's list."""
    changes: Any = checkpoint.meta.get("changes", [])
    for change in changes if isinstance(changes, list) else [None]:
        count_of({"changes": change}, "changes/step")
        for key, values in part_of({"changes": change}, "changes/changed", dict).items():
            if not isinstance(values, list) or len(values) != 2:
                raise misfit(f"its change of {key} does not hold two values, before and after")
    return changes


def scene_of(checkpoint: Checkpoint) -> str | None:
    """Return the class of the scene of one's own that was trained; None for a configured one."""
    return None if checkpoint.meta.get("scene") is None else part_of(checkpoint.meta, "scene", str)
