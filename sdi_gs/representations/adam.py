"""Adam for runs: torch's own, without what its wrappers import."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Adam, Optimizer


class RunAdam(Adam):
    """Adam with the same arithmetic, state and options as torch's.

    torch wraps an optimiser's methods for its compiler, which the first call imports: half as long as torch itself.
    Optimisers are never compiled here, so the methods behind the wrappers are called, and the hooks on ``step``.
    """

    add_param_group: Any = inspect.unwrap(Optimizer.add_param_group)
    zero_grad: Any = inspect.unwrap(Optimizer.zero_grad)
    state_dict: Any = inspect.unwrap(Optimizer.state_dict)
    load_state_dict: Any = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move the parameters along their gradients."""
        for hook in self._optimizer_step_pre_hooks.values():
            hook(self, (), {})
        result = inspect.unwrap(Adam.step)(self, closure)
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})
        return result

    # Keeps torch from wrapping it for its profiler.
    step.hooked = True  # pyright: ignore[reportFunctionMemberAccess]
