"""A study as data: what is compared, on what, at which budgets, and what was expected. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Budget = Literal["steps", "time", "calls"]
"""What the arms of a comparison have equal: their own settings' steps, CPU time, or predictor calls."""
BUDGETS: tuple[Budget, ...] = get_args(Budget)

Expectation = Literal["ahead", "behind", "level", "not behind"]
EXPECTATIONS: tuple[Expectation, ...] = get_args(Expectation)

TWELVE = (
    "a blue robot",
    "a red mushroom",
    "a yellow car",
    "a green chair",
    "a white mug",
    "a snowman with an orange hat",
    "a house with a purple roof",
    "a pink donut",
    "a brown table",
    "a black lamp",
    "a green tree",
    "an orange rocket",
)
"""Every colour at least once; the yellow car and the purple house are pairs that toybox's network never saw."""

PROMPT_LISTS: dict[str, tuple[str, ...]] = {"toybox-12": TWELVE, "toybox-6": TWELVE[::2], "toybox-2": TWELVE[:2]}
"""Lists that a study can name instead of writing them out."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make an object."""

    name: str
    """Its key in the file."""
    title: str
    """Its name in tables."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name, over those of the study and its setting."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all arms share: a preset, a world, and changes."""

    name: str
    """Its key in the file."""
    preset: str
    """Name of the preset."""
    style: str = ""
    """Word after each prompt's article, as "patchwork"; empty for none."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name, over the preset's."""
    suited: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further settings of single arms here, by the arm's name; they win over the arm's own."""

    def prompt(self, plain: str) -> str:
        """Return the words for an object of this world."""
        article, _, rest = plain.partition(" ")
        if not self.style:
            return plain
        return f"a {self.style} {rest}" if article in ("a", "an") else f"{self.style} {plain}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Runs that are compared with each other; made prompt by prompt, all arms of one before the next."""

    setting: str
    arms: tuple[str, ...]
    budgets: tuple[Budget, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A comparison that was written down before the first run."""

    name: str
    first: str
    """Name of the arm that something is expected of."""
    second: str
    """Name of the arm that it is compared with."""
    setting: str
    expect: Expectation
    on: tuple[str, ...]
    """Scores that the expectation is about, by key; it must hold for each of them at every budget."""
    nowhere_behind: bool = False
    """Whether the first arm must not be behind in any other score of the study either."""


@dataclass(frozen=True, kw_only=True)
class PromptTable:
    """A table of two arms prompt by prompt."""

    title: str
    arms: tuple[str, str]
    budget: Budget
    scores: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A whole study."""

    name: str
    """Name of its file without the ending."""
    title: str
    about: str
    """A paragraph for the page: question, hypotheses, what was tuned."""
    arms: tuple[Arm, ...]
    reference: str
    """Name of the arm whose setting's steps are the budget of all others."""
    settings: tuple[Setting, ...]
    blocks: tuple[Block, ...]
    scores: tuple[str, ...]
    """Scores of the tables, by key (``sdi_gs.study.scores``)."""
    means: tuple[str, ...] = ()
    """Scores of which the mean is shown alone."""
    comparisons: tuple[tuple[str, str], ...] = ()
    """Pairs of arms whose paired differences are shown."""
    claims: tuple[Claim, ...] = ()
    prompt_table: PromptTable | None = None

    def arm(self, name: str) -> Arm:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def setting(self, name: str) -> Setting:
        """Return a setting by its name."""
        return next(setting for setting in self.settings if setting.name == name)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets of all blocks, in the order of tables."""
        return tuple(budget for budget in BUDGETS if any(budget in block.budgets for block in self.blocks))
