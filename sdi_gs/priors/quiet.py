"""Loading of networks without what diffusers and transformers say of it on the terminal."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def lean_loading() -> dict[str, Any]:
    """Options of diffusers' ``from_pretrained``: it would ask for accelerate aloud where that is not installed."""
    return {"low_cpu_mem_usage": importlib.util.find_spec("accelerate") is not None}


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """No bars of transformers and the hub inside; they are put back, unless the user has none."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
