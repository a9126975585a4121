"""CLIP's tokenizer from the list of merges that comes with this package, for models that contain none."""

from __future__ import annotations

import json
import lzma
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77


def clip_tokenizer(*, pad_token: str) -> CLIPTokenizer:
    """Return the tokenizer of every published Stable Diffusion 1.x (padded with ``END``) and 2.x (padded with "!")."""
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_clip_tokenizer(Path(folder), pad_token=pad_token)
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def write_clip_tokenizer(folder: Path, *, pad_token: str) -> None:
    """Write the tokenizer's files as transformers reads them."""
    merges = clip_merges()
    vocabulary = {word: index for index, word in enumerate(clip_words(merges))}
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    config = {**special, "model_max_length": MAX_TOKENS, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def clip_merges() -> list[str]:
    """Return CLIP's merges, two parts each, in their order."""
    packed = resources.files("sdi_gs.priors").joinpath("clip", "merges.txt.xz").read_bytes()
    return lzma.decompress(packed).decode().splitlines()


def clip_words(merges: list[str]) -> list[str]:
    """Return the vocabulary in the order of its ids: bytes, bytes at a word's end, merges, two special words."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    # Bytes that do not print are written as characters above 255.
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    return [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair.split()) for pair in merges), START, END]
