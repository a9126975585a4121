"""Textual inversions: a word's vectors reach the text encoder, alone and several for a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from original_layout import save_tensors
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.parts import AddOns


def load(folder: Path, *files: Path) -> Any:
    return load_latent_diffusion(folder, add_ons=AddOns(embeddings=files), device="cpu", dtype=torch.float32)


def vectors_read(prior: Any, prompt: str) -> Tensor:
    """The rows of the table that a prompt's tokens stand for, as the text encoder looks them up."""
    seen: list[Tensor] = []
    table = prior.text_encoder.get_input_embeddings()
    handle = table.register_forward_hook(lambda _, __, out: seen.append(out))
    prior.embed_prompts([prompt])
    handle.remove()
    return seen[0][0]


@pytest.mark.parametrize(("word", "name"), [("<toy>", "<toy>"), ("emb_params", "my-style")])
@pytest.mark.parametrize("count", [1, 3])
def test_a_words_vectors_stand_where_the_word_stood(
    pristine_models: dict[str, Path], tmp_path: Path, word: str, name: str, count: int
) -> None:
    vectors = torch.randn(count, 16, generator=torch.Generator().manual_seed(0))
    file = save_tensors({word: vectors}, tmp_path / "my-style.safetensors")
    plain, prior = load(pristine_models["epsilon"]), load(pristine_models["epsilon"], file)
    read = vectors_read(prior, f"blue {name} blue")
    before = vectors_read(plain, "blue blue")
    assert torch.equal(read[2 : 2 + count], vectors)
    assert torch.equal(read[:2], before[:2])
    assert torch.equal(read[2 + count], before[2])
    assert torch.equal(vectors_read(prior, "blue robot"), vectors_read(plain, "blue robot"))


def test_words_inside_other_words_are_left_alone(pristine_models: dict[str, Path], tmp_path: Path) -> None:
    files = [
        save_tensors({"emb_params": torch.full((2, 16), value)}, tmp_path / f"{name}.safetensors")
        for name, value in (("toy", 1.0), ("toybox", 2.0))
    ]
    prior = load(pristine_models["epsilon"], *files)
    read = vectors_read(prior, "toybox toy")
    assert read[1:5, 0].tolist() == [2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"<toy>": torch.ones(1, 768)}, "vectors of 768 numbers, the model's text encoder needs 16"),
        ({"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 16)}, "has 2 sets of vectors"),
        ({"blue</w>": torch.ones(1, 16)}, "has already"),
        ({"a.b.c": torch.ones(1, 2, 3)}, "is no textual inversion"),
        ({"emb_params": torch.ones(1, 16, 5)}, r"shape \(1, 16, 5\) where 1 to 75 vectors are needed"),
        ({"<toy>": torch.ones(0, 16)}, "where 1 to 75 vectors are needed"),
        ({"<toy>": torch.ones(76, 16)}, "where 1 to 75 vectors are needed"),
        ({"<toy>": torch.ones(1, 16, dtype=torch.int64)}, "numbers of type int64"),
        ({"<toy>": torch.full((1, 16), float("nan"))}, "vectors that are not finite"),
        ({"\x1b[31m": torch.ones(1, 16)}, r"stands for '\\x1b\[31m', which is no word"),
        ({" ": torch.ones(1, 16)}, "which is no word"),
        ({"w" * 300: torch.ones(1, 16)}, "which is no word"),
        ({"unet.x.lora_A.weight": torch.ones(2, 2)}, "is no textual inversion"),
    ],
)
def test_what_is_no_word_of_this_model_is_refused(
    pristine_models: dict[str, Path], tmp_path: Path, tensors: dict[str, Tensor], line: str
) -> None:
    with pytest.raises(UserError, match=line) as caught:
        load(pristine_models["epsilon"], save_tensors(tensors, tmp_path / "word.safetensors"))
    assert "\n" not in str(caught.value)
