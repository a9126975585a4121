"""Adam for runs: torch's own, without what its wrappers import."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch.optim import Adam, Optimizer

_OPTIONS = ("weight_decay", "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused")
"""Options of torch's Adam that change what a step computes, or how."""


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
        result = None
        if closure is None and all(map(self._is_plain, self.param_groups)):
            for group in self.param_groups:
                self._move(group)
        else:
            result = inspect.unwrap(Adam.step)(self, closure)
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})
        return result

    # Keeps torch from wrapping it for its profiler.
    step.hooked = True  # pyright: ignore[reportFunctionMemberAccess]

    def _is_plain(self, group: dict[str, Any]) -> bool:
        """Return whether a group has no options and has been moved before, on a CPU."""
        return not any(group[name] for name in _OPTIONS) and all(
            value.grad is None or (value in self.state and value.device.type == "cpu" and value.is_floating_point())
            for value in group["params"]
        )

    def _move(self, group: dict[str, Any]) -> None:
        """Do torch's operations for one tensor after the other, without the questions that it asks around them."""
        (beta1, beta2), rate, eps = group["betas"], group["lr"], group["eps"]
        for value in group["params"]:
            if value.grad is None:
                continue
            gradient, state = value.grad, self.state[value]
            mean, square, count = state["exp_avg"], state["exp_avg_sq"], state["step"]
            count += 1
            step = count.item()
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (square.sqrt() / math.sqrt(1 - beta2**step)).add_(eps)
            value.addcdiv_(mean, root, value=-(rate / (1 - beta1**step)))
