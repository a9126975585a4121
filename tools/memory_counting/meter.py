"""Count the needs of torch operations on tensors without data: live memory, floating point operations, traffic.

A ``StepMeter`` is a context manager that sees every operation on the meta device. It follows storages from their
allocation until the last tensor or saved activation frees them, counts operations with torch's own formulas, and
answers data-dependent questions with stated assumptions.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

Part = Literal["weights", "scene", "vae", "unet", "guidance", "text", "optimiser", "workspace"]
"""The part that memory and work belong to. The scene includes render, losses and gradients; the guidance is the algebra
around the U-Net's calls; the workspace is a convolution's temporary memory."""

Kernels = Literal["cuda", "cpu"]

_FLASH_WIDTH = 256
"""Widest head of the flash kernels; wider heads and float32 use the memory-efficient ones."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kernel."""

    part: Part
    flops: int
    """A multiplication and an addition count as two."""
    traffic: int
    """Bytes read and written, each tensor once."""
    half: bool
    """Whether it computes in 16 bits."""
    name: str = ""
    """torch's operator; "" for a kernel that is none."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Assumed answers to data-dependent questions."""

    scalar: float = 1.0
    """Any number read from a tensor."""
    nonzero_share: float = 0.5
    """Elements that ``nonzero`` finds in a table."""
    mask_share: float = 0.5
    """Rows that a mask keeps, which ``nonzero`` finds in it."""
    sector_share: float = 1.0
    """Sectors of a table that a warp reads, per point and corner."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A block allocated (``size`` in bytes) or freed (``size`` 0)."""

    block: int
    size: int


class StepMeter(TorchDispatchMode):
    """Follows storages and counts operations while active.

    ``kernels`` selects the fused attention kernels that are assumed.
    """

    def __init__(self, *, kernels: Kernels = "cuda", assumptions: Assumptions | None = None) -> None:
        super().__init__()
        self.assumptions = assumptions or Assumptions()
        self.operations: list[Operation] = []
        self.allocations: list[Allocation] = []
        """Requests to an allocator, oldest first."""
        self.live: Counter[Part] = Counter()
        """Live bytes."""
        self.peak: Counter[Part] = Counter()
        """Bytes at the peak."""
        self._parts: list[Part] = ["scene"]
        self._storages: dict[int, tuple[weakref.ref[Any], int, Part]] = {}
        self._kernels: Kernels = kernels
        self._entered = ExitStack()
        self._blocks = 0

    def __enter__(self) -> StepMeter:
        with ExitStack() as stack:
            stack.enter_context(_fused_attention(self._kernels))
            super().__enter__()
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._entered.__exit__(*raised)

    @property
    def part(self) -> Part:
        """The part of the next operation."""
        return self._parts[-1]

    def set_part(self, part: Part) -> None:
        """Assign all further operations to ``part``."""
        self._parts[-1] = part

    @contextmanager
    def within(self, part: Part) -> Iterator[None]:
        """Assign operations in the body to ``part``."""
        self.begin(part)
        yield
        self.end()

    def begin(self, part: Part) -> None:
        """Begin a section of ``part``; sections nest."""
        self._parts.append(part)

    def end(self) -> None:
        """End the innermost section."""
        self._parts.pop()

    def adopt(self, tensors: Iterable[Tensor], part: Part) -> None:
        """Count existing tensors, such as weights."""
        for tensor in tensors:
            self._follow(tensor, part)

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Exclude the memory of tensors that would be on another device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = (weakref.ref(storage), 0, "weights")

    def restart_peak(self) -> None:
        """Reset peak and operations; live memory stays counted."""
        self.peak = self.live.copy()
        self.operations.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self._answer(func, args, kwargs)
        if out is None:
            out = func(*args, **kwargs)
        made = [self._follow(tensor, self.part) for tensor in _tensors(out)]
        if any(made) or func._schema.is_mutable:
            self._count(func, args, kwargs, out)
        if func is aten.convolution.default:
            self._borrow((*args[:2], out))
        elif func is aten.convolution_backward.default:
            above, image, weight, by_image, by_weight = *args[:3], *out[:2]
            # Two kernels; each runs only if its gradient is needed.
            if by_image is not None:
                self._borrow((above, weight, by_image))
            if by_weight is not None:
                self._borrow((above, image, by_weight))
        return out

    def _answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return the assumed result of an operation that needs data; None for all others."""
        given = args[0] if args else None
        if not isinstance(given, Tensor) or given.device.type != "meta":
            return None
        match func:
            case aten._local_scalar_dense.default:
                return _scalar_like(given, self.assumptions.scalar)
            case aten._to_copy.default if torch.device(kwargs.get("device") or "meta").type == "cpu":
                return torch.ones(given.shape, dtype=kwargs.get("dtype") or given.dtype)
            case aten.nonzero.default:
                share = self.assumptions.mask_share if given.dim() == 1 else self.assumptions.nonzero_share
                found = round(share * given.numel())
                return given.new_empty((found, given.dim()), dtype=torch.int64)
            case aten.index.Tensor if len(args[1]) == 1 and args[1][0].dtype == torch.bool:
                kept = round(self.assumptions.mask_share * args[1][0].numel())
                return given.new_empty((kept, *given.shape[args[1][0].dim() :]))
            case aten.bincount.default:
                return given.new_empty((max(kwargs.get("minlength", 0), *args[2:3], 0),), dtype=torch.int64)
            case _:
                return None

    def _follow(self, tensor: Tensor, part: Part) -> bool:
        """Count a tensor's storage if it is new, and return whether it was."""
        if tensor.device.type != "meta":
            return False
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return False
        self._blocks += 1
        block = self._blocks
        self._storages[key] = (weakref.ref(storage, lambda _: self._forget(key, block)), size, part)
        self.allocations.append(Allocation(block, size))
        self.live[part] += size
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()
        return True

    def _forget(self, key: int, block: int) -> None:
        _, size, part = self._storages.pop(key)
        self.live[part] -= size
        self.allocations.append(Allocation(block, 0))

    def _borrow(self, tensors: Iterable[Tensor]) -> None:
        """Count a kernel's workspace: copies of its tensors in the kernel's memory layout."""
        size = sum(map(_num_bytes, tensors))
        if self.live.total() + size > self.peak.total():
            self.peak = self.live.copy()
            self.peak["workspace"] += size
        self._blocks += 1
        self.allocations += (Allocation(self._blocks, size), Allocation(self._blocks, 0))

    def record(self, *, traffic: int, flops: int = 0, half: bool = False) -> None:
        """Count one kernel that is no operation of torch."""
        self.operations.append(Operation(self.part, flops, traffic, half))

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        touched = [tensor for tensor in _tensors((args, kwargs, out)) if tensor.device.type == "meta"]
        if not touched:
            return
        formula = flop_registry.get(func._overloadpacket)
        flops = int(formula(*args, **kwargs, out_val=out)) if formula is not None else 0
        traffic = sum(map(_num_bytes, touched))
        half, name = touched[0].element_size() == 2, func._overloadpacket.__name__
        self.operations.append(Operation(self.part, flops, traffic, half, name))


@contextmanager
def _fused_attention(kernels: Kernels) -> Iterator[None]:
    """Use the fused attention kernels of real tensors; torch's choice for the meta device stores every score.

    Replaces the function, because a torch function mode is inactive in a backward pass, where a checkpointed network
    attends again.
    """
    usual = F.scaled_dot_product_attention

    def attend(query: Tensor, *rest: Any, **options: Any) -> Tensor:
        if query.device.type == "meta":
            return _attend(kernels, query, *rest, **options)
        return usual(query, *rest, **options)

    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = usual


def _attend(
    kernels: Kernels,
    query: Tensor,  # [batch, heads, queries, width]
    key: Tensor,  # [batch, heads, keys, width]
    value: Tensor,  # [batch, heads, keys, width]
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if kernels == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
    half = query.element_size() == 2
    if half and attn_mask is None and query.shape[-1] <= _FLASH_WIDTH:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    keeps = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, keeps, dropout_p, is_causal, scale=scale
    )[0]


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _scalar_like(tensor: Tensor, value: float) -> bool | int | float:
    if tensor.dtype == torch.bool:
        return True
    return value if tensor.dtype.is_floating_point else math.ceil(value)
