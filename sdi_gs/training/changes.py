"""Changes of a run's settings while it trains."""

from __future__ import annotations

from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.settings.run import RunConfig, require_prompt
from sdi_gs.settings.steering import CHANGEABLE, STEERABLE
from sdi_gs.settings.tree import config_to_dict, differing_keys, flatten


def allowed_changes(before: RunConfig, after: RunConfig) -> dict[str, list[Any]]:
    """Return what differs as dotted name: [before, after].

    Raises UserError for a setting that may not change while a run trains, and for an empty prompt.
    """
    keys = differing_keys(before, after)
    fixed = [key for key in keys if key not in CHANGEABLE]
    if fixed:
        raise UserError(f"{fixed[0]} cannot change while a run trains; these can: {', '.join(STEERABLE)}")
    if "compute.precision" in keys and after.compute.precision != "float32":
        raise UserError(
            f"compute.precision cannot change to {after.compute.precision} while a run trains, but to float32 alone"
        )
    require_prompt(after)
    old, new = (flatten(config_to_dict(settings)) for settings in (before, after))
    return {key: [old[key], new[key]] for key in keys}
