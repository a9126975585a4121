"""Metric "image-reward": ImageReward of the pictures under the prompt; on T3Bench's cameras also its quality score."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdi_gs.evaluation.icosphere import icosphere
from sdi_gs.evaluation.metrics.metric import Metric, Subject
from sdi_gs.evaluation.protocol_views import SUBDIVISIONS

ROUNDS = 3
"""In which T3Bench averages the rewards of neighbouring places."""


def t3bench_quality(
    rewards: np.ndarray,  # [F, V] one for each field of view and place
) -> float:
    """Return T3Bench's quality, 0 to 100: the best place after averaging, 20 times its reward plus 50."""
    best = rewards.max(axis=0)
    neighbours = icosphere(SUBDIVISIONS).neighbours.astype(np.float64)
    for _ in range(ROUNDS):
        best = (best + neighbours @ best) / (1.0 + neighbours.sum(axis=1))
    return float(best.max() * 20.0 + 50.0)


def _compute(subject: Subject) -> dict[str, Any]:
    networks, protocol = subject.networks, subject.protocol
    rewards = networks.image_reward().scores(subject.shown.rgb, networks.text(subject.prompt)).numpy()
    values: dict[str, Any] = {"image_reward": float(rewards.mean())}
    if protocol.placement == "icosphere":
        values["t3bench_quality"] = t3bench_quality(rewards.astype(np.float64).reshape(len(protocol.fov_y_deg), -1))
    return values


IMAGE_REWARD = Metric(
    name="image-reward",
    compute=_compute,
    why_not=lambda subject: subject.networks.why_not("image-reward"),
)
