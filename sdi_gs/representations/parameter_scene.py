"""A scene of your own: named parameters moved by Adam, of which only ``render`` is left to write."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DensityField, RenderOutput
from sdi_gs.errors import UserError
from sdi_gs.representations.adam import RunAdam
from sdi_gs.representations.optimizers import gradients_of
from sdi_gs.representations.saved_state import part_of, require_adam
from sdi_gs.settings.run import RunConfig
from sdi_gs.splats.splat_cloud import SplatCloud


class ParameterScene(ABC):
    """Named parameters with one Adam; both a ``Scene`` and its own ``Representation``.

    A subclass writes ``render``, and ``splats``, ``density`` or ``losses`` if it has any.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        learning_rates: float | Mapping[str, float] = 1e-2,
        adam_betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        """Copy the parameters' initial values; ``learning_rates`` is one for all or one by name."""
        self.params = {name: nn.Parameter(value.detach().clone()) for name, value in params.items()}
        rates = learning_rates if isinstance(learning_rates, Mapping) else dict.fromkeys(params, learning_rates)
        if set(rates) != set(self.params):
            raise ValueError(f"learning_rates must name {', '.join(self.params)}, not {', '.join(rates)}")
        self._rates = rates
        groups = [{"params": [value], "lr": self._rates[name]} for name, value in self.params.items()]
        self.optimizer = RunAdam(groups, betas=adam_betas, eps=1e-15)

    @abstractmethod
    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
        progress: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """Render all cameras over their backgrounds, differentiably.

        The viewer asks for ``with_depth`` in its views of depth and normals. In training, ``progress`` is the finished
        share of the run, and ``generator`` is there for random draws.
        """

    # Representation.

    @property
    def representation(self) -> Self:
        """The scene itself."""
        return self

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(iter(self.params.values())).device

    @property
    def num_points(self) -> int:
        """Number of splats."""
        splats = self.splats()
        return 0 if splats is None else len(splats)

    def describe(self) -> str:
        """Return the name of the class."""
        return f"a {type(self).__qualname__}"

    def detached_copy(self) -> Self:
        """Copy the parameters as they are now; other attributes and the optimiser are shared."""
        copied = copy.copy(self)
        copied.params = {name: nn.Parameter(value.detach().clone()) for name, value in self.params.items()}
        return copied

    def splats(self) -> SplatCloud | None:
        """Return None: there is nothing that a splat file could hold."""
        return None

    def density(self, *, resolution: int | None = None) -> DensityField | None:
        """Return None: there is nothing that a mesh could be made of."""
        return None

    # Scene.

    def losses(self, render: RenderOutput, cameras: CameraBatch, progress: float) -> dict[str, Tensor]:
        """Return no terms beside the distillation's."""
        return {}

    def backward(self, loss: Tensor, render: RenderOutput, *, step: int) -> None:
        """Compute the gradients of all parameters."""
        loss.backward()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of all parameters that have one, by name."""
        return gradients_of(self.params)

    def drop_gradients(self) -> None:
        """Clear the gradients of a step that failed."""
        self.optimizer.zero_grad(set_to_none=True)

    def update(
        self,
        render: RenderOutput,
        *,
        step: int,
        generator: torch.Generator,
        timestep_fraction: float | None = None,
    ) -> None:
        """Take one step of Adam."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def finalize(self) -> None:  # noqa: B027
        """Do nothing after the last step."""

    def update_config(self, config: RunConfig) -> None:
        """Multiply the learning rates by ``learning_rate_scale``."""
        for group, name in zip(self.optimizer.param_groups, self.params, strict=True):
            group["lr"] = config.learning_rate_scale * self._rates[name]

    def state(self) -> dict[str, Any]:
        """Return parameters and the optimiser's averages."""
        params = {name: value.detach() for name, value in self.params.items()}
        return {"params": params, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned; raises UserError for parameters of other names or shapes."""
        params = state.get("params") or {}
        saved = {name: tuple(getattr(value, "shape", ())) for name, value in params.items()}
        if saved != {name: tuple(value.shape) for name, value in self.params.items()}:
            raise UserError(f"the saved state does not fit {self.describe()}: it holds {saved or 'no parameters'}")
        optimizer = part_of(state, "optimizer", dict)
        require_adam(optimizer, self.optimizer, "optimizer")
        for name, value in self.params.items():
            value.copy_(params[name])
        self.optimizer.load_state_dict(optimizer)
