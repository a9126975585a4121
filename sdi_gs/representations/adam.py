"""Adam for runs: torch's own, without what its wrappers import."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Adam, Optimizer


class RunAdam(Adam):
    """Adam with the same arithmetic, state and options as torch's.

    torch wraps an optimiser's methods for its compiler, which the first call imports: half as long as torch itself.
    Optimisers are never compiled here, so the methods behind the wrappers are called. Hooks on ``step`` do not run.
    """

    add_param_group: Any = inspect.unwrap(Optimizer.add_param_group)
    zero_grad: Any = inspect.unwrap(Optimizer.zero_grad)
    state_dict: Any = inspect.unwrap(Optimizer.state_dict)
    load_state_dict: Any = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the parameters along their gradients."""
        return inspect.unwrap(Adam.step)(self, closure)

    # Keeps torch from wrapping it for its profiler and for hooks.
    step.hooked = True  # pyright: ignore[reportFunctionMemberAccess]
