"""The commands that get a damaged file of splats, points or a mesh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHORT_RUN = (
    *("train", "--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu"),
    *("--ideal-prior.renders-per-view", "8", "--ideal-prior.unconditional-renders", "16"),
    *("--outputs.turntable-frames", "0", "--outputs.preview-every", "100"),
)
"""A run of little work; its steps, its folder and its start are named behind it."""
TRAIN = (*SHORT_RUN, "--steps", "2", "--output-dir", "run")
"""The shortest run, which starts from the file that is named behind it."""


def command_for(name: str, rng: np.random.Generator) -> Sequence[str]:
    """Return a command that reads the file: mostly the quick ones."""
    commands: list[tuple[float, Sequence[str]]] = [
        (0.3, ("export", name, "--format", "splat", "--out", "out.splat")),
        (0.15, ("export", name, "--format", "ply", "--out", "out.ply")),
        (0.1, ("export", name, "--format", "glb", "--out", "out.glb", "--mesh.resolution", "16")),
        (
            0.3,
            ("render", name, "--size", "32", "--frames", "0", "--views", "2", "--device", "cpu", "--out", "pictures"),
        ),
        (0.15, (*TRAIN, "--init-from", name)),
    ]
    weights = np.array([weight for weight, _ in commands])
    return commands[rng.choice(len(commands), p=weights / weights.sum())][1]
