"""A U-Net whose kernels are recorded once for each shape of its input and launched together from then on.

An eager call launches some 690 kernels, and on a fast card the host takes longer to ask for them than the card to run
them. A CUDA graph of a call is one launch. Never run on a card by this project.

Letters: R rows, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor

MOST_GRAPHS = 8
"""Shapes that are kept: a step has one for each number of rows, two with Perp-Neg in the last call alone."""
WARM_UP_CALLS = 3
"""Calls before recording, in which cuDNN and cuBLAS choose their kernels and allocate what they keep."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded computation on tensors that stay where they are."""

    replay: Callable[[], object]
    """Compute again what was recorded, from the inputs' present values."""
    result: Tensor
    """Filled by each replay."""


class Recorder(Protocol):
    """Records a computation that reads and writes the same tensors every time."""

    def __call__(self, work: Callable[[], Tensor], /) -> Recording: ...


class GraphedUnet:
    """Answers like the U-Net; results are the same bits as without graphs.

    The memory that a graph works in is its own as long as the graph lives. All graphs share it, since one call runs
    at a time.
    """

    def __init__(self, unet: Any, record: Recorder) -> None:
        """Record with ``record`` at the first call of each shape."""
        self._unet, self._record = unet, record
        self._graphs: dict[tuple[object, ...], tuple[tuple[Tensor, ...], Recording]] = {}

    def __call__(
        self,
        latents: Tensor,  # [R, C, h, w]
        timesteps: Tensor,  # [R] int64
        *,
        encoder_hidden_states: Tensor,  # [R, L, E]
    ) -> SimpleNamespace:
        """Return an object whose ``sample`` is the prediction [R, C, h, w]."""
        given = (latents, timesteps, encoder_hidden_states)
        key = tuple((value.shape, value.stride(), value.dtype) for value in given)
        if key not in self._graphs:
            self._keep(key, given)
        inputs, recording = self._graphs[key]
        for place, value in zip(inputs, given, strict=True):
            place.copy_(value)
        recording.replay()
        # The next call writes into the same place.
        return SimpleNamespace(sample=recording.result.clone())

    def _keep(self, key: tuple[object, ...], given: tuple[Tensor, ...]) -> None:
        """Record the call of a new shape; the oldest graph makes room."""
        if len(self._graphs) == MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        inputs = tuple(value.clone(memory_format=torch.preserve_format) for value in given)
        latents, timesteps, embeddings = inputs

        def work() -> Tensor:
            return self._unet(latents, timesteps, encoder_hidden_states=embeddings).sample

        self._graphs[key] = (inputs, self._record(work))


def cuda_recorder() -> Recorder:
    """Return a recorder of CUDA graphs that all work in one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def record(work: Callable[[], Tensor]) -> Recording:
        # Warming up belongs on another stream than the default one, which cannot be captured.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_CALLS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = work()
        return Recording(replay=graph.replay, result=result)

    return record
