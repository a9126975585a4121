"""The rows of a batch from its list of prompts, with every check that needs no worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sdi_gs.batch.disk_space import gigabytes, require_disk_space
from sdi_gs.batch.sources import Check, Planned, SettingsOf, plan_rows, refuse_bad_rows
from sdi_gs.files.prompt_lists import read_prompt_list
from sdi_gs.priors.catalog import require_known_prompt
from sdi_gs.runs.prepare import require_runnable
from sdi_gs.settings.run import RunConfig


def checked_rows(
    source: Path,
    *,
    key: str | None,
    seeds: Sequence[int] | None,
    settings_of: SettingsOf,
    out: Path,
    skip_bad: bool,
    say: Callable[[str], None],
) -> Planned:
    """Return the rows of a list of prompts, and print what was left out and the disk space that they need.

    ``settings_of`` returns the settings of a row from its own, over those of the command. Raises UserError for a list
    that cannot be read, for bad rows unless they are skipped, each of which is printed first, and for a disk that is
    too small.
    """
    planned = plan_rows(read_prompt_list(source, key), settings_of=settings_of, seeds=seeds, check=_check())
    refuse_bad_rows(planned, source, say=say, skip=skip_bad)
    for repeat in planned.repeats:
        say(f"{source}: {repeat}")
    needed, free = require_disk_space(planned.configs, out)
    runs = f"{len(planned.rows)} run{'s' * (len(planned.rows) != 1)}"
    between = f"{gigabytes(needed.least)} to {gigabytes(needed.most)}" if needed.most > needed.least else None
    tight = ", which may not be enough" if needed.most > free else ""
    say(f"{runs}, which will leave about {between or gigabytes(needed.most)}; {gigabytes(free)} are free{tight}")
    return planned


def _check() -> Check:
    """Return the check of a row's settings; what does not depend on the prompt is looked at once."""
    seen: set[RunConfig] = set()

    def check(config: RunConfig) -> None:
        require_known_prompt(config)
        apart_from_prompt = replace(config, prompt="", seed=0)
        if apart_from_prompt not in seen:
            require_runnable(config)
            seen.add(apart_from_prompt)

    return check
