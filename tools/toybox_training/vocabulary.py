"""The prior's tokenizer: a ``CLIPTokenizer`` folder in which every word of toybox is one token.

CLIP's byte-pair encoding starts with 256 byte letters and 256 word-final ones, and applies merges in order. Unknown
words are split into pieces, as in CLIP.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from sdi_gs.toybox.captions import VOCABULARY

START, END = "<|startoftext|>", "<|endoftext|>"
MODEL_MAX_LENGTH = 24
"""Tokens of a text, including start and end."""

Word = tuple[str, ...]


def byte_letters() -> list[str]:
    """Return CLIP's 256 letters: printable bytes as themselves, the others as characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return byte-pair merges, the most frequent pair first, until every word is a single token."""
    spelt: list[Word] = [(*word[:-1], word[-1] + "</w>") for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(word) > 1 for word in spelt):
        pairs = Counter(pair for word in spelt for pair in zip(word[:-1], word[1:], strict=True))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelt = [_merged(word, best) for word in spelt]
    return merges


def _merged(word: Word, pair: tuple[str, str]) -> Word:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def write_tokenizer(folder: Path) -> None:
    """Write vocab.json, merges.txt and the two configs that ``CLIPTokenizer.from_pretrained`` reads."""
    letters = byte_letters()
    merges = learn_merges(VOCABULARY)
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += dict.fromkeys(first + second for first, second in merges)
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    config = {
        **special,
        "model_max_length": MODEL_MAX_LENGTH,
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, content in (
        ("vocab.json", vocabulary),
        ("special_tokens_map.json", special),
        ("tokenizer_config.json", config),
    ):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
