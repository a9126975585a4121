"""Muon: what it makes of a matrix, where it steps to, and which weights are its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toybox_training.optimiser import Muon, divided, orthogonalised


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_the_orthogonal_factor_keeps_directions_and_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    # In the basis of the matrix's own directions what comes out is diagonal.
    inside = u.T @ orthogonalised(matrix) @ v.T
    values = inside.diagonal()
    torch.testing.assert_close(inside, torch.diag(values), atol=1e-9, rtol=0.0)
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_it_is_the_published_iteration_of_the_matrix_itself() -> None:
    matrix = torch.randn(7, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    torch.testing.assert_close(orthogonalised(matrix), expected, atol=1e-9, rtol=1e-9)
    # Float32 loses little on the way over the Gram matrix.
    torch.testing.assert_close(orthogonalised(matrix.float()).double(), expected, atol=1e-4, rtol=1e-3)


def test_nothing_stays_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(6, 9)), torch.zeros(6, 9))


def test_the_first_step_of_a_convolution_is_that_of_torchs_muon_on_its_matrix() -> None:
    generator = torch.Generator().manual_seed(2)
    start, gradient = torch.randn(2, 24, 8, 3, 3, generator=generator).unbind()
    ours = nn.Parameter(start.clone().contiguous(memory_format=torch.channels_last))
    theirs = nn.Parameter(start.flatten(1).clone())
    for parameter, rule in (
        (ours, Muon([ours], lr=0.02)),
        (theirs, torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0, adjust_lr_fn="original")),
    ):
        for scale in (1.0, -0.3):
            parameter.grad = scale * gradient.view_as(parameter)
            rule.step()
    # Torch's turns are in bfloat16, of two or three digits.
    torch.testing.assert_close(ours.flatten(1), theirs, atol=2e-3, rtol=0.0)
    assert (ours - start).abs().max() > 1e-2


def test_embeddings_vectors_and_thin_matrices_are_left_to_adamw() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 8)
            self.first = nn.Conv2d(3, 8, 3)
            self.middle = nn.Conv2d(8, 8, 3)
            self.frozen = nn.Linear(8, 8).requires_grad_(False)
            self.last = nn.Linear(8, 8)

    network = Network()
    matrices, others = divided(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert [names[id(parameter)] for parameter in matrices] == ["middle.weight", "last.weight"]
    assert {names[id(parameter)] for parameter in others} == {
        "words.weight",
        "first.weight",
        "first.bias",
        "middle.bias",
        "last.bias",
    }
