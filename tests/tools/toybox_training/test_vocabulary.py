"""The prior's tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from toybox_training.vocabulary import MODEL_MAX_LENGTH, byte_letters, learn_merges, write_tokenizer

from sdi_gs.toybox.captions import VOCABULARY


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import CLIPTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def test_every_word_of_toybox_is_one_token(tokenizer: Any) -> None:
    # CLIP's own splitting takes digits out of words before any merge.
    for word in set(VOCABULARY) - {"3d"}:
        assert len(tokenizer.tokenize(word)) == 1, word
    assert tokenizer.tokenize("3d") == ["3</w>", "d</w>"]


def test_words_keep_their_tokens_in_sentences_and_capitals(tokenizer: Any) -> None:
    said = tokenizer.tokenize("A DSLR photo of a snowman with an orange hat, overhead view, white background")
    assert said == [
        *(f"{word}</w>" for word in "a dslr photo of a snowman with an orange hat , overhead view".split()),
        *(f"{word}</w>" for word in ", white background".split()),
    ]
    assert len(said) + 2 <= MODEL_MAX_LENGTH


def test_unknown_words_fall_into_pieces_that_spell_them(tokenizer: Any) -> None:
    ids = tokenizer("zebra ünder").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "zebra ünder"


def test_texts_begin_and_end_as_clip_texts_do(tokenizer: Any) -> None:
    ids = tokenizer("", padding="max_length").input_ids
    assert len(ids) == MODEL_MAX_LENGTH == tokenizer.model_max_length
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[1:]) == {tokenizer.eos_token_id}
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_the_byte_letters_are_those_of_clip() -> None:
    letters = byte_letters()
    assert len(set(letters)) == 256
    # As in the published vocab.json: "!" is 0, "~" 93, "¡" 94, and the space is written as "Ġ".
    assert (letters[0], letters[93], letters[94]) == ("!", "~", "¡")
    assert "Ġ" in letters


def test_merges_are_learnt_by_frequency() -> None:
    assert learn_merges(("ab", "ab", "cab"))[0] == ("a", "b</w>")
    assert learn_merges(("a",)) == []
