"""Check "throughput": pictures per second of the rasteriser, with and without gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdi_gs.doctor.check_setup import CheckSetup, synchronize
from sdi_gs.doctor.rows import Row, shown
from sdi_gs.rasterize import rasterization
from sdi_gs.rasterize.scenes import BallScene, ball_scene


def check_throughput(setup: CheckSetup) -> Iterator[Row]:
    """Yield two rows per size: forward only, and forward with backward."""
    for num_gaussians, side in setup.size.throughput:
        scene = ball_scene(num_gaussians, width=side, height=side, scales=(0.005, 0.02))
        what = f"{num_gaussians} Gaussians at {side} pixels"
        for name, turn in (("forward", _forward), ("forward and backward", _forward_and_backward)):
            seconds = _seconds(turn(scene, setup.device), setup)
            yield shown(f"{what}: {name}", len(scene.viewmats) / seconds, unit="pictures/s")


def _seconds(turn: Callable[[], object], setup: CheckSetup) -> float:
    """Return the mean time of a call, after as many calls to warm up as are timed."""
    for _ in range(setup.size.timed_steps):
        turn()
    synchronize(setup.device)
    started = time.perf_counter()
    for _ in range(setup.size.timed_steps):
        turn()
    synchronize(setup.device)
    return (time.perf_counter() - started) / setup.size.timed_steps


def _forward(scene: BallScene, device: torch.device) -> Callable[[], object]:
    leaves, cameras = _on_device(scene, device)

    @torch.no_grad()
    def turn() -> Tensor:
        return rasterization(**leaves, **cameras, packed=False)[0]

    return turn


def _forward_and_backward(scene: BallScene, device: torch.device) -> Callable[[], object]:
    leaves, cameras = _on_device(scene, device)

    def turn() -> tuple[Tensor, ...]:
        colours, _, _ = rasterization(**leaves, **cameras, packed=False)
        return torch.autograd.grad(colours.sum(), list(leaves.values()))

    return turn


def _on_device(scene: BallScene, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Move the scene's trainable tensors and its cameras to a device."""
    leaves = {name: value.detach().to(device).requires_grad_() for name, value in scene.leaves().items()}
    cameras = {
        name: value.to(device) if isinstance(value, Tensor) else value for name, value in scene.cameras().items()
    }
    return leaves, cameras
