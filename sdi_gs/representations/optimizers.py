"""What every scene does with its optimisers, which are kept by name as gsplat's densification wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from sdi_gs.representations.saved_state import part_of, require_adam, require_names

Optimizers = dict[str, Optimizer]
"""An optimiser for each parameter, or for each part of a scene, by its name."""


def take_step(optimizers: Optimizers) -> None:
    """Move all parameters along their gradients, then clear these."""
    for optimizer in optimizers.values():
        optimizer.step()
    clear_gradients(optimizers)


def clear_gradients(optimizers: Optimizers) -> None:
    """Drop the gradients of all parameters."""
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)


def gradients_of(params: Mapping[str, Tensor] | nn.ParameterDict) -> dict[str, Tensor]:
    """Return the gradients of the parameters that have one, by name."""
    return {name: value.grad for name, value in params.items() if value.grad is not None}


def states_of(optimizers: Optimizers) -> dict[str, Any]:
    """Return the optimisers' states by name, as a checkpoint holds them."""
    return {name: optimizer.state_dict() for name, optimizer in optimizers.items()}


def require_states(
    state: dict[str, Any],  # of a scene, with the part "optimizers"
    optimizers: Optimizers,
) -> dict[str, Any]:
    """Return the saved states of the optimisers; UserError for states that these optimisers cannot take over."""
    saved = part_of(state, "optimizers", dict)
    require_names(saved, optimizers, "optimizers")
    for name, optimizer in optimizers.items():
        require_adam(saved[name], optimizer, f"optimizers/{name}")
    return saved


def load_states(
    optimizers: Optimizers,
    saved: Mapping[str, Any],  # of ``require_states``
) -> None:
    """Take over the saved states."""
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(saved[name])
