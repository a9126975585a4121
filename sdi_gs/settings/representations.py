"""The representations that a run can optimise, by name; imports no torch.

A new representation is a module that defines ``ENTRY`` (``sdi_gs.representations.catalog``), a row here, and a field
for its settings in ``RunConfig``. A scene of your own needs no row: pass the object to ``Trainer`` as ``scene``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tyro

REPRESENTATIONS: dict[str, str] = {
    "gaussians": "sdi_gs.representations.gaussian_scene",
    "ngp": "sdi_gs.representations.ngp.scene",
    "voxels": "sdi_gs.representations.voxels.scene",
}
"""Module of each representation, imported when the representation is used; checkpoints hold its tensors by the name."""

if TYPE_CHECKING:
    RepresentationName = str
else:
    RepresentationName = tyro.extras.literal_type_from_choices(tuple(REPRESENTATIONS))
