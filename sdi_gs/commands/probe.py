"""``sdi-gs probe``: how well each kind of noise fits a prior."""

from __future__ import annotations

from dataclasses import replace

from sdi_gs.commands.common import pick_device, print_paths
from sdi_gs.commands.defaults import preset_of_prior
from sdi_gs.configs.presets import preset_named
from sdi_gs.settings.probe import ProbeOptions


def probe(options: ProbeOptions) -> int:
    """Probe a prior and print the paths of the numbers and the figure."""
    from sdi_gs.evaluation.probe import run_probe

    if options.guidance_scale is None:
        preset = preset_named(preset_of_prior(options.prior))
        options = replace(options, guidance_scale=preset.config.guidance.guidance_scale)
    print_paths(run_probe(options, device=pick_device(options.device)))
    return 0
