"""Arms, a study of them and its plan, for the tests of studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdi_gs.configs.presets import preset
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.settings.run import RunConfig
from sdi_gs.study.cost import Cost
from sdi_gs.study.plan import Plan, plan_study
from sdi_gs.study.spec import Arm, Block, Setting, Study

SCHEDULE = scaled_linear_schedule()
COST = Cost(alone=0.05, first=0.03, further=0.01, conditional=0.02, unconditional=0.03, both=0.05)
BASE: dict[str, Any] = {
    "steps": 60,
    "replay.steps_per_target": 4,
    "replay.views": 12,
    "losses.space": "pixels",
    "guidance.inversion_order": 1,
    "guidance.guidance_scale": 2.5,
    "guidance.views": "words",
}
ARMS: dict[str, dict[str, Any]] = {
    "sds": {"guidance.noise": "random", "guidance.annealing": "uniform"},
    "sds-annealed": {"guidance.noise": "random"},
    "sdi": {"guidance.noise": "inversion"},
    "sdi-0": {"guidance.noise": "inversion", "guidance.inversion_guidance_scale": 0.0},
    "ism": {"guidance.noise": "interval"},
    "fixed-point": {"guidance.noise": "fixed-point", "guidance.fixed_point_iterations": 3},
    "perp-neg": {"guidance.noise": "inversion", "guidance.perp_neg": True},
    "perp-neg-last": {
        "guidance.noise": "inversion",
        "guidance.perp_neg": True,
        "guidance.perp_neg_calls": "last",
    },
    "sdi-no-replay": {
        "guidance.noise": "inversion",
        "replay.steps_per_target": 1,
        "replay.views": None,
        "losses.space": "latents",
    },
}


def seconds(config: RunConfig) -> float:
    return COST.seconds(config, SCHEDULE)


BLOCKS = (
    Block(
        setting="plain",
        arms=("sdi", "sds"),
        budgets=("steps", "calls"),
        prompts=("a blue robot", "an orange rocket"),
        seeds=(0,),
    ),
    Block(
        setting="detailed",
        arms=("sdi", "sds"),
        budgets=("calls",),
        prompts=("a blue robot", "a snowman with an orange hat"),
        seeds=(0, 1),
    ),
)


def a_study(arms: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any) -> Study:
    arms = arms or {name: ARMS[name] for name in ("sdi", "sds")}
    values: dict[str, Any] = {
        "name": "tried",
        "title": "Tried",
        "about": "",
        "arms": tuple(Arm(name=name, title=name.upper(), changes=own) for name, own in arms.items()),
        "reference": next(iter(arms)),
        "settings": (
            Setting(name="plain", preset="toybox-ideal", changes=BASE),
            Setting(name="detailed", preset="toybox-ideal", style="patchwork", changes=BASE),
        ),
        "blocks": BLOCKS,
        "scores": ("psnr_free", "detail"),
    }
    return Study(**{**values, **changes})


def planned(study: Study, changes: Mapping[str, Any] | None = None) -> Plan:
    return plan_study(
        study, preset=preset, schedule_of=lambda config: SCHEDULE, seconds_of=seconds, changes=changes or {}
    )
