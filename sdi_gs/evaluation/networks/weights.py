"""Read weights, and give them to a network that has exactly them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from sdi_gs.errors import UserError
from sdi_gs.priors.layout import in_one_line
from sdi_gs.priors.pickled_weights import read_pickle

COUNTS = ("position_ids", "attn_mask", "num_batches_tracked")
"""Ends of entries that are counted, not learned: in some releases of a library only."""


def read_state(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return all tensors of weight files on the host, as float32; UserError for a file that holds none.

    Files other than safetensors are read by torch's restricted reader, which refuses everything but tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for file in files:
        if file.suffix != ".safetensors":
            state |= read_pickle(file)
            continue
        try:
            state |= load_file(file)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise UserError(f"{file} cannot be read as weights ({in_one_line(error)}): download it again") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def fill(network: nn.Module, state: Mapping[str, Tensor], *, files: Sequence[Path], layout: str) -> None:
    """Give a network its weights; UserError, naming the layout, if some are missing or of another shape."""
    known = {name: value for name, value in state.items() if not name.endswith(COUNTS)}
    try:
        found = network.load_state_dict(known, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise other_layout(files, layout, lines[0] if lines else in_one_line(error)) from error
    missing = [name for name in found.missing_keys if not name.endswith(COUNTS)]
    if missing:
        raise other_layout(files, layout, f"it has no {missing[0]}")


def other_layout(files: Sequence[Path], layout: str, what: str) -> UserError:
    """Return the error for weights of another network."""
    return UserError(f"{files[0]} has weights in another layout than {layout}: {what}")
