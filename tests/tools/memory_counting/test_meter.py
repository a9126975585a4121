"""What the meter counts, against numbers worked out by hand and against torch's own profiler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from memory_counting.meter import Assumptions, StepMeter
from torch import Tensor

META = torch.device("meta")


def empty(*shape: int, **options: Any) -> Tensor:
    return torch.empty(shape, device=META, **options)


def test_a_storage_counts_once_and_until_its_last_view_is_gone() -> None:
    with StepMeter() as meter:
        values = empty(100)
        view = values[10:].reshape(9, 10)
        assert meter.live.total() == 400
        del values
        assert meter.live.total() == 400
        del view
        assert meter.live.total() == 0
    assert meter.peak.total() == 400


def test_what_autograd_keeps_counts_until_the_backward_pass() -> None:
    with StepMeter() as meter:
        values = empty(100, requires_grad=True)
        # Two factors are kept for the gradient of their product, the sum of it is not.
        total = (values.exp() * values.sin()).sum()
        assert meter.live.total() == 3 * 400 + 4
        total.backward()
        del total
        assert meter.live.total() == 2 * 400
    assert values.grad is not None


def test_memory_and_work_belong_to_the_part_that_was_on() -> None:
    with StepMeter() as meter:
        meter.adopt([empty(10)], "weights")
        with meter.within("unet"):
            product = empty(20, 30) @ empty(30, 40)
    del product
    assert meter.peak["unet"] == 4 * (600 + 1200 + 800)
    assert sum(operation.flops for operation in meter.operations) == 2 * 20 * 30 * 40
    assert {operation.part for operation in meter.operations if operation.flops} == {"unet"}


def test_fused_attention_holds_no_scores_and_the_plain_one_would() -> None:
    query = empty(1, 2, 4096, 64, dtype=torch.float16)
    scores = 2 * 4096 * 4096 * 2
    with StepMeter() as meter:
        F.scaled_dot_product_attention(query, query, query)
    assert meter.peak.total() < scores / 16
    assert F.scaled_dot_product_attention.__module__ != "memory_counting.meter"
    with StepMeter() as meter:
        torch.matmul(torch.softmax(query @ query.transpose(-1, -2), dim=-1), query)
    assert meter.peak.total() > scores


@pytest.mark.parametrize(("width", "dtype"), [(64, torch.float16), (512, torch.float32)])
def test_attention_counts_its_two_products(width: int, dtype: torch.dtype) -> None:
    query = empty(1, 1, 128, width, dtype=dtype)
    with StepMeter() as meter:
        F.scaled_dot_product_attention(query, query, query)
    assert sum(operation.flops for operation in meter.operations) == 2 * 2 * 128 * 128 * width


def test_a_convolution_borrows_copies_of_its_tensors() -> None:
    with StepMeter() as meter:
        out = F.conv2d(empty(1, 3, 8, 8), empty(5, 3, 3, 3), padding=1)
    assert meter.live.total() == out.numel() * 4
    assert meter.peak["workspace"] == 4 * (3 * 64 + 5 * 27 + 5 * 64)


def test_a_frozen_convolution_borrows_for_the_gradient_of_its_input_alone() -> None:
    image, kernel = empty(1, 3, 8, 8).requires_grad_(), empty(50, 3, 3, 3)
    with StepMeter() as meter:
        out = F.conv2d(image, kernel, padding=1)
        above = torch.ones_like(out)
        meter.restart_peak()
        out.backward(above)
    # What comes from above, the kernel and the new gradient; not the image, which only a kernel's gradient needs.
    assert meter.peak["workspace"] == 4 * (50 * 64 + 50 * 27 + 3 * 64)


def test_numbers_that_only_data_could_tell_are_the_stated_ones() -> None:
    with StepMeter(assumptions=Assumptions(scalar=2.5, nonzero_share=0.25, mask_share=0.75)) as meter:
        values = empty(8, 4)
        assert values.sum().item() == 2.5
        assert bool(values.isfinite().all())
        assert values.nonzero().shape == (8, 2)
        mask = values[:, 0] > 0.0
        assert values[mask].shape == (6, 4)
        assert mask.nonzero().shape == (6, 1)
        assert torch.stack([values.sum(), values.max()]).tolist() == [1.0, 1.0]
        assert torch.bincount(empty(8, dtype=torch.int64), minlength=6).shape == (6,)
    assert meter.live["scene"] >= values.numel() * 4


def test_what_lies_elsewhere_is_left_out() -> None:
    weights = empty(1000)
    with StepMeter() as meter:
        meter.leave_out([weights])
        halves = weights[:500]
    assert meter.peak.total() == 0
    assert len(halves) == 500


def network(device: torch.device) -> torch.nn.Module:
    with device:
        return torch.nn.Sequential(
            torch.nn.Linear(256, 512),
            torch.nn.GELU(),
            torch.nn.Linear(512, 512),
            torch.nn.SiLU(),
            torch.nn.Linear(512, 8),
        )


def profiled_peak(step: Any) -> int:
    """The largest sum of what torch's CPU allocator gave and took back."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():  # pyright: ignore[reportOptionalMemberAccess]
        if event.name() == "[memory]":
            held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
            peak = max(peak, held)
    return peak


def test_the_peak_of_a_training_step_is_that_of_torchs_profiler() -> None:
    def step(device: torch.device, model: torch.nn.Module) -> None:
        model(torch.ones(2000, 256, device=device)).square().mean().backward()

    real, counted = network(torch.device("cpu")), network(META)
    measured = profiled_peak(lambda: step(torch.device("cpu"), real))
    meter = StepMeter(kernels="cpu")
    meter.adopt(counted.parameters(), "weights")
    meter.restart_peak()
    held = meter.live.total()
    with meter:
        step(META, counted)
    assert measured > 8_000_000
    assert meter.peak.total() - held == pytest.approx(measured, rel=0.02)
