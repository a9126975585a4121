"""gsplat's own densification runs on the CPU backend's meta, unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gsplat import DefaultStrategy

from sdi_gs.rasterize import rasterization


@pytest.mark.parametrize(("packed", "absgrad"), [(False, False), (False, True), (True, False), (True, True)])
def test_default_strategy_densifies(packed: bool, absgrad: bool, make_scene: Callable[..., Any]) -> None:
    target = make_scene(300, seed=1, scales=(0.05, 0.1))
    cameras = target.cameras()
    with torch.no_grad():
        wanted, _, _ = rasterization(**target.leaves(), **cameras)
    start = make_scene(100, scales=(0.05, 0.1))
    params = torch.nn.ParameterDict(
        {
            "means": start.means,
            "quats": start.quats,
            "scales": start.scales.log(),
            "opacities": start.opacities.logit(),
            "colors": start.colors,
        }
    )
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam([{"params": [value], "lr": 1e-2}]) for name, value in params.items()
    }
    strategy = DefaultStrategy(refine_start_iter=2, refine_every=4, absgrad=absgrad, grow_grad2d=1e-5)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    counts, losses = [], []
    for step in range(14):
        rendered, _, meta = rasterization(
            params["means"],
            params["quats"],
            params["scales"].exp(),
            params["opacities"].sigmoid(),
            params["colors"],
            **cameras,
            packed=packed,
            absgrad=absgrad,
        )
        loss = (rendered - wanted).abs().mean()
        strategy.step_pre_backward(params, optimizers, state, step, meta)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        strategy.step_post_backward(params, optimizers, state, step, meta, packed=packed)
        counts.append(len(params["means"]))
        losses.append(float(loss.detach()))
    assert counts[0] == 100 and counts[4] > 100 and counts[12] > counts[8] > counts[4]
    assert losses[-1] < losses[0]
