"""What the runs of a study will cost, from costs that are measured once per setting and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from sdi_gs.contracts import NoiseSchedule
from sdi_gs.errors import UserError
from sdi_gs.files import disk_errors, write_atomically
from sdi_gs.priors.catalog import is_instrument, load_prior, loader_settings
from sdi_gs.settings.replay import ReplayConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.arms import settings_apart_from_defaults
from sdi_gs.study.cost import Cost, measure_cost
from sdi_gs.toybox.captions import style_in

COSTS = "costs"
"""Folder of the measured costs in the folder of the runs."""


class Predictor:
    """Noise schedules of priors, and the CPU seconds of runs."""

    def __init__(
        self, folder: Path, *, say: Callable[[str], None], measure: Callable[[RunConfig], Cost] = measure_cost
    ) -> None:
        """Costs are read from ``folder``; ``save`` writes those that were measured."""
        self._folder = folder / COSTS
        self._say = say
        self._measure = measure
        self._costs: dict[str, Cost] = {}
        self._schedules: dict[object, NoiseSchedule] = {}

    def schedule(self, config: RunConfig) -> NoiseSchedule:
        """Return the schedule of a run's prior, which is loaded for it."""
        key = loader_settings(config)
        if key not in self._schedules:
            self._schedules[key] = load_prior(config, device=torch.device("cpu")).schedule
        return self._schedules[key]

    def seconds(self, config: RunConfig) -> float:
        """Return the predicted CPU seconds of a run, without loading and scoring; UserError where none is known."""
        return self._cost(config).seconds(config, self.schedule(config))

    def save(self) -> None:
        """Write the costs that are not in the folder yet."""
        for key, cost in self._costs.items():
            path = self._folder / f"{key}.json"
            if not path.is_file():
                with disk_errors(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(asdict(cost), indent=1).encode())

    def _cost(self, config: RunConfig) -> Cost:
        if not is_instrument(config.prior):
            raise UserError(
                f"a time budget needs costs, which are measured for toybox alone, and not for {config.prior}: "
                "use budgets steps and calls"
            )
        measured = _what_costs(config)
        key = _key_of(measured)
        if key not in self._costs:
            self._costs[key] = self._known(self._folder / f"{key}.json", measured)
        return self._costs[key]

    def _known(self, path: Path, config: RunConfig) -> Cost:
        if path.is_file():
            with disk_errors(path, "read"):
                text = path.read_text()
            try:
                return Cost(**json.loads(text))
            except (ValueError, TypeError):
                raise UserError(f"{path} holds no measured cost: remove it, and it is measured anew") from None
        self._say(f"measuring the seconds of a step, a round and a call ({config.prior}, {config.representation}) ...")
        return self._measure(config)


def _key_of(measured: RunConfig) -> str:
    """Return the name of a cost; settings that later versions add, at their defaults, leave it as it is."""
    values = {"prompt": measured.prompt, **settings_apart_from_defaults(measured)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _what_costs(config: RunConfig) -> RunConfig:
    """Return the settings that the cost of a step and of a call depends on; all others have fixed values."""
    default = RunConfig()
    guidance = replace(
        default.guidance,
        views=config.guidance.views,
        guidance_scale=config.guidance.guidance_scale,
        renoise=config.guidance.renoise,
    )
    # A styled object's calls take ten times as long as a plain one's.
    style = style_in(config.prompt)
    return replace(
        config,
        prompt="a blue robot" if style is None else f"a {style} blue robot",
        negative_prompt="a blue robot" if config.negative_prompt else "",
        seed=0,
        steps=default.steps,
        guidance=guidance,
        # A round's first step and the further ones cost the same whatever their number is.
        replay=ReplayConfig(steps_per_target=4) if config.replay.steps_per_target > 1 else ReplayConfig(),
        outputs=default.outputs,
    )
