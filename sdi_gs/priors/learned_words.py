"""Words learned from pictures (textual inversion): vectors that are added to the text encoder's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.priors.checkpoint_files import is_embedding, is_lora
from sdi_gs.priors.parts import Parts
from sdi_gs.priors.safetensors_header import Header, read_header
from sdi_gs.settings.shown import shown

MOST_VECTORS = 75
"""Tokens of a prompt that CLIP reads."""
LONGEST_WORD = 200

_A1111_NAME = "emb_params"


def add_words(parts: Parts, files: Sequence[Path]) -> Callable[[str], str] | None:
    """Add the words of all files to tokenizer and text encoder; return the rewriting of prompts that they need.

    A word of several vectors becomes as many tokens. Raises UserError for a file that is no textual inversion, that
    belongs to another text encoder, or whose word is known already.
    """
    expansions: dict[str, str] = {}
    for file in files:
        word, vectors = read_embedding(file)
        width = parts.text_encoder.get_input_embeddings().weight.shape[1]
        if vectors.shape[1] != width:
            raise UserError(
                f"{file} has vectors of {vectors.shape[1]} numbers, the model's text encoder needs {width}: it was "
                "learned with another model (768 with Stable Diffusion 1.x, 1024 with 2.x)"
            )
        tokens = [word, *(f"{word}_{index}" for index in range(1, len(vectors)))]
        _append(parts, tokens, vectors, file)
        if len(tokens) > 1:
            expansions[word] = " ".join(tokens)
    if not expansions:
        return None
    # Longest first, so that no word is found inside another one.
    words = sorted(expansions, key=len, reverse=True)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words))
    return lambda text: pattern.sub(lambda found: expansions[found[0]], text)


def word_of(header: Header) -> str:
    """Return the word that a file's vectors stand for: its own name for them, in A1111's files that of the file."""
    [name] = list(header.shapes)[:1]
    return header.path.stem if name == _A1111_NAME else name


def read_embedding(file: Path) -> tuple[str, Tensor]:
    """Return the word and its vectors [N, E] of a file of diffusers or A1111."""
    if not (is_there(file) and file.is_file()):
        raise UserError(f"there is no textual inversion {file}: check --embedding")
    header = read_header(file)
    if is_lora(header) or not is_embedding(header):
        raise UserError(f"{file} is no textual inversion: --embedding takes files with the vectors of one word")
    if len(header.shapes) != 1:
        raise UserError(f"{file} has {len(header.shapes)} sets of vectors: use a file for one text encoder")
    from safetensors.torch import load_file

    [vectors] = load_file(file).values()
    vectors, word = torch.atleast_2d(vectors), word_of(header)
    if vectors.dim() != 2 or not 1 <= len(vectors) <= MOST_VECTORS or not vectors.is_floating_point():
        kind = str(vectors.dtype).removeprefix("torch.")
        raise UserError(
            f"{file} has numbers of type {kind} and shape {tuple(vectors.shape)} where 1 to {MOST_VECTORS} vectors are "
            "needed: download it again"
        )
    if not bool(vectors.float().isfinite().all()):
        raise UserError(f"{file} has vectors that are not finite: download it again")
    if not word.isprintable() or not 1 <= len(word) <= LONGEST_WORD or word != word.strip():
        raise UserError(
            f"{file} stands for {shown(word)}, which is no word of a prompt (1 to {LONGEST_WORD} letters): rename the "
            "file, or the vectors in it"
        )
    return word, vectors.float()


def _append(parts: Parts, tokens: Sequence[str], vectors: Tensor, file: Path) -> None:
    tokenizer: Any = parts.tokenizer
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    known = [token for token in tokens if token in vocabulary]
    if known:
        raise UserError(
            f"{file} stands for {known[0]!r}, which the model's vocabulary has already: rename the file to a word of "
            "its own" + ("" if file.stem == tokens[0] else ", or the vectors in it")
        )
    tokenizer.add_tokens(list(tokens))
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    table = parts.text_encoder.get_input_embeddings()
    weight = table.weight.detach()
    grown = weight.new_zeros(max(max(ids) + 1, len(weight)), weight.shape[1])
    grown[: len(weight)] = weight
    grown[ids] = vectors.to(grown)
    replaced = torch.nn.Embedding(*grown.shape, device="meta")
    replaced.weight = torch.nn.Parameter(grown, requires_grad=False)
    parts.text_encoder.set_input_embeddings(replaced)
    parts.text_encoder.config.vocab_size = len(grown)
