"""Several processes that train one network, a thread each: gradients are averaged, so all hold the same weights.

``python -m torch.distributed.run --nproc-per-node 2 tools/train_toybox.py ...`` starts them. One process with two
threads is slower than two with one, and collapses where something else wants the cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Which of how many processes this one is."""

    rank: int = 0
    """0 writes checkpoints, logs and sheets."""
    count: int = 1

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in one of the processes."""
        if self.count == 1:
            return flag
        votes = torch.tensor([float(flag)])
        dist.all_reduce(votes)
        return votes.item() > 0.0

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes in the order of their ranks; as many from each."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            dist.barrier()


ALONE = Workers()


@contextmanager
def workers_of_environment() -> Iterator[Workers]:
    """The process group that torch's launcher describes in the environment; this process alone without one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    dist.init_process_group("gloo")
    try:
        yield Workers(rank=dist.get_rank(), count=count)
    finally:
        dist.destroy_process_group()
