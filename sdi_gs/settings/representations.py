"""Names of the representations that a run can optimise (``sdi_gs.representations.catalog`` has their code)."""

from __future__ import annotations

from typing import Literal, get_args

RepresentationName = Literal["gaussians", "ngp"]
REPRESENTATION_NAMES: tuple[RepresentationName, ...] = get_args(RepresentationName)
