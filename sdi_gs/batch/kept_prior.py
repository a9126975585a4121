"""The prior of a worker: loaded for its first run, kept for as long as the next ones need the same."""

from __future__ import annotations

import gc
from collections.abc import Hashable

import torch

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.contracts.prior_extras import SharedPrior
from sdi_gs.priors.catalog import loader_settings
from sdi_gs.runs.prepare import newly_loaded
from sdi_gs.settings.run import RunConfig


class KeptPrior:
    """Returns the prior of each run in turn (a ``LoadPrior``), loading it only where it is another one."""

    def __init__(self) -> None:
        self._prior: DiffusionPrior | None = None
        self._settings: Hashable = None
        self._prompts: Hashable = None
        self.loads = 0
        """How many priors have been loaded."""

    def __call__(self, config: RunConfig, device: torch.device) -> DiffusionPrior:
        """Return the prior of a run's settings on a device."""
        settings = (loader_settings(config), str(device))
        prompts = (config.prompt, config.negative_prompt)
        if self._prior is None or settings != self._settings:
            self._drop(device)
            self._prior = newly_loaded(config, device)
            self._settings = settings
            if isinstance(self._prior, SharedPrior):
                self._prior.keep_prompts()
            self.loads += 1
        elif prompts != self._prompts and isinstance(self._prior, SharedPrior):
            self._prior.forget_prompts()
        self._prompts = prompts
        return self._prior

    def _drop(self, device: torch.device) -> None:
        """Free the memory of the prior before another one needs it."""
        self._prior = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
