"""What a run would be, without making it: its settings, checked, and its predicted memory and time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from sdi_gs.devices import pick_device
from sdi_gs.errors import UserError
from sdi_gs.files import is_there, refuse_existing
from sdi_gs.priors.catalog import add_ons_of, entry_named, refuse_add_ons
from sdi_gs.priors.check import PriorReport, check_prior
from sdi_gs.priors.fetch import readable_size
from sdi_gs.priors.listing import prior_status
from sdi_gs.priors.used_files import used_files
from sdi_gs.runs.launch import settings_of_new_run
from sdi_gs.runs.predicted_run import predicted_runs
from sdi_gs.runs.prepare import require_device, require_runnable
from sdi_gs.runs.request import RunRequest
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict

GIB = 2**30


def dry_run(request: RunRequest, *, chosen: str, say: Callable[[str], None]) -> None:
    """Say what a requested run would be: YAML of its settings, with all else in comments before it.

    ``chosen`` is the origin of the settings in a few words. Nothing is written, loaded or fetched. Raises UserError for
    what would be refused before the prior is loaded, and for runs that are not new or not one.
    """
    if request.resume is not None:
        raise UserError("--dry-run shows a new run, and the settings of one to resume are in its folder: leave one out")
    if request.two_stage:
        raise UserError("--dry-run shows one run, not two stages: leave --two-stage out")
    device = pick_device(None if request.device is None else str(request.device))
    config = settings_of_new_run(request, device=device)
    require_runnable(config)
    require_device(config, device)
    if request.output_dir is not None:
        refuse_existing(request.output_dir)
    on_prior, same_cost = prior_lines(config)
    about = (f"nothing is written or fetched; {chosen}, device {device}", *on_prior, *run_lines(config, same_cost))
    settings = yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True).rstrip()
    say("\n".join([*(f"# {line}" for line in about), settings]))


def prior_lines(config: RunConfig) -> tuple[list[str], str | None]:
    """Return whether the prior is on this machine, and if so what a check without its weights finds; and the published
    model whose cost it has, None for its own.

    Raises UserError for a name that is none, for a prior that is here and cannot be used, and for LoRAs and textual
    inversions that are not there or do not fit it.
    """
    status = prior_status(config.prior)
    refuse_add_ons(config)
    used_files(config)
    if not status.on_disk:
        size = "a download" if status.size_bytes is None else f"a download of {readable_size(status.size_bytes)}"
        return [f"prior     {config.prior}: {size}"], None
    # Of a repository in the hub's cache the hub would be asked for news.
    is_checked = entry_named(config.prior) is not None or is_there(Path(config.prior))
    report = check_prior(config.prior, add_ons=add_ons_of(config)) if is_checked else None
    line = f"prior     {config.prior}: on this machine"
    return ([line, *report.notes], report.same_cost) if isinstance(report, PriorReport) else ([line], None)


def run_lines(config: RunConfig, same_cost: str | None) -> list[str]:
    """Return the predicted memory and time of a run on each tier; why there is none, if there is none."""
    found = predicted_runs(config, same_cost=same_cost)
    if not found:
        return ["predicted nothing: neither memory nor time of such a run was counted (docs/reports/gpu-memory.md)"]
    lines = [f"steps     {config.total_steps} of {config.views_per_step} views{grouped(config)}"]
    for run in found:
        hours = ", ".join(f"{_readable_hours(value)} on {card}" for card, value in run.hours.items())
        lines.append(f"predicted tier {run.tier.name}: at most {run.peak_bytes / GIB:.1f} GiB; {hours}")
    return [*lines, "predicted times are counted from operations, not measured"]


def grouped(config: RunConfig) -> str:
    """Return the words for views that stand in groups; none for views that are drawn one by one."""
    size = config.cameras.views_per_group
    return "" if size == 1 else f", in groups of {size} at equal turns"


def _readable_hours(hours: float) -> str:
    return f"{60.0 * hours:.0f} min" if hours < 2.0 else f"{hours:.1f} h"
