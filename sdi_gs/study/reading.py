"""Read a study's YAML file; every mistake is one line that names the place. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from sdi_gs.files import require_file
from sdi_gs.files.prompt_lists import read_prompts
from sdi_gs.files.yaml_tables import read_yaml_table
from sdi_gs.settings.bounds import SEED
from sdi_gs.settings.shown import shown
from sdi_gs.study.scores import require_score
from sdi_gs.study.spec import (
    BUDGETS,
    EXPECTATIONS,
    PROMPT_LISTS,
    Arm,
    Block,
    Claim,
    PromptTable,
    Setting,
    Study,
)

ENDING = ".yaml"
MAIN = "main"
"""Name of the setting of a study that names none."""

_TOP = {
    "title", "about", "preset", "set", "settings", "arms", "reference", "prompts", "seeds", "budgets", "metrics",
    "means", "comparisons", "claims", "blocks", "prompt_table",
}  # fmt: skip


def study_file(name: str, shipped: Path) -> Path:
    """Return the file of a study: one of the ``shipped`` folder by its name, or a path; UserError for neither."""
    path = Path(name)
    if path.suffix in (ENDING, ".yml") or len(path.parts) > 1:
        require_file(path)
        return path
    known = sorted(file.stem for file in shipped.glob(f"*{ENDING}"))
    if name not in known:
        raise UserError(f'unknown study "{name}"; known: {", ".join(known)}; or give a file that ends with {ENDING}')
    return shipped / f"{name}{ENDING}"


def read_study(path: Path) -> Study:
    """Return the study of a file; UserError for unknown keys, names, metrics, prompts, and values of another kind."""
    top = _Table(read_yaml_table(path, fix="mend it"), str(path))
    top.require_keys(_TOP)
    arms = _arms(top)
    names = tuple(arm.name for arm in arms)
    settings = _settings(top, names)
    scores = top.names("metrics", ("psnr_free", "iou_free", "detail"))
    means = top.names("means", ())
    for score in (*scores, *means):
        require_score(score, f"{path}: metrics")
    study = Study(
        name=path.stem,
        title=top.text("title", path.stem),
        about=top.text("about", "").strip(),
        arms=arms,
        reference=top.one_of("reference", names, names[0]),
        settings=settings,
        blocks=_blocks(top, names, tuple(setting.name for setting in settings), path),
        scores=scores,
        means=means,
        comparisons=_comparisons(top, names),
        claims=_claims(top, names, settings, scores),
        prompt_table=_prompt_table(top, names),
    )
    return study


class _Table:
    """A mapping of the file, with where it stands."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise UserError(f"{where} must be a table of keys and values, got {shown(values)}")
        self.values: Mapping[Any, Any] = values
        self.where = where

    def require_keys(self, known: set[str]) -> None:
        """Raise UserError for a key that is not known."""
        for key in self.values:
            if key not in known:
                raise UserError(f"{self.where}: unknown key {shown(key)}; known: {', '.join(sorted(known))}")

    def table(self, key: str) -> _Table:
        """Return an inner table, empty where it is absent."""
        found = self.values.get(key)
        return _Table({} if found is None else found, f"{self.where}: {key}")

    def rows(self, key: str) -> list[_Table]:
        """Return a list of inner tables, empty where it is absent."""
        found = self.values.get(key) or []
        if not isinstance(found, list):
            raise UserError(f"{self.where}: {key} must be a list, got {shown(found)}")
        return [_Table(row, f"{self.where}: {key}[{index}]") for index, row in enumerate(found)]

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        found = self.values.get(key, default)
        if not isinstance(found, str):
            raise UserError(f"{self.where}: {key} must be a text, got {shown(found)}")
        return found

    def names(self, key: str, default: Sequence[str]) -> tuple[str, ...]:
        """Return a list of texts, of which none is there twice."""
        found = self.values.get(key, list(default))
        found = [found] if isinstance(found, str) else found
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise UserError(f"{self.where}: {key} must be a list of texts, got {shown(found)}")
        if len(set(found)) < len(found):
            raise UserError(f"{self.where}: {key} has {next(n for n in found if found.count(n) > 1)} twice")
        return tuple(found)

    def one_of(self, key: str, accepted: Sequence[str], default: str | None = None) -> str:
        """Return one of the accepted texts."""
        found = self.values.get(key, default)
        if found not in accepted:
            raise UserError(f"{self.where}: {key} must be one of {', '.join(accepted)}, got {shown(found)}")
        return found

    def some_of(self, key: str, accepted: Sequence[str], default: Sequence[str]) -> tuple[Any, ...]:
        """Return several of the accepted texts."""
        found = self.names(key, default)
        if not found or not set(found) <= set(accepted):
            raise UserError(f"{self.where}: {key} must be some of {', '.join(accepted)}, got {shown(list(found))}")
        return found


def _arms(top: _Table) -> tuple[Arm, ...]:
    table = top.table("arms")
    if len(table.values) < 2:
        raise UserError(f"{table.where}: a study compares two arms at least, got {len(table.values)}")
    arms = []
    for name in table.values:
        if not isinstance(name, str):
            raise UserError(f"{table.where}: an arm's name must be a text, got {shown(name)}; write it in quotes")
        own = table.table(name)
        own.require_keys({"title", "set"})
        arms.append(Arm(name=name, title=own.text("title", name), changes=_changes(own, "set")))
    return tuple(arms)


def _settings(top: _Table, arms: Sequence[str]) -> tuple[Setting, ...]:
    preset, common = top.text("preset", "toybox-ideal"), _changes(top, "set")
    table, found = top.table("settings"), []
    for name in table.values or {MAIN: None}:
        own = table.table(name)
        own.require_keys({"preset", "style", "set", "arms"})
        suited = own.table("arms")
        suited.require_keys(set(arms))
        found.append(
            Setting(
                name=str(name),
                preset=own.text("preset", preset),
                style=own.text("style", ""),
                changes={**common, **_changes(own, "set")},
                suited={arm: _changes(suited, arm) for arm in suited.values},
            )
        )
    return tuple(found)


def _changes(table: _Table, key: str) -> dict[str, Any]:
    """Return settings by dotted name; their names and bounds are checked with the run's settings."""
    found = table.table(key).values
    for name in found:
        if name in ("prompt", "seed"):
            raise UserError(f"{table.where}: {key} must not set {name}, which the study's {name}s are")
    return {str(name): value for name, value in found.items()}


def _blocks(top: _Table, arms: Sequence[str], settings: Sequence[str], path: Path) -> tuple[Block, ...]:
    budgets = top.some_of("budgets", BUDGETS, ("steps",))
    found = []
    for own in top.rows("blocks") or [_Table({"setting": name}, f"{path}") for name in settings]:
        own.require_keys({"setting", "arms", "budgets", "prompts", "seeds"})
        prompts = own if "prompts" in own.values else top
        found.append(
            Block(
                setting=own.one_of("setting", settings, settings[0]),
                arms=own.some_of("arms", arms, arms),
                budgets=own.some_of("budgets", BUDGETS, budgets),
                prompts=_prompts(prompts, path),
                seeds=_seeds(own if "seeds" in own.values else top),
            )
        )
    return tuple(found)


def _prompts(table: _Table, path: Path) -> tuple[str, ...]:
    """Return the prompts: written out, of a known list, or of a file beside the study's."""
    value = table.values.get("prompts", "toybox-12")
    if isinstance(value, str) and value in PROMPT_LISTS:
        return PROMPT_LISTS[value]
    if isinstance(value, list):
        prompts = table.names("prompts", ())
        if not prompts or not all(map(str.strip, prompts)):
            raise UserError(f"{table.where}: prompts must be sentences, got {shown(value)}")
        return prompts
    if isinstance(value, Mapping):
        own = table.table("prompts")
        own.require_keys({"file", "key"})
        return listed_prompts(path.parent / own.text("file"), own.text("key") if "key" in own.values else None)
    if not isinstance(value, str) or not Path(value).suffix:
        raise UserError(
            f"{table.where}: prompts must be a list, a file, or one of {', '.join(PROMPT_LISTS)}, got {shown(value)}"
        )
    return listed_prompts(path.parent / value, None)


def listed_prompts(file: Path, key: str | None) -> tuple[str, ...]:
    """Return the prompts of a list's file, each once; UserError for rows with more than a prompt and a name."""
    rows = read_prompts(file, key)
    for row in rows:
        if row.seed is not None or row.settings:
            raise UserError(f"{file}, line {row.line}: a study's prompts have no seeds and settings of their own")
    return tuple(dict.fromkeys(row.prompt for row in rows))


def _seeds(table: _Table) -> tuple[int, ...]:
    value = table.values.get("seeds", [0])
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed in SEED for seed in value)
        or len(set(value)) < len(value)
    ):
        raise UserError(f"{table.where}: seeds must be different whole numbers from 0 on, got {shown(value)}")
    return tuple(value)


def _comparisons(top: _Table, arms: Sequence[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for index, pair in enumerate(top.values.get("comparisons") or []):
        if not isinstance(pair, list) or len(pair) != 2 or not set(map(str, pair)) <= set(arms) or pair[0] == pair[1]:
            raise UserError(
                f"{top.where}: comparisons[{index}] must be two of the arms {', '.join(arms)}, got {shown(pair)}"
            )
        found.append((pair[0], pair[1]))
    return tuple(found)


def _claims(top: _Table, arms: Sequence[str], settings: Sequence[Setting], scores: Sequence[str]) -> tuple[Claim, ...]:
    names, found = tuple(setting.name for setting in settings), []
    for own in top.rows("claims"):
        own.require_keys({"name", "first", "second", "setting", "expect", "scores", "nowhere_behind"})
        first, second = own.one_of("first", arms), own.one_of("second", arms)
        if first == second:
            raise UserError(f"{own.where}: first and second are both {first}; a claim compares two arms")
        on = own.names("scores", scores[:1])
        for score in on:
            require_score(score, own.where)
            if score not in scores:
                raise UserError(f"{own.where}: {score} is none of the study's metrics: {', '.join(scores)}")
        found.append(
            Claim(
                name=own.text("name", f"claim {len(found) + 1}"),
                first=first,
                second=second,
                setting=own.one_of("setting", names, names[0]),
                expect=own.one_of("expect", EXPECTATIONS, "ahead"),  # pyright: ignore[reportArgumentType]
                on=on,
                nowhere_behind=own.values.get("nowhere_behind") is True,
            )
        )
    return tuple(found)


def _prompt_table(top: _Table, arms: Sequence[str]) -> PromptTable | None:
    if "prompt_table" not in top.values:
        return None
    own = top.table("prompt_table")
    own.require_keys({"title", "arms", "budget", "scores"})
    pair, scores = own.some_of("arms", arms, ()), own.names("scores", ())
    if len(pair) != 2:
        raise UserError(f"{own.where}: arms must be two, got {shown(list(pair))}")
    for score in scores:
        require_score(score, own.where)
    budget: Any = own.one_of("budget", BUDGETS, "steps")
    return PromptTable(title=own.text("title", " / ".join(pair)), arms=(pair[0], pair[1]), budget=budget, scores=scores)
