"""Run code on "cuda:0" without a card: tensors there have a shape and a type but no values.

It uses torch's fake tensors: operations that mix devices fail as they would on a card, and nothing is allocated.
Tensors on the host are real. Operations that make the host wait for the device are recorded and return a made-up value,
so that the code continues.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# The index is needed: without a card torch cannot look up the current one.
CUDA = torch.device("cuda:0")

_MARK = 1 << 40
_OPS: Any = torch.ops.aten
_UNKNOWN_LENGTH = (
    _OPS.masked_select.default,
    _OPS.unique_dim.default,
    _OPS._unique2.default,
    _OPS.unique_consecutive.default,
    _OPS.bincount.default,
    _OPS.repeat_interleave.Tensor,
)


@dataclass(frozen=True, kw_only=True)
class Wait:
    """An operation at which the host waits until the device has finished its work."""

    operation: str
    """An operator, or "copy to the device" or "copy to the host"."""
    place: str
    """The innermost line of the package, or of gsplat, as file:function."""


@dataclass
class Trace:
    """Record of a run inside ``as_if_cuda``."""

    waits: list[Wait] = field(default_factory=list)
    largest_on_host: int = 0
    """Elements of the largest tensor that an operation made on the host."""
    num_operations: int = 0
    """Operations on the device."""


class GeneratorOn(torch.Generator):
    """A generator that reports a device of choice; the fake tensors that it fills have no values anyway.

    For operators it is a generator on the host; a bit of its seed marks those of the device.
    """

    def __new__(cls, device: Any = "cpu") -> GeneratorOn:
        return super().__new__(cls, "cpu")  # pyright: ignore[reportCallIssue]

    def __init__(self, device: Any = "cpu") -> None:
        self._device = torch.device(device)
        self.manual_seed(0)

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._device

    def manual_seed(self, seed: int) -> GeneratorOn:
        super().manual_seed(seed | _MARK if self._device.type == "cuda" else seed & ~_MARK)
        return self


@contextmanager
def as_if_cuda() -> Iterator[Trace]:
    """Let ``torch.device("cuda:0")`` be used inside; yield a record of waits and operations."""
    trace = Trace()
    with ExitStack() as stack:
        fake = _FakeTensors(allow_non_fake_inputs=True)
        make_subclass = torch.Tensor._make_subclass
        # torch built without CUDA has no CUDA streams, which autograd would look up for such tensors.
        stack.enter_context(
            patch.object(
                torch.Tensor,
                "_make_subclass",
                staticmethod(lambda cls, *given, **options: make_subclass(cls, *given, **_on_meta(cls, options))),
            )
        )
        stack.enter_context(patch.object(FakeTensor, "is_cuda", property(lambda self: self.device.type == "cuda")))
        # Fake tensors would read their values one by one, each a wait; a real tensor copies them at once.
        stack.enter_context(patch.object(FakeTensor, "tolist", lambda self: self.cpu().tolist()))
        stack.enter_context(patch.object(torch, "Generator", GeneratorOn))
        stack.enter_context(patch.object(torch.nn.Module, "to", _moved(torch.nn.Module.to)))
        # The state of a card's own generator lives on the host.
        state = torch.zeros(16, dtype=torch.uint8)
        stack.enter_context(patch.object(torch.cuda, "get_rng_state", lambda device: state))
        stack.enter_context(patch.object(torch.cuda, "set_rng_state", lambda state, device: None))
        stack.enter_context(fake)
        stack.enter_context(_Device(trace))
        yield trace


def _moved(to: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Module.to`` to do nothing if the module is on the device: torch would replace fake weights by new ones."""

    def moved(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        target = args[0] if len(args) == 1 and isinstance(args[0], (str, torch.device)) and not kwargs else None
        if target is not None and {weight.device for weight in module.parameters()} == {torch.device(target)}:
            return module
        return to(module, *args, **kwargs)

    return moved


def _on_meta(cls: type, options: dict[str, Any]) -> dict[str, Any]:
    return options | {"dispatch_device": False} if cls is FakeTensor else options


class _Device(TorchDispatchMode):
    """Dispatch mode around the fake tensors' own: keeps host tensors real, records waits and returns made-up values."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kwargs = _on_cuda(kwargs)
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        on_device = [tensor for tensor in tensors if isinstance(tensor, FakeTensor) and tensor.device.type == "cuda"]
        _require_own_generator(kwargs.get("generator"), target or (tensors[0].device if tensors else None))
        if not on_device and (target is None or target.type == "cpu"):
            with unset_fake_temporarily():
                made = func(*args, **kwargs)
            sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
            self.trace.largest_on_host = max([self.trace.largest_on_host, *sizes])
            return made
        self.trace.num_operations += 1
        return self._on_device(func, args, kwargs, target)

    def _on_device(self, func: Any, args: Any, kwargs: dict[str, Any], target: torch.device | None) -> Any:
        match func:
            case _OPS._local_scalar_dense.default:
                self._note(func)
                return _answer(args[0].dtype)
            case _OPS._to_copy.default if target is not None:
                return self._copied(func, args, kwargs, target)
            case _OPS.copy_.default if args[0].device.type != args[1].device.type:
                self._note("copy to the device" if args[0].device.type == "cuda" else "copy to the host")
                return args[0]
            case _OPS.equal.default:
                self._note(func)
                return True
            case _OPS.nonzero.default:
                self._note(func)
                return self._found(args[0])
            case _OPS.index.Tensor if any(_is_mask(index) for index in args[1]):
                self._note(func)
                return func(args[0], self._numbered(args[1]))
            case _OPS.index_put.default | _OPS.index_put_.default if any(_is_mask(index) for index in args[1]):
                if args[2].numel() > 1:
                    self._note(func)
                return args[0]
            case _ if func in _UNKNOWN_LENGTH:
                self._note(func)
        return func(*args, **kwargs)

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any], target: torch.device) -> Any:
        source = args[0].device.type
        if source == "cpu" and target.type == "cuda" and not kwargs.get("non_blocking"):
            self._note("copy to the device")
        if source == "cuda" and target.type == "cpu":
            self._note("copy to the host")
            dtype = kwargs.get("dtype") or args[0].dtype
            with unset_fake_temporarily():
                return torch.full(args[0].shape, _answer(dtype), dtype=dtype)
        return func(*args, **kwargs)

    def _found(self, mask: Tensor) -> Tensor:
        """Return made-up places where a mask holds, in the shape that ``nonzero`` returns."""
        return torch.empty((max(mask.numel() // 50, 1), mask.dim()), dtype=torch.int64, device=mask.device)

    def _numbered(self, indices: Any) -> list[Any]:
        """Return the indices with every mask replaced by made-up places where it holds."""
        numbered: list[Any] = []
        for index in indices:
            numbered += list(self._found(index).unbind(dim=1)) if _is_mask(index) else [index]
        return numbered

    def _note(self, operation: Any) -> None:
        self.trace.waits.append(Wait(operation=str(operation), place=_place()))


def _on_cuda(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Redirect new tensors on the meta device to CUDA: torch creates them there beside fake tensors."""
    device = kwargs.get("device")
    return kwargs if device is None or torch.device(device).type != "meta" else kwargs | {"device": CUDA}


class _FakeTensors(FakeTensorMode):
    """Fake tensors that are on CUDA wherever torch would put them on the meta device."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().dispatch(func, types, args, _on_cuda(dict(kwargs or {})))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _answer(dtype: torch.dtype) -> bool | int | float:
    """Return a value that lets checks pass: true, one, or a finite number."""
    if dtype == torch.bool:
        return True
    return 0.25 if dtype.is_floating_point else 1


def _require_own_generator(generator: torch.Generator | None, device: torch.device | None) -> None:
    if generator is None or device is None:
        return
    whose = "cuda" if generator.initial_seed() & _MARK else "cpu"
    if device.type != whose:
        raise RuntimeError(f"expected a generator on {device.type}, got one on {whose}")


def _place() -> str:
    frame: Any = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        for package in ("/sdi_gs/", "/gsplat/", "/diffusers/"):
            if package in file:
                return f"{package[1:]}{file.rsplit(package, 1)[1]}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"
