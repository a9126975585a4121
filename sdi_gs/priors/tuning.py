"""Options of running diffusers' networks, which change results by rounding only.

Letters: R rows, L tokens, E embedding width, D inner width of an attention.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from sdi_gs.errors import UserError
from sdi_gs.priors.compiled_unet import CompiledUnet
from sdi_gs.priors.graphed_unet import GraphedUnet, cuda_recorder
from sdi_gs.priors.kinds import views_of
from sdi_gs.priors.multiview import AcrossViews
from sdi_gs.priors.openvino_unet import OpenVinoUnet
from sdi_gs.row_groups import recomputed
from sdi_gs.settings.compute import Attention, CompileMode, ComputeConfig


class RememberedLinear(nn.Module):
    """A frozen projection that caches its result for each input tensor as long as that tensor lives.

    The inversion projects the same embeddings in every step; the cached results are freed with them.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self._known: Any = WeakTensorKeyDictionary()

    def forward(
        self,
        embeddings: Tensor,  # [R, L, E]
    ) -> Tensor:  # [R, L, D]
        """Return the projection; a tensor that was modified since is projected again."""
        version = embeddings._version
        known = self._known.get(embeddings)
        if known is None or known[0] != version:
            known = self._known[embeddings] = (version, self.linear(embeddings))
        return known[1]


class _One:
    """The factor 1 of a block: a tensor divided by it is the tensor itself."""

    def __rtruediv__(self, values: Tensor) -> Tensor:
        return values


def skip_divisions_by_one(network: Any) -> None:
    """Let diffusers' blocks leave out the division of their results by 1: the same bits, and a kernel less each.

    There are 55 in a call of Stable Diffusion's U-Net, and in its VAE they move the largest activations.
    """
    for block in network.modules():
        for name in ("output_scale_factor", "rescale_output_factor"):
            if getattr(block, name, None) == 1.0:
                setattr(block, name, _One())


def divide_by_one(network: Any) -> None:
    """Undo ``skip_divisions_by_one`` for a compiler, which does it itself and cannot read what stands in for 1."""
    for block in network.modules():
        for name in ("output_scale_factor", "rescale_output_factor"):
            if isinstance(getattr(block, name, None), _One):
                setattr(block, name, 1.0)


def recompute_residuals(encoder: Any, recompute: bool) -> None:
    """Make each residual block of a VAE's encoder recompute its activations in the backward pass, or keep them.

    diffusers checkpoints whole levels: while a level is recomputed, the activations of both its blocks are kept. At
    full resolution they take more memory than all levels' results together.
    """
    from diffusers.models.resnet import ResnetBlock2D

    for block in encoder.modules():
        if isinstance(block, ResnetBlock2D):
            if recompute:
                block.forward = functools.partial(recomputed, functools.partial(type(block).forward, block))
            else:
                block.__dict__.pop("forward", None)


def remember_text(unet: Any, remember: bool) -> None:
    """Make every cross-attention cache its keys and values of the text, or project them in every call."""
    for attention in _cross_attentions(unet):
        for name in ("to_k", "to_v"):
            projection = getattr(attention, name)
            plain = projection.linear if isinstance(projection, RememberedLinear) else projection
            setattr(attention, name, RememberedLinear(plain) if remember else plain)


def set_attention(unet: Any, attention: Attention) -> None:
    """Choose the implementation of attention."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    match attention:
        case "sdpa":
            processor = AttnProcessor2_0()
        case "plain":
            processor = AttnProcessor()
        case _:
            assert_never(attention)
    unet.set_attn_processor(processor if views_of(unet.config) == 1 else AcrossViews(processor))


def set_channels_last(network: Any, channels_last: bool) -> None:
    """Store the convolutions' weights with channels last (side by side for each pixel) or first."""
    network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def laid_out(
    images: Tensor,  # [R, C, h, w]
    channels_last: bool,
) -> Tensor:
    """Return the images in the memory layout that a network set to ``channels_last`` reads."""
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def same_for_unet(before: ComputeConfig, after: ComputeConfig) -> bool:
    """Return whether what ``faster`` returned for some options serves under others."""
    names = ["compile_unet", "compile_mode", "cuda_graphs", "unet_engine", "attention", "precision"]
    if after.unet_engine == "torch":
        # A graph's kernels read the weights where they lay; OpenVINO lays out its own.
        names.append("channels_last")
    return all(getattr(before, name) == getattr(after, name) for name in names)


def faster(unet: Any, compute: ComputeConfig) -> Any:
    """Return what answers in the U-Net's place: the U-Net itself, compiled, recorded as CUDA graphs, or by OpenVINO.

    Raises UserError where an engine or the device for it is missing; without a compiler it warns.
    """
    if views_of(unet.config) > 1 and (compute.unet_engine != "torch" or compute.cuda_graphs):
        option = "--compute.cuda-graphs" if compute.cuda_graphs else "--compute.unet-engine"
        raise UserError(f"{option} is for networks of single views, and this one takes several: leave it out")
    if compute.unet_engine == "openvino":
        return OpenVinoUnet(unet)
    if compute.cuda_graphs:
        require_graphs(unet.device)
        return GraphedUnet(unet, cuda_recorder())
    return compiled(unet, compute.compile_mode) if compute.compile_unet else unet


def require_graphs(device: torch.device) -> None:
    """Raise UserError for a device that has no CUDA graphs."""
    if device.type != "cuda":
        raise UserError(
            f"--compute.cuda-graphs needs a CUDA device, and this run computes on {device.type}: "
            "leave it out, or add --compute.no-cuda-graphs to --resume"
        )


@contextmanager
def in_precision(unet: Any, dtype: torch.dtype) -> Iterator[None]:
    """Give a U-Net's weights another type, and their own back if what follows fails.

    Types that are wider than the weights' own keep every digit, so that nothing is lost on the way back.
    """
    before = unet.dtype
    _set_precision(unet, dtype)
    try:
        yield
    except UserError:
        _set_precision(unet, before)
        raise


def _set_precision(unet: Any, dtype: torch.dtype) -> None:
    if unet.dtype != dtype:
        # The library's own ``to`` warns of a change of type, which is what is wanted.
        nn.Module.to(unet, dtype)


def compiled(unet: Any, mode: CompileMode = "default") -> Any:
    """Return the U-Net, to be compiled at its first call; itself, with a warning, if its compiler is missing."""
    if unet.device.type == "cuda":
        found, needed = importlib.util.find_spec("triton") is not None, "the package triton"
    else:
        compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
        found, needed = any(map(shutil.which, filter(None, compilers))), "a C++ compiler"
    if not found:
        warnings.warn(
            f"the U-Net runs uncompiled, because {needed} is missing: install it, or leave --compute.compile-unet out",
            stacklevel=2,
        )
        return unet
    divide_by_one(unet)
    return CompiledUnet(unet, lambda unet: torch.compile(unet, mode=None if mode == "default" else mode))


def _cross_attentions(unet: Any) -> list[Any]:
    from diffusers.models.attention_processor import Attention

    return [module for module in unet.modules() if isinstance(module, Attention) and module.is_cross_attention]


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which networks compute in their own types."""
    # The meta device, on which steps are only counted, does not support autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
