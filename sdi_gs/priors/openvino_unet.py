"""A U-Net on CPUs by OpenVINO, in float32: the same network in fewer and better fused kernels.

It is converted from torch's module when it is first called, which takes seconds, and compiled for each shape.

Letters: R rows, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sdi_gs.errors import UserError

KEPT_SHAPES = 4
"""Compiled shapes that are kept: branches of the prompt alone, of guidance and of Perp-Neg, and a preview."""
_TELEMETRY = "openvino_telemetry"
_OTHERWISE = "or leave --compute.unet-engine out"


class OpenVinoUnet:
    """Calls diffusers' U-Net through OpenVINO; it stays the owner of the weights, which must not change."""

    def __init__(self, unet: Any) -> None:
        """Raise UserError for a U-Net that is not in float32 on the CPU, and where OpenVINO is not installed."""
        if unet.device.type != "cpu":
            raise UserError(
                f"OpenVINO computes on the CPU and the U-Net is on {unet.device}: use --device cpu, {_OTHERWISE}"
            )
        if unet.dtype != torch.float32:
            name = str(unet.dtype).removeprefix("torch.")
            raise UserError(
                f"OpenVINO computes the U-Net in float32, not in {name}: leave --compute.precision out, {_OTHERWISE}"
            )
        if importlib.util.find_spec("openvino") is None:
            raise UserError(
                f'the U-Net cannot be computed by OpenVINO without its package: pip install "sdi-gs[cpu]", {_OTHERWISE}'
            )
        self._unet = unet
        self._model: Any = None
        self._requests: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def __call__(
        self,
        latents: Tensor,  # [R, C, h, w] float32
        timesteps: Tensor,  # [R] int64
        encoder_hidden_states: Tensor,  # [R, L, E] float32
    ) -> SimpleNamespace:
        """Return the U-Net's prediction [R, C, h, w] as ``sample``, as diffusers' module does."""
        inputs = tuple(tensor.contiguous() for tensor in (latents, timesteps, encoder_hidden_states))
        # Sums are split among the threads, which are therefore part of what is compiled.
        key = (*(tuple(tensor.shape) for tensor in inputs), torch.get_num_threads())
        if key not in self._requests:
            self._requests[key] = self._compiled(inputs)
        self._requests.move_to_end(key)
        while len(self._requests) > KEPT_SHAPES:
            self._requests.popitem(last=False)
        results = self._requests[key].infer([tensor.numpy() for tensor in inputs], share_inputs=True)
        # A copy, because the request writes the next call's result to the same memory.
        return SimpleNamespace(sample=torch.from_numpy(results[0].copy()))

    def _compiled(self, inputs: tuple[Tensor, ...]) -> Any:
        """Return a request of the network for inputs of these shapes."""
        if self._model is None:
            self._model = _converted(self._unet, inputs)
        import openvino

        model = self._model.clone()
        model.reshape({place: list(tensor.shape) for place, tensor in zip(model.inputs, inputs, strict=True)})
        options = {
            # Its own choice is bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        return openvino.Core().compile_model(model, "CPU", options).create_infer_request()


class _Traced(nn.Module):
    """The U-Net with plain tensors in and out."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        return self.unet(latents, timesteps, encoder_hidden_states=embeddings, return_dict=False)[0]


@torch.no_grad()
def _converted(unet: Any, inputs: tuple[Tensor, ...]) -> Any:
    """Return the network as OpenVINO's model."""
    convert_model = _silent_converter()
    with warnings.catch_warnings():
        # Of branches in diffusers that the trace fixes: they depend on the model, or copy memory for large batches.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        # torch's own, of its tracer.
        warnings.simplefilter("ignore", DeprecationWarning)
        return convert_model(_Traced(unet), example_input=inputs)


def _silent_converter() -> Any:
    """Return OpenVINO's converter, imported without the package that would report each call to its makers.

    The reports are sent by forks of this process, which may outlive it. OpenVINO does without the package where it is
    not installed, and takes notice of that when it is first imported.
    """
    known = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    finally:
        del sys.modules[_TELEMETRY]
        if known is not None:
            sys.modules[_TELEMETRY] = known
    return openvino.convert_model
