"""Several processes with one thread each train one network: gradients are averaged, so that all have equal weights.

``python -m torch.distributed.run --nproc-per-node 2 tools/train_toybox.py ...`` starts them. One process with two
threads is slower than two with one, and much slower if other programs use the cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Rank and number of the processes."""

    rank: int = 0
    """Rank 0 writes checkpoints, logs and sheets."""
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
        """Return whether the flag is true in any process."""
        if self.count == 1:
            return flag
        votes = torch.tensor([float(flag)])
        dist.all_reduce(votes)
        return votes.item() > 0.0

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes in order of rank; every process must pass as many."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Workers()


@contextmanager
def workers_of_environment() -> Iterator[Workers]:
    """Join the process group in the environment that torch's launcher set; without one, yield this process alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    dist.init_process_group("gloo")
    try:
        yield Workers(rank=dist.get_rank(), count=count)
        # A process that leaves while another still talks to it can take that one down with it.
        dist.barrier()
    except BaseException:
        dist.destroy_process_group()
        raise


def run_program(main: Callable[[], None]) -> None:
    """Run a program, and end this process with code 0 and without a shutdown if it was one of several.

    gloo's threads can abort a process while its group is destroyed or the interpreter ends ("terminate called without
    an active exception", pytorch/pytorch#190489); the launcher then reports finished work as failed.
    """
    main()
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
