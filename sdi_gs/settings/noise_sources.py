"""The noise sources that the command line offers, by name; imports no torch.

A new source is one file in ``sdi_gs/guidance/noise_sources`` and one row in ``NOISE_SOURCES``. A source of your own
needs no row: pass the object to ``Trainer`` or ``distill`` as ``noise_source``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro


@dataclass(frozen=True, kw_only=True)
class NoiseSourceEntry:
    """A noise source that settings can name."""

    summary: str
    """What kappa is, for the help text."""
    factory: str
    """Callable without arguments that returns the source, as "module:name"; imported when the source is used."""


NOISE_SOURCES: dict[str, NoiseSourceEntry] = {
    "inversion": NoiseSourceEntry(
        summary="DDIM inversion under the prompt (SDI)",
        factory="sdi_gs.guidance.noise_sources.inversion:Inversion",
    ),
    "random": NoiseSourceEntry(
        summary="i.i.d. draws (SDS)",
        factory="sdi_gs.guidance.noise_sources.random:Random",
    ),
    "fixed-random": NoiseSourceEntry(
        summary="one draw for the whole run",
        factory="sdi_gs.guidance.noise_sources.fixed_random:FixedRandom",
    ),
    "unconditional": NoiseSourceEntry(
        summary="inversion without the prompt (ISM-like)",
        factory="sdi_gs.guidance.noise_sources.inversion:unconditional_inversion",
    ),
    "interval": NoiseSourceEntry(
        summary="the score without the prompt one interval below t (ISM)",
        factory="sdi_gs.guidance.noise_sources.interval:Interval",
    ),
    "cached": NoiseSourceEntry(
        summary="the previous prediction (DDIM)",
        factory="sdi_gs.guidance.noise_sources.cached:Cached",
    ),
    "fixed-point": NoiseSourceEntry(
        summary="iterations of the paper's eq. 8",
        factory="sdi_gs.guidance.noise_sources.fixed_point:FixedPoint",
    ),
}
"""All named sources, in the order in which the help lists them."""

if TYPE_CHECKING:
    NoiseName = str
else:
    NoiseName = tyro.extras.literal_type_from_choices(tuple(NOISE_SOURCES))
