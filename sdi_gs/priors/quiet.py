"""Load networks without the messages of diffusers and transformers on the terminal."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def lean_loading() -> dict[str, Any]:
    """Return options of diffusers' ``from_pretrained`` that avoid its warning if accelerate is not installed."""
    return {"low_cpu_mem_usage": importlib.util.find_spec("accelerate") is not None}


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide the progress bars of transformers and the hub inside, and restore the user's setting afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def without_messages() -> Iterator[None]:
    """Hide what both libraries log of a model inside, which its reader here reports itself; errors are still raised."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
