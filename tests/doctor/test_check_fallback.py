"""The check of falling back notices a run that does not, or that comes out as another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from sdi_gs.contracts import StepReport
from sdi_gs.doctor.check_fallback import check_fallback
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.rows import Row
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.representations.gaussian_scene import GaussianScene
from sdi_gs.training.trainer import Trainer

pytestmark = pytest.mark.slow

FELL = "times that it went a tier down"
DRAWS = "random draws that were not taken back"
OFF = "positions off a run on that tier"


@pytest.fixture
def one_view_fits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Room for one view's activations, as a card has it: the second one is refused half-way through the step."""

    @contextmanager
    def hold(_: torch.device, __: float) -> Iterator[None]:
        encode = LatentDiffusionPrior.encode_images

        def short_of_memory(self: LatentDiffusionPrior, images: torch.Tensor, generator: torch.Generator) -> Any:
            encoded = encode(self, images, generator)
            if len(images) > 1 and self.compute.encoded_at_once != 1:
                # With gradients of this step that nobody wants, and with draws that are to be taken back.
                encoded.sum().backward()
                raise torch.OutOfMemoryError("CUDA out of memory")
            return encoded

        with monkeypatch.context() as patch:
            patch.setattr(LatentDiffusionPrior, "encode_images", short_of_memory)
            yield

    return hold


def verdicts(rows: list[Row]) -> dict[str, str]:
    return {row.what: row.verdict for row in rows}


def test_a_run_that_falls_back_passes(
    setup: CheckSetup, one_view_fits: Callable[..., Any], failures: Callable[..., list[str]]
) -> None:
    rows = list(check_fallback(setup, hold_to=one_view_fits))
    assert failures(rows) == []
    [fell] = [row for row in rows if row.what == FELL]
    assert fell.figure == 1.0
    assert "out of memory; repeating it on tier 16" in fell.note


def test_memory_that_never_was_short_proves_nothing(setup: CheckSetup, failures: Callable[..., list[str]]) -> None:
    @contextmanager
    def hold(_: torch.device, __: float) -> Iterator[None]:
        yield

    assert failures(check_fallback(setup, hold_to=hold)) == [FELL]


def test_gradients_of_the_step_that_was_given_up_are_found(
    setup: CheckSetup,
    one_view_fits: Callable[..., Any],
    failures: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GaussianScene, "drop_gradients", lambda self: None)
    assert failures(check_fallback(setup, hold_to=one_view_fits)) == [OFF]


def test_draws_that_stay_taken_are_found(
    setup: CheckSetup,
    one_view_fits: Callable[..., Any],
    failures: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Trainer.train_step

    def careless(self: Trainer) -> StepReport:
        try:
            return step(self)
        except torch.OutOfMemoryError:
            torch.rand(1, generator=self.host_generator)
            raise

    monkeypatch.setattr(Trainer, "train_step", careless)
    assert DRAWS in failures(check_fallback(setup, hold_to=one_view_fits))


def test_on_a_cpu_it_is_left_out(setup: CheckSetup) -> None:
    assert verdicts(list(check_fallback(setup))) == {"a step that runs out of memory": "skipped"}
