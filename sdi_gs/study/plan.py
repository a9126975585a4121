"""Which runs a study makes, in which order, and which row of the shared folder each of them is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdi_gs.batch.rows import Row, new_row
from sdi_gs.contracts import NoiseSchedule
from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import require_known_prompt
from sdi_gs.runs.prepare import require_runnable
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.arms import PresetOf, arm_configs, settings_apart_from_defaults
from sdi_gs.study.budgets import budgeted
from sdi_gs.study.spec import Budget, Study

ScheduleOf = Callable[[RunConfig], NoiseSchedule]
"""Returns the noise schedule of a run's prior."""
SecondsOf = Callable[[RunConfig], float]
"""Returns the predicted CPU seconds of a run."""


PROMPT_HERE = "{prompt}"
"""Stands for the run's prompt in an arm's negative prompt."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a study; runs with the same settings are one row."""

    setting: str
    arm: str
    budget: Budget
    plain_prompt: str
    """The prompt without the setting's style."""
    config: RunConfig
    row: Row
    """What the batch makes: its key depends on the settings, the prompt and the seed alone, not on the study."""


Group = tuple[PlannedRun, ...]
"""The runs of one prompt and seed of a block; they count only together."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a study, in the order in which they are made."""

    study: Study
    groups: tuple[Group, ...]

    @property
    def runs(self) -> list[PlannedRun]:
        """Every run of every group."""
        return [run for group in self.groups for run in group]

    @property
    def rows(self) -> dict[str, PlannedRun]:
        """The first run of every row, by the row's key."""
        found: dict[str, PlannedRun] = {}
        for run in self.runs:
            found.setdefault(run.row.key, run)
        return found


def plan_study(
    study: Study,
    *,
    preset: PresetOf,
    schedule_of: ScheduleOf,
    seconds_of: SecondsOf,
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """Return the runs of a study; UserError for arms, settings or prompts that cannot be run or compared."""
    configs = arm_configs(study, preset, changes or {})
    seen: set[RunConfig] = set()
    for (setting, arm), config in configs.items():
        try:
            require_runnable(for_prompt(config, study.setting(setting).prompt(study.blocks[0].prompts[0])))
        except UserError as error:
            raise UserError(f"study {study.name}, {setting}, arm {arm}: {error}") from error
    cells: dict[tuple[str, str, Budget], RunConfig] = {}
    settings: dict[tuple[str, str, Budget], dict[str, Any]] = {}
    groups = []
    for block in study.blocks:
        setting = study.setting(block.setting)
        reference, words = configs[setting.name, study.reference], setting.prompt(block.prompts[0])
        for budget in block.budgets:
            for arm in block.arms:
                cell = (setting.name, arm, budget)
                if cell not in cells:
                    cells[cell] = budgeted(
                        configs[setting.name, arm],
                        reference,
                        budget,
                        schedule=schedule_of(reference),
                        seconds=lambda config, words=words: seconds_of(for_prompt(config, words)),
                    )
                    settings[cell] = settings_apart_from_defaults(cells[cell])
        for seed in block.seeds:
            for prompt in block.prompts:
                words = setting.prompt(prompt)
                _require_prompt(for_prompt(reference, words), study, seen)
                groups.append(
                    tuple(
                        _run(key, prompt, for_prompt(replace(cells[key], seed=seed), words), settings[key])
                        for budget in block.budgets
                        for arm in block.arms
                        if (key := (setting.name, arm, budget))
                    )
                )
    return Plan(study=study, groups=tuple(groups))


def for_prompt(config: RunConfig, prompt: str) -> RunConfig:
    """Return the settings of a run of a prompt, which the negative prompt may contain as ``{prompt}``."""
    return replace(config, prompt=prompt, negative_prompt=config.negative_prompt.replace(PROMPT_HERE, prompt))


def _require_prompt(config: RunConfig, study: Study, seen: set[RunConfig]) -> None:
    if config in seen:
        return
    seen.add(config)
    try:
        require_known_prompt(config)
    except UserError as error:
        raise UserError(f'study {study.name}: prompt "{config.prompt}": {error}') from error


def _run(cell: tuple[str, str, Budget], prompt: str, config: RunConfig, settings: Mapping[str, Any]) -> PlannedRun:
    setting, arm, budget = cell
    if "negative_prompt" in settings:
        settings = {**settings, "negative_prompt": config.negative_prompt}
    row = new_row(
        index=0,
        line=1,
        prompt=config.prompt,
        seed=config.seed,
        name=f"{setting} {arm}",
        settings=settings,
    )
    return PlannedRun(setting=setting, arm=arm, budget=budget, plain_prompt=prompt, config=config, row=row)
