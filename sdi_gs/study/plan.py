"""Which runs the comparison makes, in which order (docs/reports/evidence.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from evidence_arms import BUDGETS, NOISES, Arm, Budget, budgeted
from evidence_cost import Cost
from scored_runs import CPU, PROMPTS

from sdi_gs.configs.presets import preset_named
from sdi_gs.priors.catalog import load_prior
from sdi_gs.runs.folder import slug
from sdi_gs.settings.guidance import ViewKnowledge
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values

STYLE = "patchwork"
"""The word that gives an object independent local detail."""

PlanName = Literal["core", "full"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A world, a prior, and what the prior is told of the view."""

    preset: str
    views: ViewKnowledge
    detailed: bool
    common: Mapping[str, object] = field(default_factory=dict)
    """What all arms change of the preset, by dotted names."""
    suited: Mapping[str, object] = field(default_factory=dict)
    """What only arms that invert with guidance change besides: what was best for SDI when both methods were tuned."""

    def prompt(self, plain: str) -> str:
        """Return the words for an object of this world."""
        return f"a {STYLE} {plain.partition(' ')[2]}" if self.detailed else plain

    def base(self, changes: dict[str, object]) -> RunConfig:
        """Return the preset under this setting."""
        return with_values(
            preset_named(self.preset).config, {"guidance.views": self.views} | dict(self.common) | changes
        )


LOW_NOISE = {"guidance.annealing": "sqrt", "guidance.t_min": 0.02}
"""The best range of t for either method in the detailed world."""
PUBLISHED_RANGE = {"guidance.annealing": "linear", "guidance.t_min": 0.25}
"""The range of t of the published SDI configuration."""
SECOND_ORDER = {
    "guidance.inversion_order": 2,
    "guidance.inversion_eta": 0.0,
    "guidance.inversion_steps": 3,
    "replay.steps_per_target": 8,
    "replay.views": 80,
    "steps": 960,
}
"""The best settings of SDI in the detailed world."""

SETTINGS = {
    "detailed-cameras": Setting(
        preset="toybox-ideal", views="cameras", detailed=True, common=LOW_NOISE, suited=SECOND_ORDER
    ),
    "detailed-published": Setting(
        preset="toybox-ideal", views="cameras", detailed=True, common=PUBLISHED_RANGE, suited=SECOND_ORDER
    ),
    "plain-words": Setting(preset="toybox-ideal", views="words", detailed=False),
    "network-words": Setting(preset="toybox", views="words", detailed=False),
    "plain-cameras": Setting(preset="toybox-ideal", views="cameras", detailed=False),
    "detailed-words": Setting(
        preset="toybox-ideal", views="words", detailed=True, common=LOW_NOISE, suited=SECOND_ORDER
    ),
}

HALF = PROMPTS[::2]
ALL_ARMS = tuple(Arm(noise=noise, replay=replay) for replay in (True, False) for noise in NOISES)
PAIR = (Arm(noise="sdi"), Arm(noise="sds-annealed"))
PAIR_WITHOUT = (Arm(noise="sdi", replay=False), Arm(noise="sds-annealed", replay=False))
OTHERS = tuple(Arm(noise=noise) for noise in ("sdi-other", "sdi-0", "sdi-plus-1", "sds", "ism"))


@dataclass(frozen=True, kw_only=True)
class Block:
    """Runs that are compared with each other; made prompt by prompt, all arms of one before the next."""

    setting: str
    arms: tuple[Arm, ...] = PAIR
    budgets: tuple[Budget, ...] = ("time",)
    prompts: tuple[str, ...] = PROMPTS
    seeds: tuple[int, ...] = (0,)


PLANS: dict[PlanName, tuple[Block, ...]] = {
    "core": (
        Block(setting="detailed-cameras", budgets=BUDGETS),
        Block(setting="network-words", prompts=HALF),
        Block(setting="plain-cameras"),
        Block(setting="detailed-cameras", arms=OTHERS, prompts=HALF),
        Block(setting="plain-words"),
        Block(setting="detailed-words", prompts=HALF),
        Block(setting="detailed-cameras", arms=PAIR_WITHOUT, prompts=HALF),
        Block(setting="detailed-cameras", budgets=BUDGETS, seeds=(1,)),
        Block(setting="network-words", prompts=HALF, seeds=(1,)),
        Block(setting="plain-words", arms=PAIR_WITHOUT, prompts=HALF),
        Block(setting="network-words", arms=PAIR_WITHOUT, prompts=HALF),
        Block(setting="detailed-published", budgets=BUDGETS, prompts=PROMPTS[:6]),
        Block(setting="detailed-published", budgets=BUDGETS, seeds=(1,)),
    ),
    "full": tuple(
        Block(setting=name, arms=ALL_ARMS, budgets=BUDGETS, seeds=(seed,)) for seed in (0, 1) for name in SETTINGS
    ),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the comparison."""

    setting: str
    arm: Arm
    budget: Budget
    plain_prompt: str
    """The prompt without the world's style."""
    config: RunConfig
    folder: Path

    @property
    def result(self) -> Path:
        """Return the path of its scores; budgets with the same steps share them."""
        name = f"{slug(self.plain_prompt)}-{self.config.seed}-{self.config.steps}x{self.config.replay.steps_per_target}"
        return self.folder / self.setting / self.arm.name / f"{name}.json"

    @property
    def picture(self) -> Path:
        """Return the path of four views of its result."""
        return self.result.with_suffix(".png")


Group = list[Run]
"""The runs of one prompt and seed of a block; they count only together."""


def plan_groups(
    blocks: Sequence[Block], folder: Path, cost_of: Callable[[str, RunConfig], Cost], changes: dict[str, object]
) -> list[Group]:
    """Return all runs in the order in which they are made; ``cost_of`` has the costs of a setting."""
    configs: dict[tuple[str, Arm, Budget], RunConfig] = {}
    for name in dict.fromkeys(block.setting for block in blocks):
        base = SETTINGS[name].base(changes)
        if base.replay.steps_per_target == 1:
            raise SystemExit(f"preset {SETTINGS[name].preset} has no replay: --set replay.steps_per_target=4")
        schedule, cost = load_prior(base, device=CPU).schedule, cost_of(name, base)
        own = [block for block in blocks if block.setting == name]
        cells: set[tuple[Arm, Budget]] = {
            (arm, budget) for block in own for arm in block.arms for budget in block.budgets
        }
        for arm, budget in cells:
            configs[name, arm, budget] = budgeted(
                base, arm, budget, schedule=schedule, cost=cost, suited=SETTINGS[name].suited
            )

    def run(block: Block, arm: Arm, budget: Budget, prompt: str, seed: int) -> Run:
        words = SETTINGS[block.setting].prompt(prompt)
        config = replace(configs[block.setting, arm, budget], prompt=words, seed=seed)
        return Run(setting=block.setting, arm=arm, budget=budget, plain_prompt=prompt, config=config, folder=folder)

    return [
        [run(block, arm, budget, prompt, seed) for budget in block.budgets for arm in block.arms]
        for block in blocks
        for seed in block.seeds
        for prompt in block.prompts
    ]
