"""From lists of prompts to rows: seeds, own values, repeats, and checks of the whole list before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_runs import config as small_config
from small_runs import whole_run

from sdi_gs.batch.checked_rows import checked_rows
from sdi_gs.batch.disk_space import disk_space_of, require_disk_space
from sdi_gs.batch.sources import Planned, numbered, plan_rows, refuse_bad_rows
from sdi_gs.errors import UserError
from sdi_gs.files.prompt_lists import BadRow, PromptList, PromptRow
from sdi_gs.priors.catalog import require_known_prompt
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import with_values


def planned(*rows: PromptRow, seeds: list[int] | None = None, bad: tuple[BadRow, ...] = (), **base: Any) -> Planned:
    """Return the plan of rows over default settings."""

    def settings_of(own: Mapping[str, Any]) -> RunConfig:
        return with_values(RunConfig(**base), own)

    return plan_rows(PromptList(rows=rows, bad=bad), settings_of=settings_of, seeds=seeds, check=require_known_prompt)


def row(line: int, prompt: str, seed: int | None = None, **settings: Any) -> PromptRow:
    """Return a row of a list."""
    return PromptRow(prompt=prompt, line=line, seed=seed, settings=settings)


def test_every_prompt_is_made_for_every_seed_unless_its_row_has_one() -> None:
    plan = planned(row(1, "a blue robot"), row(3, "a red mug", 9), seeds=[2, 0, 2])
    assert [(one.index, one.line, one.prompt, one.seed) for one in plan.rows] == [
        (0, 1, "a blue robot", 2),
        (1, 1, "a blue robot", 0),
        (2, 3, "a red mug", 9),
    ]
    assert not plan.bad
    assert not plan.repeats
    assert len({one.key for one in plan.rows}) == 3


def test_without_seeds_the_settings_have_one_and_own_values_win() -> None:
    plan = planned(row(1, "a blue robot"), row(2, "a red mug", steps=7), seed=4, steps=30)
    assert [one.seed for one in plan.rows] == [4, 4]
    assert [(config.prompt, config.steps, config.seed) for config in plan.configs] == [
        ("a blue robot", 30, 4),
        ("a red mug", 7, 4),
    ]
    assert [one.settings for one in plan.rows] == [{}, {"steps": 7}]


def test_the_same_run_is_made_once_however_it_is_written() -> None:
    rows = [row(1, "a blue robot"), row(4, "a blue robot", 0), row(5, "a blue robot", steps=30), row(6, "a blue mug")]
    plan = planned(*rows, seeds=[0, 1], steps=30)
    assert [(one.line, one.seed) for one in plan.rows] == [(1, 0), (1, 1), (6, 0), (6, 1)]
    assert [one.index for one in plan.rows] == [0, 1, 2, 3]
    assert [(repeat.line, repeat.first_line, repeat.seed) for repeat in plan.repeats] == [
        (4, 1, 0),
        (5, 1, 0),
        (5, 1, 1),
    ]
    assert str(plan.repeats[0]) == 'line 4 is line 1 again ("a blue robot", seed 0): made once'


def test_every_bad_row_is_listed_in_the_order_of_the_file_before_anything_is_made() -> None:
    rows = [
        row(1, "a blue robot"),
        row(2, "a blue spaceship"),
        row(4, "a red mug", steps=-1),
        row(5, "a red mug", steps="many"),
        PromptRow(prompt="a red mug", line=6, settings={"guidance.nose": "random"}),
        row(7, "a red mug", prior="nosuch"),
        row(8, "a red and blue mug"),
        row(9, "a striped mug", prior="toybox"),
        row(10, "a striped mug"),
        row(11, "anything at all", prior="sd21-base"),
    ]
    plan = planned(*rows, bad=(BadRow(line=3, reason="not JSON"),))
    assert [one.line for one in plan.rows] == [1, 10, 11]
    assert [bad.line for bad in plan.bad] == [2, 3, 4, 5, 6, 7, 8, 9]
    reasons = {bad.line: bad.reason for bad in plan.bad}
    parts = {2: "spaceship", 4: "steps must be 1 to", 5: "'many'", 6: "guidance.nose", 7: "nosuch", 8: "more than one"}
    assert all(part in reasons[line] for line, part in parts.items()), reasons
    assert "toybox-ideal" in reasons[9]


def test_bad_rows_end_the_command_unless_they_are_skipped(tmp_path: Path) -> None:
    plan = planned(row(1, "a blue robot"), row(2, "a blue spaceship"))
    source, said = tmp_path / "prompts.txt", []
    with pytest.raises(UserError, match="1 bad row, listed above; nothing is started.*--skip-bad to make the other 1"):
        refuse_bad_rows(plan, source, say=said.append, skip=False)
    assert len(said) == 1
    assert said[0].startswith(f"{source}, line 2: ")
    said.clear()
    refuse_bad_rows(plan, source, say=said.append, skip=True)
    assert "going on with the other 1" in said[-1]
    with pytest.raises(UserError, match="nothing to make"):
        refuse_bad_rows(planned(row(2, "a blue spaceship")), source, say=said.append, skip=True)
    said.clear()
    refuse_bad_rows(planned(row(1, "a blue robot")), source, say=said.append, skip=False)
    assert said == []


def test_rows_with_the_same_fault_share_a_line(tmp_path: Path) -> None:
    faults = {2: "not JSON", 3: "no prompt", 4: "not JSON", 5: "not JSON", 9: "not JSON"}
    plan = planned(row(1, "a blue robot"), bad=tuple(BadRow(line=line, reason=why) for line, why in faults.items()))
    said: list[str] = []
    with pytest.raises(UserError, match="5 bad rows, listed above"):
        refuse_bad_rows(plan, tmp_path, say=said.append, skip=False)
    assert said == [f"{tmp_path}, lines 2, 4 to 5, 9: not JSON", f"{tmp_path}, line 3: no prompt"]
    assert numbered(range(1, 10_001)) == "lines 1 to 10000"


def test_settings_are_validated_once_for_all_rows_that_share_them() -> None:
    asked: list[dict[str, Any]] = []

    def settings_of(own: Mapping[str, Any]) -> RunConfig:
        asked.append(dict(own))
        if own:
            raise UserError("no")
        return RunConfig()

    rows = (row(1, "a"), row(2, "b"), row(3, "c", steps=0), row(4, "d", steps=0))
    plan = plan_rows(PromptList(rows=rows), settings_of=settings_of, seeds=None, check=lambda config: None)
    assert asked == [{}, {"steps": 0}]
    assert [bad.line for bad in plan.bad] == [3, 4]


def test_rows_that_leave_more_than_the_disk_holds_are_refused(tmp_path: Path) -> None:
    needed, free = require_disk_space([RunConfig()] * 2, tmp_path / "not" / "there")
    assert needed.least == 2 * disk_space_of(RunConfig()).least < free
    huge = with_values(RunConfig(), {"gaussians.num_initial": 1_000_000, "densify.enabled": False})
    # As many runs as nearly fit, and one more.
    count = free // disk_space_of(huge).least + 100
    with pytest.raises(UserError, match=rf"{count} runs leave at least .*GB in .*are free"):
        require_disk_space((huge for _ in range(count)), tmp_path)


def test_the_estimate_is_near_what_a_run_leaves(tmp_path: Path) -> None:
    settings = with_values(small_config(), {"gaussians.num_initial": 6000, "densify.enabled": False})
    run = whole_run(tmp_path / "run", settings)
    left = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    # 6000 Gaussians take most of it: two checkpoints and the splats.
    assert left > 2_000_000
    estimate = disk_space_of(settings)
    assert estimate.least == estimate.most
    assert 0.9 * left < estimate.most < 1.5 * left


def test_space_grows_with_what_a_run_may_leave() -> None:
    plain = disk_space_of(RunConfig())
    assert plain.least < plain.most
    no_growth = disk_space_of(with_values(RunConfig(), {"densify.enabled": False}))
    assert no_growth.least == no_growth.most == plain.least
    for larger in ({"outputs.turntable_size": 512}, {"steps": 10_000}, {"outputs.preview_every": 1}):
        assert disk_space_of(with_values(RunConfig(), larger)).least > plain.least
    field = disk_space_of(with_values(RunConfig(), {"representation": "ngp", "ngp.grid.log2_table_size": 18}))
    assert field.least > disk_space_of(with_values(RunConfig(), {"representation": "ngp"})).least
    grids = [
        disk_space_of(with_values(RunConfig(), {"representation": "voxels", "voxels.sh_degree": k})) for k in (0, 1)
    ]
    # Two checkpoints of three copies: nine more numbers of four bytes for each of 64^3 vertices.
    assert grids[1].least - grids[0].least == 2 * 3 * 9 * 4 * 64**3


def test_a_list_becomes_rows_with_its_repeats_and_its_disk_space_in_view(tmp_path: Path) -> None:
    source, said = tmp_path / "prompts.csv", []
    source.write_text("prompt,steps\na blue robot,\na blue robot,\na blue ship,\na red mug,9\n")

    def rows(skip_bad: bool) -> Planned:
        return checked_rows(
            source,
            key=None,
            seeds=[0, 1],
            settings_of=lambda own: with_values(RunConfig(), own),
            out=tmp_path / "out",
            skip_bad=skip_bad,
            say=said.append,
        )

    with pytest.raises(UserError, match="nothing is started"):
        rows(False)
    assert not (tmp_path / "out").exists()
    said.clear()
    assert [(one.prompt, one.seed, one.line) for one in rows(True).rows] == [
        ("a blue robot", 0, 2),
        ("a blue robot", 1, 2),
        ("a red mug", 0, 5),
        ("a red mug", 1, 5),
    ]
    assert f'{source}: line 3 is line 2 again ("a blue robot", seed 1): made once' in said
    assert said[0].startswith(f"{source}, line 4: ")
    assert said[-1].startswith("4 runs, which will leave about ")


def test_what_no_run_can_begin_with_is_found_before_the_first_step(tmp_path: Path) -> None:
    source, said = tmp_path / "prompts.csv", []
    source.write_text(f"prompt,gaussians.init_from\na blue robot,{tmp_path / 'gone.ply'}\na red mug,\n")
    planned = checked_rows(
        source,
        key=None,
        seeds=None,
        settings_of=lambda own: with_values(RunConfig(), own),
        out=tmp_path,
        skip_bad=True,
        say=said.append,
    )
    assert [one.prompt for one in planned.rows] == ["a red mug"]
    assert "line 2: cannot start from" in said[0]
