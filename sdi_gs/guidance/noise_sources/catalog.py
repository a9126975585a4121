"""Noise sources by name."""

from __future__ import annotations

from importlib import import_module

from sdi_gs.errors import UserError
from sdi_gs.guidance.noise_sources.protocol import NoiseSource
from sdi_gs.settings.noise_sources import NOISE_SOURCES, NoiseName


def load_noise_source(name: NoiseName) -> NoiseSource:
    """Return a new source of one of the names in ``NOISE_SOURCES``.

    Raises UserError for any other name.
    """
    if name not in NOISE_SOURCES:
        raise UserError(f'unknown noise source "{name}"; known: {", ".join(NOISE_SOURCES)}')
    module, _, factory = NOISE_SOURCES[name].factory.partition(":")
    return getattr(import_module(module), factory)()
