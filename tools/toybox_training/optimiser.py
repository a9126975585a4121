"""Muon for the matrices of a network; AdamW is used for the rest.

Muon (Jordan et al. 2024) steps along the orthogonal factor of the momentum. On these small networks it needs about half
of AdamW's steps. ``torch.optim.Muon`` does not support convolutions and computes in bfloat16, which is many times
slower than float32 on CPUs without instructions for it.

Letters: R rows and C columns of a matrix.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

# The quintic iteration that brings singular values from (0, 1] near 1 in five steps, as published with Muon.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_TURNS = 5
# Matrices with fewer rows or columns than this (first and last layers) do not profit.
_SMALLEST_SIDE = 5


def orthogonalised(
    matrices: Tensor,  # [..., R, C] float32
) -> Tensor:  # [..., R, C]
    """Return approximate orthogonal factors of matrices: singular values end between about 0.7 and 1.2.

    All iterations act on the Gram matrix of the shorter side, because its polynomials commute with it; the matrix
    itself is multiplied once. A zero matrix stays zero.
    """
    is_wide = matrices.shape[-2] <= matrices.shape[-1]
    wide = matrices if is_wide else matrices.mT
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = wide @ wide.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    total = identity
    a, b, c = _QUINTIC
    for _ in range(_TURNS):
        factor = a * identity + b * gram + c * (gram @ gram)
        total = factor @ total
        gram = factor @ gram @ factor
    out = total @ wide
    return out if is_wide else out.mT


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonal factor of Nesterov's momentum; for matrices and convolutions only."""

    def __init__(self, parameters: list[Tensor], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step with the existing gradients; equal shapes are batched, which is faster."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Any]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[len(parameter), parameter[0].numel()].append(parameter)
            for shape, parameters in alike.items():
                self._move(parameters, shape, group["lr"], group["momentum"])

    def _move(self, parameters: list[Any], shape: tuple[int, int], rate: float, momentum: float) -> None:
        ahead = torch.stack([self._ahead(parameter, momentum).reshape(shape) for parameter in parameters])
        rows, columns = shape
        # A tall matrix needs larger steps to change its outputs as much as a wide one.
        size = max(1.0, rows / columns) ** 0.5
        for parameter, move in zip(parameters, orthogonalised(ahead), strict=True):
            parameter.add_(move.reshape(parameter.shape), alpha=-rate * size)

    def _ahead(self, parameter: Any, momentum: float) -> Tensor:
        """Return Nesterov's momentum, in the parameter's shape."""
        state = self.state[parameter]
        if not state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity = state["velocity"].lerp_(parameter.grad, 1.0 - momentum)
        return parameter.grad.lerp(velocity, momentum)


def divided(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Split the trainable weights into those for Muon and all others.

    Embeddings are among the others: their gradients belong to single rows.
    """
    looked_up = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            suited = _is_matrix(parameter) and id(parameter) not in looked_up
            (matrices if suited else others).append(parameter)
    return matrices, others


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and min(len(parameter), parameter.shape[1]) >= _SMALLEST_SIDE
