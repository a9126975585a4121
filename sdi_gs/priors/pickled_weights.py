"""Read the tensors of a pickle by torch's restricted reader, which makes tensors and nothing else, and runs no code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import require_file
from sdi_gs.settings.shown import shown

_REFUSED = re.compile(r"GLOBAL (\S+)")


def read_pickle(file: Path) -> dict[str, Tensor]:
    """Return a pickle's tensors by name, on the host: those of its table, or of the table under "state_dict".

    Files in torch's usual form are mapped, so that their weights take memory only where they are used. Raises
    UserError for a file that is not there, is damaged, or holds anything but plain tensors.
    """
    require_file(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except MemoryError:
        raise
    except Exception as error:  # What is cut short or made up raises whatever it leads to.
        raise UserError(f"{file} cannot be read as weights: {_reason(error)}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{file} holds no weights: a table of tensors is expected, got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise UserError(
                f"{file} holds no weights: a table of tensors is expected, and {shown(str(name))} is {kind}"
            )
        if not _is_plain(value):
            raise UserError(
                f"{file} cannot be read as weights: {shown(str(name))} is no plain tensor of its own numbers"
            )
    return {str(name): value.detach() for name, value in content.items()}


def _reason(error: Exception) -> str:
    # torch's own text advises to read the file without restrictions.
    found = _REFUSED.search(str(error))
    if found is None:
        return f"it is cut short, damaged or of another kind ({type(error).__name__}); download it again"
    return f"it holds {shown(found[1])}, and whatever is no tensor may run code; take its .safetensors twin"


def _is_plain(value: Tensor) -> bool:
    """Return whether a tensor has all its numbers: views can claim any shape, and others have none or other forms."""
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
