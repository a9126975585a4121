"""``sdi-gs priors``: the known diffusion models and their weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, assert_never

import tyro

from sdi_gs.commands.common import print_paths
from sdi_gs.console import print_lines, say


@dataclass(frozen=True, kw_only=True)
class Priors:
    """List the known diffusion models, their sources and whether they are on the disk, fetch, check or convert one."""

    action: Annotated[Literal["list", "fetch", "check", "convert"], tyro.conf.Positional] = "list"
    """Whether to list, to fetch, to check without weights (what it is, what would be used, why it cannot be), or to
    convert one file with a whole model, a pickle or not, into a folder with safetensors."""
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """A known name, a folder, a file or a hub id (owner/name); all known ones are listed if not given. fetch takes the
    networks of sdi-gs eval as well: clip-b32, clip-b16, clip-l14, clip-bigg, image-reward, hps-v2, hps-v2.1."""
    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]")] = None
    """The new folder that convert writes; it is never overwritten."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __post_init__(self) -> None:
        if self.action != "list" and self.name is None:
            raise ValueError(f"{self.action} needs a name: see sdi-gs priors for those that are known")
        if self.action == "convert" and self.folder is None:
            raise ValueError("convert needs a file and a new folder: sdi-gs priors convert FILE FOLDER")
        if self.action != "convert" and self.folder is not None:
            raise ValueError(f"{self.action} takes one name: leave {self.folder} out")
        if self.action != "list" and self.json:
            prints = "text" if self.action == "check" else "a path"
            raise ValueError(f"{self.action} prints {prints}: leave --json out")


def priors(options: Priors) -> int:
    """List priors, fetch or convert one and print the folder of its weights, or check one."""
    from sdi_gs.evaluation.networks.files import fetch_network
    from sdi_gs.evaluation.networks.published import known_network
    from sdi_gs.priors.listing import fetch_prior, known_priors, prior_status, status_lines

    match options.action:
        case "list":
            statuses = known_priors() if options.name is None else [prior_status(options.name)]
            if options.json:
                print(json.dumps({"priors": [status.as_json() for status in statuses]}))
            else:
                print_lines(*status_lines(statuses))
        case "fetch":
            network = known_network(options.name or "")
            folder = fetch_network(network, say) if network else fetch_prior(options.name or "", say=say)
            if folder is None:
                say(f"{options.name} has no weights: there is nothing to fetch")
            else:
                print_paths([folder])
        case "check":
            from sdi_gs.priors.check import check_prior

            report = check_prior(options.name or "")
            print_lines(*([report] if isinstance(report, str) else report.lines()))
        case "convert":
            from sdi_gs.priors.convert import convert

            assert options.folder is not None
            print_paths([convert(Path(options.name or ""), options.folder, say=say)])
        case _:
            assert_never(options.action)
    return 0
