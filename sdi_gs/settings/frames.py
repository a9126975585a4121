"""Whose axes the coordinates of a file have."""

from __future__ import annotations

from typing import Literal

Frame = Literal["viewer", "train", "y-up"]
"""``viewer``: the axes that viewers of such files expect. ``train``: z up, the object's front along +x. ``y-up``: y up,
the front along +z, whatever the format."""
