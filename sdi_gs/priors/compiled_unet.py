"""A U-Net that a compiler makes faster, and that goes on without it where compiling fails.

Letters: R rows, C latent channels, h w latent pixels, L tokens, E embedding width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CompiledUnet:
    """Answers like the U-Net, through its compiled form as long as that can be compiled.

    Compiling happens at the first call of each shape, when the compiler's programs, its cache folder or the device's
    libraries turn out to be unusable. Results differ by rounding.
    """

    def __init__(self, unet: Any, compile_it: Callable[[Any], Any]) -> None:
        """``compile_it`` returns what compiles the U-Net at its first call, as torch.compile does."""
        self._unet = unet
        self._answering = compile_it(unet)

    def __call__(
        self,
        latents: Tensor,  # [R, C, h, w]
        timesteps: Tensor,  # [R] int64
        *,
        encoder_hidden_states: Tensor,  # [R, L, E]
    ) -> Any:
        """Return an object whose ``sample`` is the prediction [R, C, h, w]; warn once if compiling fails."""
        # Takes a second to import, and compiling has imported it.
        from torch._dynamo.exc import BackendCompilerFailed

        try:
            return self._answering(latents, timesteps, encoder_hidden_states=encoder_hidden_states)
        except BackendCompilerFailed as error:
            cause = error.inner_exception
            if isinstance(cause, torch.OutOfMemoryError):
                # A lower tier may have room for it.
                raise cause from error
            # The first line names what went wrong; a compiler's output and advice follow.
            reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
            warnings.warn(f"the U-Net could not be compiled and runs uncompiled from here: {reason}", stacklevel=2)
            self._answering = self._unet
        return self._unet(latents, timesteps, encoder_hidden_states=encoder_hidden_states)
