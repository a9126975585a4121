"""Requests of runs, as data; imports no torch, so that the command line starts fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdi_gs.errors import UserError
from sdi_gs.runs.export_formats import ExportFormat, formats_for
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.stages import StagesConfig
from sdi_gs.settings.tiers import TierChoice
from sdi_gs.settings.tree import with_values

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run to start, or a stopped run to resume.

    Settings have three origins, of which the later ones win: ``config``, the memory tier, ``given``. Raises UserError
    if the parts do not go together or the settings are not valid.
    """

    config: RunConfig | None = None
    """Settings to start from. With ``resume`` they must be those of the stopped run; None takes these."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name, such as {"guidance.noise": "random"}."""
    device: str | torch.device | None = None
    """Where to compute; None for the first CUDA device, or the CPU if there is none."""
    output_dir: Path | None = None
    """The run's own folder, new or empty; None for the next free outputs/<prompt>-<n>."""
    resume: Path | None = None
    """The folder of a run to continue; ``given`` may change what may be changed while a run trains, and ``extend``."""
    at: int | None = None
    """The step of one of its checkpoints, to go on from there in a new folder; None for the latest one, in its own."""
    tier: TierChoice = "auto"
    """Memory tier, which sets what of ``compute`` is not given; "auto" goes by a CUDA card's free memory."""
    two_stage: bool = False
    """Whether to train a field first and splats from its surface second: two run folders."""
    stages: StagesConfig = field(default_factory=StagesConfig)
    export: tuple[str, ...] = ()
    """Formats that the result is also written in when the run ends, besides ``splats.ply``; of two stages the last."""
    field_config: RunConfig | None = None
    """Settings that the first of two stages starts from instead of ``config``; None for the same ones."""

    def __post_init__(self) -> None:
        self.exports()
        if self.resume is not None:
            if self.two_stage:
                raise UserError(
                    "--two-stage does not go with --resume: resume the stage that stopped, by its own folder"
                )
            if self.output_dir is not None and self.at is None:
                raise UserError(
                    f"--output-dir does not go with --resume: the run goes on in {self.resume}; with --at STEP it goes "
                    "on in a new folder"
                )
        elif self.at is not None:
            raise UserError("--at names a checkpoint of a run to go on from: add --resume RUN")
        if self.stages != StagesConfig() and not self.two_stage:
            raise UserError("--stages.* options are for two stages: add --two-stage")
        if self.config is None:
            if self.resume is None:
                raise UserError("nothing to run: give a config, or a run to resume")
            return
        start = self.settings().gaussians
        if self.two_stage and (start.init is not None or start.init_from is not None):
            raise UserError("--two-stage starts the splats from its own field: leave --init and --init-from out")

    def exports(self) -> list[ExportFormat]:
        """Return the rows of the formats to export; UserError for a name that is unknown or given twice."""
        return formats_for(None, self.export) if self.export else []

    def field_settings(self, compute: ComputeConfig) -> RunConfig | None:
        """Return what suits the first of two stages, with what is given; None if nothing else does than the run's own.

        Raises UserError for values that the settings reject.
        """
        if self.field_config is None:
            return None
        return replace(self, config=self.field_config).settings(compute=compute)

    def settings(self, base: RunConfig | None = None, *, compute: ComputeConfig | None = None) -> RunConfig:
        """Return the settings of the run: ``config``, or ``base`` without one, then ``compute``, then ``given``.

        Raises UserError for values that the settings reject.
        """
        config = self.config or base
        if config is None:
            raise ValueError("a request without a config needs the settings of the run that it resumes")
        try:
            return with_values(config if compute is None else replace(config, compute=compute), self.given)
        except UserError as error:
            # The values come from no file, so none is named.
            raise UserError(str(error).removeprefix("config: ").removeprefix("run: ")) from error
